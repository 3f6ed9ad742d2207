"""The gallery, without a browser: its list, its requests to a fake Hub, and the effects of its buttons."""

import time
from html import unescape
from html.parser import HTMLParser

import anyio
import gradio as gr
import pytest
from fake_hub import Fault, Repo, point_to, silent_server
from labs import make_lab

from trainer.hub import retry
from trainer.runs.reader import read_checkpoint, read_run
from ui.parts.run import run_list, run_view
from ui.tabs import gallery
from ui.tabs.gallery import Catalogue, add, load, show
from ui.visitors import new_visitor

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
    made = make_lab(tmp_path / "runs")
    yield made
    while made.images is None and not made.failure:
        time.sleep(0.05)


async def shown_texts(catalogue=None, order="newest", seconds=30.0):
    """Returns what the list displays, as HTML: each text that replaces the previous one, in order."""
    return [text async for text in show(catalogue or Catalogue(), order, seconds=seconds)]


def listed(page):
    """Returns the addresses of the listed checkpoints."""
    return Tags(page).values("a", "href")


@pytest.mark.quick
def test_an_entry_of_the_list(hub, small_run):
    """It has the name, the link, the reported accuracy, the settings and three buttons."""
    loading, page = anyio.run(shown_texts)
    assert "Loading the list from the Hub" in loading
    entry = Tags(page)
    accuracy = read_run(small_run).history[-1].test_accuracy
    assert f"reported test accuracy {accuracy:.1%} on synthetic" in entry.text
    assert "optimizer sgd · lr 0.02 · scheduler constant · epochs 1 · 2026-01-01" in entry.text
    assert listed(page) == [f"{hub.endpoint}/{ID}"]
    assert entry.values("button", "name") == ["select", "apply", "download"]
    assert entry.values("button", "value") == [ID] * 3
    assert all(event in map(str, gr.HTML.EVENTS) for event in entry.values("button", "name"))


def test_newest_or_best_first(hub, small_run):
    """By the time of the last change on the Hub, or by the reported accuracy."""
    for number, accuracy in enumerate((0.5, 0.9, 0.7)):
        card = f"---\ntags: [optimizer-lab]\nmodel-index: [{{results: [{{dataset: {{name: x}}, metrics: [{{type: accuracy, value: {accuracy}}}]}}]}}]\n---\n"  # fmt: skip # noqa: E501
        files = {**hub.repos[ID].files, "README.md": card.encode()}
        hub.repos[f"some/{number}"] = Repo(commits={f"{number}" * 40: files}, updated=f"2026-02-0{number + 1}")
    del hub.repos[ID]
    newest, best = (listed(anyio.run(shown_texts, None, order)[-1]) for order in ("newest", "best"))
    assert [url[-1] for url in newest] == ["2", "1", "0"]
    assert [url[-1] for url in best] == ["1", "2", "0"]


def test_a_hostile_card_is_text(hub):
    """It adds no tags and attributes to the list: they are those of a harmless card."""
    harmless = Tags(anyio.run(shown_texts)[-1]).tags
    hub.repos[ID].commits[hub.repos[ID].head] = {**hub.repos[ID].files, "README.md": HOSTILE.encode()}
    hub.repos["x/<b>"] = Repo(commits=dict(hub.repos[ID].commits))
    entry = Tags(anyio.run(shown_texts)[-1])
    assert entry.tags == harmless
    assert "<img src=x onerror=alert(1)>" in entry.text
    assert "reported test accuracy 99.9% on </li></ul><iframe>" in entry.text


def test_an_empty_list_is_explained(hub):
    """A sentence replaces the list if no run has been published."""
    hub.repos.clear()
    assert "No checkpoint of this app has been published" in anyio.run(shown_texts)[-1]


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
def test_a_failing_hub_is_reported_at_once(hub, fault, sentence):
    """After at most one retry; the next visit sends a new request."""
    hub.faults.append(Fault(method="GET", path="/api/models", times=100, **fault))
    start = time.monotonic()
    assert sentence in unescape(anyio.run(shown_texts)[-1])
    assert time.monotonic() - start < 2
    assert len(hub.requests) <= 2
    hub.faults.clear()
    assert listed(anyio.run(shown_texts)[-1]) == [f"{hub.endpoint}/{ID}"]


def test_a_single_failure_is_not_displayed(hub):
    """The request is retried once before an error is reported."""
    hub.faults.append(Fault(method="GET", path="/api/models", status=503))
    assert listed(anyio.run(shown_texts)[-1]) == [f"{hub.endpoint}/{ID}"]


def test_an_unreachable_hub_is_reported_at_once(monkeypatch):
    """No server listens on its port."""
    point_to("http://127.0.0.1:9", monkeypatch)
    start = time.monotonic()
    assert "The Hub cannot be reached" in anyio.run(shown_texts)[-1]
    assert time.monotonic() - start < 2


def test_a_slow_hub_is_reported_and_waited_for(hub, monkeypatch):
    """The page displays that it is loading, then that the Hub is slow, then the list."""
    monkeypatch.setattr(gallery, "_SECONDS_TO_SLOW", 0.2)
    hub.faults.append(Fault(method="GET", path="/api/models", how="hold", seconds=0.8))
    loading, slow, page = anyio.run(shown_texts)
    assert "Loading the list from the Hub" in loading
    assert "The Hub is slow" in slow
    assert listed(page) == [f"{hub.endpoint}/{ID}"]


def test_a_silent_hub_times_out(monkeypatch):
    """The list does not wait for ever."""
    monkeypatch.setattr(retry, "SHORT_TIMEOUT_SECONDS", 0.5)
    with silent_server() as endpoint:
        point_to(endpoint, monkeypatch)
        assert "The Hub has not answered for 0.5 seconds" in anyio.run(shown_texts)[-1]


def test_an_unexpected_error_is_not_cached_for_ever(hub, monkeypatch):
    """It is reported, and the next visit sends a new request."""
    monkeypatch.setattr(gallery, "_SECONDS_REFRESHED", 0.0)
    catalogue = Catalogue()

    async def visits():
        with monkeypatch.context() as broken:
            broken.setattr(gallery.repositories, "list_published", lambda best: 1 / 0)
            first = await shown_texts(catalogue)
        return first[-1], (await shown_texts(catalogue))[-1]

    failed, filled = anyio.run(visits)
    assert "went wrong" in failed
    assert listed(filled) == [f"{hub.endpoint}/{ID}"]


def test_visitors_at_the_same_time_share_one_request(hub):
    """Thirty pages opened together, and one opened seconds later; a later refresh sends a new request."""
    catalogue, pages = Catalogue(), []

    async def visit(seconds=30.0):
        pages.append((await shown_texts(catalogue, seconds=seconds))[-1])

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
    """A page opened shortly after the Hub has recovered displays the list."""
    monkeypatch.setattr(gallery, "_SECONDS_REFRESHED", 0.1)
    hub.faults.append(Fault(method="GET", path="/api/models", times=2))
    catalogue = Catalogue()

    async def visits():
        first = await shown_texts(catalogue)
        await anyio.sleep(0.2)
        return first[-1], (await shown_texts(catalogue))[-1]

    failed, filled = anyio.run(visits)
    assert "The Hub has a problem" in failed
    assert listed(filled) == [f"{hub.endpoint}/{ID}"]


def test_a_curve_is_added_once(hub):
    """To the runs that are compared already; adding it again sends no request."""
    assert anyio.run(add, None, ID) == [ID]
    num_requests = len(hub.requests)
    assert anyio.run(add, ["a" * 32, ID], ID) == ["a" * 32, ID]
    assert len(hub.requests) == num_requests
    with pytest.raises(ValueError, match="up to 12"):
        anyio.run(add, [f"{n:032x}" for n in range(12)], ID)
    with pytest.raises(ValueError, match="There is no owner/nothing"):
        anyio.run(add, [], "owner/nothing")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1}', b"{" * 10_000, b'{"format": 1, "history": [1e999]}'])
def test_a_strangers_history_is_checked(hub, content):
    """An error explains an invalid one, and no curve is added."""
    hub.repos[ID].commits[hub.repos[ID].head] = {**hub.repos[ID].files, "training.json": content}
    with pytest.raises(ValueError, match=r"training\.json"):
        anyio.run(add, [], ID)


def infos(monkeypatch):
    """Returns a list to which gr.Info adds its messages: outside of an event it cannot display them."""
    messages = []
    monkeypatch.setattr(gr, "Info", messages.append)
    return messages


@pytest.mark.quick
def test_a_published_run_is_loaded_into_the_visitors_own(hub, lab, small_run, monkeypatch):
    """Other visitors do not see it, it can be resumed, and it is chosen in the visitor's lists."""
    messages, visitor = infos(monkeypatch), new_visitor()
    updates = anyio.run(load, lab, VIEW, LISTS, visitor, ID)
    (own,) = lab.runs.of(visitor)
    assert read_checkpoint(own).history == read_checkpoint(small_run).history
    assert (updates[LISTS.races]["value"], updates[LISTS.networks]["value"]) == (own.name, own.name)
    assert lab.runs.of(new_visitor()) == []
    assert messages == [f"Loading {ID} …"]


def test_a_run_that_cannot_be_resumed_is_announced(hub, lab, monkeypatch):
    """If the optimizer's state is not published, the run can only be viewed and used to classify."""
    messages, files = infos(monkeypatch), dict(hub.repos[ID].files)
    del files["training.safetensors"]
    hub.repos[ID] = Repo(commits={"1" * 40: files})
    anyio.run(load, lab, VIEW, LISTS, new_visitor(), ID)
    assert messages[-1] == f"You can view {ID} and classify with it, but not resume it."


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "training.json"])
def test_a_run_that_cannot_be_loaded_leaves_no_folder(hub, lab, monkeypatch, missing):
    """Each of these files is required; the error is one sentence."""
    infos(monkeypatch)
    files = {name: content for name, content in hub.repos[ID].files.items() if name != missing}
    hub.repos[ID] = Repo(commits={"1" * 40: files})
    visitor = new_visitor()
    with pytest.raises(ValueError, match=r"^[^\n]+\.$"):
        anyio.run(load, lab, VIEW, LISTS, visitor, ID)
    assert lab.runs.of(visitor) == []
    assert list(lab.runs.folder.iterdir()) == []


def test_loaded_runs_count_towards_the_visitors_limit(hub, lab, monkeypatch):
    """A visitor with the largest allowed number of runs cannot load another; no request is sent."""
    infos(monkeypatch)
    visitor = new_visitor()
    lab.runs.most = 2
    for run in lab.runs.new_race(visitor, 2):
        (run / "training.json").touch()
    with pytest.raises(ValueError, match="up to 2 runs"):
        anyio.run(load, lab, VIEW, LISTS, visitor, ID)
    assert hub.requests == []
