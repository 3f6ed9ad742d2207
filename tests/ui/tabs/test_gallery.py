"""The gallery, without a browser: what its list says of a Hub of our own, who asks it, and what a press brings."""

import time
from html import unescape
from html.parser import HTMLParser

import anyio
import gradio as gr
import pytest
import torch
from fake_hub import Fault, Repo, point_to, silent_server

from trainer.hub import retry
from trainer.learning.race import race
from trainer.runs.reader import read_checkpoint, read_run
from ui.lab import Lab, new_visitor
from ui.limits import Limits
from ui.parts import run_list, run_view
from ui.tabs import gallery
from ui.tabs.gallery import Catalogue, add, load, show

ID = "owner/run"
VIEW, LISTS = run_view.build(), run_list.build()
HOSTILE = """---
tags: [optimizer-lab]
optimizer_lab:
  optimizer: "<img src=x onerror=alert(1)>"
  lr: "'><script>alert(2)</script>"
  scheduler: "\\" onmouseover=\\"alert(3)"
model-index: [{results: [{dataset: {name: "</li></ul><iframe>"}, metrics: [{type: accuracy, value: 0.999}]}]}]
---
"""


class Tags(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def values(self, tag, attribute):
        return [attributes[attribute] for name, attributes in self.tags if name == tag]


@pytest.fixture
def hub(hub_with_run):
    return hub_with_run


@pytest.fixture
def lab(tmp_path):
    made = Lab(checkpoints=tmp_path / "runs", device=torch.device("cpu"), race=race, find_lr=None)
    yield made
    while made.images is None and not made.failure:
        time.sleep(0.05)


async def said(catalogue=None, order="newest", seconds=30.0):
    """All that the list says, one after the other."""
    return [text async for text in show(catalogue or Catalogue(), order, seconds=seconds)]


def listed(page):
    return Tags(page).values("a", "href")


def test_the_list_tells_what_is_claimed(hub, small_run):
    """Name, page, claim, settings, and a button for each of the three things to do."""
    asking, page = anyio.run(said)
    assert "Loading the list from the Hub" in asking
    told = Tags(page)
    accuracy = read_run(small_run).history[-1].test_accuracy
    assert f"reported test accuracy {accuracy:.1%} on synthetic" in told.text
    assert "optimizer sgd · lr 0.02 · scheduler constant · epochs 1 · 2026-01-01" in told.text
    assert listed(page) == [f"{hub.endpoint}/{ID}"]
    assert told.values("button", "name") == ["select", "apply", "download"]
    assert told.values("button", "value") == [ID] * 3
    assert all(event in map(str, gr.HTML.EVENTS) for event in told.values("button", "name"))


def test_newest_or_best_first(hub, small_run):
    """By the time that the Hub knows, or by what is claimed."""
    for number, accuracy in enumerate((0.5, 0.9, 0.7)):
        card = f"---\ntags: [optimizer-lab]\nmodel-index: [{{results: [{{dataset: {{name: x}}, metrics: [{{type: accuracy, value: {accuracy}}}]}}]}}]\n---\n"  # fmt: skip # noqa: E501
        files = {**hub.repos[ID].files, "README.md": card.encode()}
        hub.repos[f"some/{number}"] = Repo(commits={f"{number}" * 40: files}, updated=f"2026-02-0{number + 1}")
    del hub.repos[ID]
    newest, best = (listed(anyio.run(said, None, order)[-1]) for order in ("newest", "best"))
    assert [url[-1] for url in newest] == ["2", "1", "0"]
    assert [url[-1] for url in best] == ["1", "2", "0"]


def test_a_hostile_card_is_text(hub):
    """Whatever it says, the list has no other tags and attributes than with a harmless one."""
    harmless = Tags(anyio.run(said)[-1]).tags
    hub.repos[ID].commits[hub.repos[ID].head] = {**hub.repos[ID].files, "README.md": HOSTILE.encode()}
    hub.repos["x/<b>"] = Repo(commits=dict(hub.repos[ID].commits))
    told = Tags(anyio.run(said)[-1])
    assert told.tags == harmless
    assert "<img src=x onerror=alert(1)>" in told.text
    assert "reported test accuracy 99.9% on </li></ul><iframe>" in told.text


def test_nothing_is_published(hub):
    """And that is said."""
    hub.repos.clear()
    assert "No checkpoint of this app has been published" in anyio.run(said)[-1]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"status": 500}, "The Hub has a problem (status 500)"),
        (
            {"status": 429, "headers": {"Retry-After": "40"}},
            "The Hub has received too many requests; try again in 40 seconds",
        ),
        ({"how": "lose"}, "The Hub cannot be reached"),
        ({"how": "cut"}, "The Hub cannot be reached"),
        ({"how": "garble"}, "The Hub's answer cannot be read"),
    ],
)
def test_a_failing_hub_is_told_at_once(hub, fault, sentence):
    """In one sentence, after one more try at most; a moment later it is asked again."""
    hub.faults.append(Fault(method="GET", path="/api/models", times=100, **fault))
    began = time.monotonic()
    assert sentence in unescape(anyio.run(said)[-1])
    assert time.monotonic() - began < 2
    assert len(hub.requests) <= 2
    hub.faults.clear()
    assert listed(anyio.run(said)[-1]) == [f"{hub.endpoint}/{ID}"]


def test_one_failure_is_nobodys_business(hub):
    """The Hub is asked once more before anything is said."""
    hub.faults.append(Fault(method="GET", path="/api/models", status=503))
    assert listed(anyio.run(said)[-1]) == [f"{hub.endpoint}/{ID}"]


def test_no_hub_at_all(monkeypatch):
    """Nobody listens there."""
    point_to("http://127.0.0.1:9", monkeypatch)
    began = time.monotonic()
    assert "The Hub cannot be reached" in anyio.run(said)[-1]
    assert time.monotonic() - began < 2


def test_a_slow_hub_is_told_and_waited_for(hub, monkeypatch):
    """First that it is asked, then that it is slow, then what it said."""
    monkeypatch.setattr(gallery, "_SECONDS_TO_SLOW", 0.2)
    hub.faults.append(Fault(method="GET", path="/api/models", how="hold", seconds=0.8))
    asking, slow, page = anyio.run(said)
    assert "Loading the list from the Hub" in asking
    assert "The Hub is slow" in slow
    assert listed(page) == [f"{hub.endpoint}/{ID}"]


def test_a_silent_hub_is_given_up(monkeypatch):
    """Nothing waits for ever."""
    monkeypatch.setattr(retry, "SHORT_TIMEOUT_SECONDS", 0.5)
    with silent_server() as endpoint:
        point_to(endpoint, monkeypatch)
        assert "The Hub has not answered for 0.5 seconds" in anyio.run(said)[-1]


def test_what_nobody_foresaw_is_not_the_answer_for_ever(hub, monkeypatch):
    """It is told, and a moment later the Hub is asked again."""
    monkeypatch.setattr(gallery, "_SECONDS_REFRESHED", 0.0)
    catalogue = Catalogue()

    async def visits():
        with monkeypatch.context() as broken:
            broken.setattr(gallery.repositories, "list_published", lambda best: 1 / 0)
            first = await said(catalogue)
        return first[-1], (await said(catalogue))[-1]

    failed, filled = anyio.run(visits)
    assert "went wrong" in failed
    assert listed(filled) == [f"{hub.endpoint}/{ID}"]


def test_a_class_asks_once(hub):
    """Thirty who open it together, and who come within the next seconds; whoever refreshes later asks again."""
    catalogue, pages = Catalogue(), []

    async def visit(seconds=30.0):
        pages.append((await said(catalogue, seconds=seconds))[-1])

    async def lesson():
        async with anyio.create_task_group() as students:
            for _ in range(30):
                students.start_soon(visit)
        await visit()
        assert len(hub.requests) == 1
        await visit(seconds=0.0)

    anyio.run(lesson)
    assert len(hub.requests) == 2
    assert len(pages) == 32
    assert len(set(pages)) == 1


def test_a_failure_is_not_kept_as_long_as_a_list(hub, monkeypatch):
    """Whoever opens the gallery after the Hub has come back finds it filled."""
    monkeypatch.setattr(gallery, "_SECONDS_REFRESHED", 0.1)
    hub.faults.append(Fault(method="GET", path="/api/models", times=2))
    catalogue = Catalogue()

    async def visits():
        first = await said(catalogue)
        await anyio.sleep(0.2)
        return first[-1], (await said(catalogue))[-1]

    failed, filled = anyio.run(visits)
    assert "The Hub has a problem" in failed
    assert listed(filled) == [f"{hub.endpoint}/{ID}"]


def test_a_curve_is_added_once(hub):
    """To what is compared already; the Hub is not asked again for the same."""
    assert anyio.run(add, None, ID) == [ID]
    asked = len(hub.requests)
    assert anyio.run(add, ["a" * 32, ID], ID) == ["a" * 32, ID]
    assert len(hub.requests) == asked
    with pytest.raises(ValueError, match="up to 12"):
        anyio.run(add, [f"{n:032x}" for n in range(12)], ID)
    with pytest.raises(ValueError, match="There is no owner/nothing"):
        anyio.run(add, [], "owner/nothing")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1}', b"{" * 10_000, b'{"format": 1, "history": [1e999]}'])
def test_a_strangers_history_is_checked(hub, content):
    """A sentence, and nothing to compare."""
    hub.repos[ID].commits[hub.repos[ID].head] = {**hub.repos[ID].files, "training.json": content}
    with pytest.raises(ValueError, match=r"training\.json"):
        anyio.run(add, [], ID)


def told_to(monkeypatch):
    """What a visitor is told meanwhile: outside of an event there is nobody to tell it to."""
    told = []
    monkeypatch.setattr(gr, "Info", told.append)
    return told


def test_a_published_run_becomes_ones_own(hub, lab, small_run, monkeypatch):
    """It is the visitor's alone, has all that a resume needs, and stands first in their lists."""
    told, visitor = told_to(monkeypatch), new_visitor()
    updates = anyio.run(load, lab, VIEW, LISTS, visitor, ID)
    (own,) = lab.runs_of(visitor)
    assert read_checkpoint(own).history == read_checkpoint(small_run).history
    assert (updates[LISTS.races]["value"], updates[LISTS.networks]["value"]) == (own.name, own.name)
    assert lab.runs_of(new_visitor()) == []
    assert told == [f"Loading {ID} …"]


def test_an_epoch_to_look_at_is_told_from_one_to_resume(hub, lab, monkeypatch):
    """Where the optimizer's state is not published."""
    told, files = told_to(monkeypatch), dict(hub.repos[ID].files)
    del files["training.safetensors"]
    hub.repos[ID] = Repo(commits={"1" * 40: files})
    anyio.run(load, lab, VIEW, LISTS, new_visitor(), ID)
    assert told[-1] == f"You can view {ID} and classify with it, but not resume it."


@pytest.mark.parametrize("lacks", ["model.safetensors", "config.json", "training.json"])
def test_what_cannot_be_loaded_leaves_nothing(hub, lab, monkeypatch, lacks):
    """A sentence, and no folder."""
    told_to(monkeypatch)
    files = {name: content for name, content in hub.repos[ID].files.items() if name != lacks}
    hub.repos[ID] = Repo(commits={"1" * 40: files})
    visitor = new_visitor()
    with pytest.raises(ValueError, match=r"^[^\n]+\.$"):
        anyio.run(load, lab, VIEW, LISTS, visitor, ID)
    assert lab.runs_of(visitor) == []
    assert list(lab.checkpoints.iterdir()) == []


def test_nobody_fills_the_disk(hub, lab, monkeypatch):
    """A visitor has room for as many runs as the app keeps for one."""
    told_to(monkeypatch)
    visitor = new_visitor()
    lab.limits = Limits(runs=2)
    for run in lab.new_race(visitor, 2):
        (run / "training.json").touch()
    with pytest.raises(ValueError, match="up to 2 runs"):
        anyio.run(load, lab, VIEW, LISTS, visitor, ID)
    assert hub.requests == []
