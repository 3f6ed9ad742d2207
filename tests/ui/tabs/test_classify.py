"""The Classify tab's handlers, without a browser."""

import csv
from pathlib import Path

import anyio
import gradio as gr
import pytest
from labs import bare
from torchvision.io import write_png

from ui.tabs.classify import several, tab
from ui.tabs.classify.several import Several
from ui.tabs.classify.tab import Answer

ANSWER, SEVERAL = bare(Answer), bare(Several)


@pytest.fixture
def picture(images, monkeypatch, tmp_path):
    """A picture in the folder that Gradio uploads to, as the page sends it, next to a file that is none."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    write_png(images.test.images[0].contiguous(), str(tmp_path / "picture.png"))
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    return {"path": str(tmp_path / "picture.png")}


def classified(lab, picture, name="quick"):
    return anyio.run(tab.classify, lab, ANSWER, picture, name)


def explained(lab, **inputs):
    async def call():
        return await tab.explain(lab, ANSWER, **inputs)

    return anyio.run(call)


def test_where_the_network_looked(lab, picture):
    """First the picture alone, then both maps for the answer, then those of a class that is pressed."""
    updates = classified(lab, picture)
    assert updates[ANSWER.looks].count("<img") == 1
    given = updates[ANSWER.given]
    for_answer = explained(lab, given=given)[ANSWER.looks]
    assert for_answer.count("<img") == 3
    likeliest, other, *_ = updates[ANSWER.label]
    assert f"What speaks for {likeliest}" in for_answer
    for_other = explained(lab, given=given, label=other)[ANSWER.looks]
    assert f"What speaks for {other}" in for_other
    assert for_other != for_answer


@pytest.mark.parametrize("label", [None, "no such class", 3])
def test_a_label_that_is_none_stands_for_the_answer(lab, picture, label):
    """A handcrafted request may send anything."""
    updates = classified(lab, picture)
    likeliest = next(iter(updates[ANSWER.label]))
    assert f"What speaks for {likeliest}" in explained(lab, given=updates[ANSWER.given], label=label)[ANSWER.looks]


def test_without_a_picture_nothing_is_explained(lab):
    """Nor after an error, which is displayed in place of the answer."""
    assert classified(lab, None)[ANSWER.given] is None
    failed = classified(lab, {"path": "/etc/passwd"})
    assert "Send a picture file" in failed[ANSWER.says]
    assert failed[ANSWER.given] is None
    assert explained(lab, given=None) == gr.skip()


def test_an_unsure_answer_says_so(lab, picture, monkeypatch):
    """Below the threshold the sentence says that the picture may show nothing that the network knows."""
    monkeypatch.setattr("trainer.networks.predict.UNSURE_BELOW", 0.0)
    assert "It says <b>" in classified(lab, picture)[ANSWER.says]
    monkeypatch.setattr("trainer.networks.predict.UNSURE_BELOW", 1.1)
    assert "nothing that it knows" in classified(lab, picture)[ANSWER.says]


def all_classified(lab, files, *, name="quick", stop_after=None):
    """All updates for several pictures; with `stop_after`, Stop is pressed after that many."""

    async def collect():
        turn, found = [0], []
        async for updates in several.classify_all(lab, SEVERAL, files=files, name=name, turn=turn):
            found.append(updates)
            if len(found) == stop_after:
                several._stop(turn)
        return found

    return anyio.run(collect)


def test_several_pictures_are_a_table_and_csv(lab, picture, monkeypatch):
    """A row for each file; one that is no picture has the reason in place of an answer."""
    monkeypatch.setattr("trainer.networks.predict.UNSURE_BELOW", 0.0)
    text = {"path": str(Path(picture["path"]).with_name("text.png")), "orig_name": "<b>=1+1.png"}
    outside = {"path": "/etc/passwd", "orig_name": "passwd"}
    updates = all_classified(lab, [picture, text, outside])[-1]
    (thumbnail, label, share, name, _, other), broken, refused = updates[SEVERAL.table]["value"]["data"]
    expected = classified(lab, picture)[ANSWER.label]
    assert thumbnail.startswith("<img")
    assert (name, label) == ("picture.png", next(iter(expected)))
    assert [share, other] == [round(value, 4) for value in list(expected.values())[:2]]
    assert broken[3] == "<b>=1+1.png"
    assert "not a picture" in broken[1]
    assert "Send a picture file" in refused[1]
    head, first, second, _ = csv.reader(several.to_csv(updates[SEVERAL.rows]).splitlines())
    assert dict(zip(head, first, strict=True))[label] == str(expected[label])
    assert (second[1], second[-1]) == ("", broken[1])


def test_stop_keeps_the_answers_so_far(lab, picture, monkeypatch):
    """The next picture is not read."""
    monkeypatch.setattr(several, "_SECONDS_BETWEEN_UPDATES", -1)
    updates = all_classified(lab, [picture] * 5, stop_after=3)[-1]
    assert "Stopped" in updates[SEVERAL.status]
    assert len(updates[SEVERAL.rows]) == 3


@pytest.mark.parametrize(
    ("files", "name", "sentence"),
    [
        ([{}] * 101, "quick", "up to 100 pictures"),
        ({"a": 1}, "quick", "up to 100 pictures"),
        ([{}], "no such", "There is no such checkpoint"),
    ],
)
def test_what_cannot_be_classified_is_explained(lab, files, name, sentence):
    """One sentence, and no table."""
    updates = all_classified(lab, files, name=name)[-1]
    assert sentence in updates[SEVERAL.status]
    assert not updates[SEVERAL.table]["visible"]
