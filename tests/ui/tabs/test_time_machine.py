"""The time machine's handlers, without a browser: a visitor's own runs, and handcrafted requests."""

import base64
import json
import time
from functools import partial

import anyio
import gradio as gr
import pytest
import torch
from labs import make_lab
from torchvision.io import write_png

from trainer.images.image_data import facts
from trainer.images.picture import read_picture
from trainer.insight import timeline
from trainer.learning.loop import train
from trainer.runs import run_folder
from trainer.runs.reader import read_run
from trainer.runs.recorder import record
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from ui.tabs.inside.choice import Picture
from ui.tabs.inside.time_machine import frames, view
from ui.tabs.inside.time_machine import walk as walking
from ui.tabs.inside.time_machine.journey import build_journey
from ui.tabs.inside.time_machine.walk import Walks, stop, walk
from ui.visitors import new_visitor

VISITOR = new_visitor()
JOURNEY = build_journey()


@pytest.fixture(scope="module")
def lab(tiny, tmp_path_factory):
    """A lab in which VISITOR has a run of two epochs."""
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    made = make_lab(checkpoints)
    (folder,) = made.runs.new_race(VISITOR, 1)
    config = TrainConfig(epochs=2, batch_size=13, scheduler="constant")
    with run_folder.writing(folder):
        list(record(train(config, tiny), Run(config=config), folder, facts(tiny)))
    yield made
    while made.images is None and not made.failure:  # so that no thread outlives the tests
        time.sleep(0.1)


@pytest.fixture
def picture(images, monkeypatch, tmp_path):
    """A picture in the folder that Gradio uploads to, as the page sends it."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    write_png(images.test.images[0].contiguous(), str(tmp_path / "picture.png"))
    return {"path": str(tmp_path / "picture.png")}


def key_of(lab) -> str:
    return lab.runs.of(VISITOR)[0].name


def walk_of(lab, name, picture, walks, visitor=VISITOR):
    """A walk through a run."""
    return walk(lab, JOURNEY, visitor=visitor, names=[name], run=None, picture=picture, walks=walks)


def walked(lab, visitor, name, picture) -> list:
    """The last values that a walk gives to the components."""

    async def collect():
        last = {}
        async for updates in walk_of(lab, name, picture, Walks(), visitor):
            last |= updates
        return last

    return anyio.run(collect)


def test_a_walk_through_ones_own_run(lab, picture):
    """Returns a frame for each epoch, with its filters, its probabilities and its layers, and the charts."""
    updates = walked(lab, VISITOR, key_of(lab), picture)
    machine, lines, learned = (updates[part] for part in (JOURNEY.machine, JOURNEY.lines, JOURNEY.accuracy))
    frames = machine["frames"]
    assert [frame["epoch"] for frame in frames] == [0, 1, 2]
    for frame in frames:
        assert len(base64.b64decode(frame["filters"])) == 32 * 5 * 5 * 3
        assert sum(row["share"] for row in frame["shares"]) == pytest.approx(1, abs=1e-3)
    assert [len(frame["layers"]) for frame in frames] == [0, 5, 5]
    assert frames[1]["layers"] != frames[2]["layers"]
    assert not machine["more"]
    assert {row["epoch"] for row in lines["data"]["shares"]} == {0, 1, 2}
    assert [row["epoch"] for row in learned["data"]["epochs"]] == [0, 1, 2]


def test_the_axes_include_a_last_epoch_without_weights(lab, picture):
    """Its accuracy is still drawn, and the epochs of both charts are aligned."""
    file = lab.runs.folder / key_of(lab) / "epochs" / "epoch-0002.safetensors"
    kept = file.read_bytes()
    file.unlink()
    try:
        updates = walked(lab, VISITOR, key_of(lab), picture)
    finally:
        file.write_bytes(kept)
    machine, lines, learned = (updates[part] for part in (JOURNEY.machine, JOURNEY.lines, JOURNEY.accuracy))
    assert [frame["epoch"] for frame in machine["frames"]] == [0, 1]
    for chart in (lines, learned):
        assert '"domain": [0, 2]' in json.dumps(chart["specs"])


@pytest.mark.parametrize("visitor", [None, "f" * 32, {}, [], "../x", 3])
def test_another_visitors_run_is_refused(lab, picture, visitor):
    """Also with a forged visitor key: an error and no frames."""
    updates = walked(lab, visitor, key_of(lab), picture)
    says, machine = updates[JOURNEY.says], updates[JOURNEY.machine]
    assert "You have no such run" in says
    assert machine == {}


@pytest.mark.parametrize(
    "name", [{"a": 1}, ["x"], 3, True, "../../etc", "/etc/passwd", "\0", "x" * 100_000, "a/b/c", "a/.."]
)
def test_an_invalid_name_is_refused(lab, picture, name):
    """An error explains it; neither the disk nor the Hub is accessed."""
    updates = walked(lab, VISITOR, name, picture)
    says, machine = updates[JOURNEY.says], updates[JOURNEY.machine]
    assert "Choose a run first" in says or "is not the name of a repo" in says
    assert machine == {}


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "", "\0", None, 3, {}, {"path": "/etc/passwd"}, {"path": ["x"]}, ["/"]]
)
def test_only_uploaded_files_are_read(lab, path):
    """Any other path in a handcrafted request is refused."""
    updates = walked(lab, VISITOR, key_of(lab), path)
    says, machine = updates[JOURNEY.says], updates[JOURNEY.machine]
    assert "Send a picture file." in says or "Choose a picture" in says
    assert machine == {}


def test_a_name_in_an_error_is_escaped(lab, picture):
    """A name that contains HTML is displayed as text."""
    says = walked(lab, VISITOR, "<img src=x onerror=alert(1)>", picture)[JOURNEY.says]
    assert "<img" not in says
    assert "&lt;img" in says


def test_only_the_latest_walk_of_a_page_is_shown(lab, picture):
    """An earlier walk ends without changing what the later one displays."""

    async def overtaken():
        walks, first = Walks(), []
        async for updates in walk_of(lab, key_of(lab), picture, walks):
            first.append(updates)
            walks.latest += 1  # another walk has begun
        return first

    first = anyio.run(overtaken)
    assert len(first) == 2
    assert first[-1] == gr.skip()


def test_the_mistakes_of_each_epoch(lab, picture, tiny, monkeypatch):
    """The accuracy within the classes is that of each epoch's network; a second walk does not compute them again."""
    monkeypatch.setattr(lab, "images", tiny)
    walks = Walks()

    async def collect():
        steps = walk_of(lab, key_of(lab), picture, walks)
        return [updates[JOURNEY.scores] async for updates in steps if JOURNEY.scores in updates]

    rows = anyio.run(collect)[-1]["value"]["data"]["scores"]
    folder = lab.runs.folder / key_of(lab)
    count = {tiny.class_names[label]: int((tiny.test.labels == label).sum()) for label in range(10)}
    for epoch in (0, 1, 2):
        right = sum(row["accuracy"] * count[row["class"]] for row in rows if row["epoch"] == epoch)
        expected = read_run(folder).history[epoch].test_accuracy
        assert right / len(tiny.test.labels) == pytest.approx(expected)
    monkeypatch.setattr(timeline, "walk_mistakes", lambda *_: iter(()))
    assert anyio.run(collect)[-1]["value"]["data"]["scores"] == rows


@pytest.mark.parametrize(("sentence", "last_epoch"), [("Classifying the picture", 1), ("some test pictures", 0)])
def test_stop_ends_a_walk(lab, picture, tiny, monkeypatch, sentence, last_epoch):
    """After the epoch in work, of the picture or of the test pictures; a new walk is complete."""
    monkeypatch.setattr(lab, "images", tiny)
    monkeypatch.setattr(walking, "_SECONDS_BETWEEN_UPDATES", 0.0)
    walks = Walks()

    async def collect(*, stops):
        found = []
        async for updates in walk_of(lab, key_of(lab), picture, walks):
            found.append(updates)
            if stops and f"{sentence}: epoch 0 of 2" in updates[JOURNEY.says]:
                assert updates[JOURNEY.stop]["visible"]
                stop(walks)
        return found

    *_, last = anyio.run(partial(collect, stops=True))
    assert f"Stopped at epoch {last_epoch} of 2" in last[JOURNEY.says]
    assert not last[JOURNEY.stop]["visible"]
    *_, last = anyio.run(partial(collect, stops=False))
    assert {row["epoch"] for row in last[JOURNEY.scores]["value"]["data"]["scores"]} == {0, 1, 2}
    assert "Stopped" not in last[JOURNEY.says]
    assert not last[JOURNEY.stop]["visible"]


def opened(lab, **inputs):
    """The updates of opening the view."""
    runs, chosen, gallery = gr.Dropdown(), gr.Image(), gr.Gallery()

    async def collect():
        given = {"visitor": VISITOR, "run": None, "picture": None, "walks": Walks(), **inputs}
        opening = view.open_view(lab, JOURNEY, runs, chosen, gallery, **given)
        return [updates async for updates in opening]

    return anyio.run(collect), runs, chosen


def test_opening_the_view_chooses_a_picture_or_walks(lab, images, picture, monkeypatch):
    """The first picture starts a walk by itself, so that there is one; another view opens nothing."""
    monkeypatch.setattr(lab, "images", images)
    names = [key_of(lab)]
    (updates,), runs, chosen = opened(lab, names=names, view=view.NAME)
    assert chosen in updates
    assert updates[runs]["value"] == names[0]
    updates, _, chosen = opened(lab, names=names, view=view.NAME, picture=picture)
    assert not any(chosen in each for each in updates)
    assert any(each.get(JOURNEY.machine, {}).get("frames") for each in updates)
    assert opened(lab, names=names, view="layers")[0] == [gr.skip()]


def test_a_run_that_is_listed_while_the_view_opens(lab, picture):
    """The view that opened without it does not take its place, though its lists took longer."""

    async def collect():
        walks, components = Walks(), (gr.Dropdown(), gr.Image(), gr.Gallery())
        given = {"visitor": VISITOR, "view": view.NAME, "run": None, "picture": picture, "walks": walks}
        early, late = (view.open_view(lab, JOURNEY, *components, names=names, **given) for names in ([], [key_of(lab)]))
        await anext(early)
        assert len([updates async for updates in late]) > 2
        return [updates async for updates in early]

    assert anyio.run(collect) == [gr.skip()]


def test_a_requested_picture_is_chosen_with_its_run(lab, images, monkeypatch):
    """Its file holds the picture with that index."""
    monkeypatch.setattr(lab, "images", images)
    runs, chosen, gallery = gr.Dropdown(), gr.Image(), gr.Gallery()
    key = key_of(lab)
    requested = Picture(run=key, index=5, token="one")
    updates = view.open_picture(lab, runs, chosen, gallery, visitor=VISITOR, names=[key], requested=requested)
    assert updates[runs]["value"] == key
    assert torch.equal(read_picture(updates[chosen]), images.test.images[5])


@pytest.mark.parametrize(("names", "sentence"), [([], "train a network first"), (["quick"], "as weights only")])
def test_without_a_run_a_sentence_says_so(lab, picture, names, sentence):
    """Also for a network that comes with the app."""
    (_, updates), _, _ = opened(lab, names=names, view=view.NAME, picture=picture)
    assert sentence in updates[JOURNEY.says]


def test_filters_of_zeros_are_grey_and_a_huge_weight_is_clipped():
    """Neither divides by zero."""
    assert set(frames.as_pictures(torch.zeros(4, 3, 5, 5)).flatten().tolist()) == {128}
    huge = torch.zeros(4, 3, 5, 5)
    huge[0, 0, 0, 0] = 1e30
    assert frames.as_pictures(huge)[0, 0, 0, 0] == 255
