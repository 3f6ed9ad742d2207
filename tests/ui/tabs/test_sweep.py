"""The Sweep tab without a browser: the plan and its link, what it costs, and what a page shows of a sweep."""

import asyncio
import math
import re
import threading
import time

import gradio as gr
import pytest
from labs import bare, make_lab, run_here

from trainer.errors import UserError
from trainer.jobs.pace import Pace
from trainer.jobs.process import Served
from trainer.runs.events import EpochEnded
from trainer.settings.lessons import LESSONS
from trainer.sweeps.axes import axis_text, grid, parse_axis
from trainer.sweeps.recorded import Recording
from ui.limits import Limits
from ui.tabs.sweep import live, panel, plan, results
from ui.tabs.sweep.live import RECORDED, Displayed, SweepPage
from ui.tabs.sweep.panel import PlanPanel
from ui.tabs.sweep.plan import RANGES, Plan, Range
from ui.visitors import new_visitor

SETTINGS = {"epochs": 2, "batch_size": 8, "scheduler": "constant"}
AXES = [parse_axis("optimizer=sgd,adam"), parse_axis("lr=0.01,0.1"), parse_axis("seed=0,1")]
PANEL, PAGE = bare(PlanPanel), bare(SweepPage)


def values_of(one):
    """The values of the widgets that show a plan."""
    updates = PANEL.show(one)
    shown = {name: updates[widget] for name, widget in PANEL.inputs.items()}
    return {name: value.get("value") if isinstance(value, dict) else value for name, value in shown.items()}


VALUES = values_of(Plan())


@pytest.fixture(autouse=True)
def _nothing_recorded(monkeypatch):
    monkeypatch.setattr(live, "recording", lambda: None)


def ended(job):
    assert job.ended.wait(60)
    return job


def text(updates, component=PAGE.status):
    """The text of HTML, without tags."""
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", updates[component])).strip()


def shown(lab, visitor, displayed=None):
    return live.show(lab, PAGE, visitor, displayed or Displayed())


def test_the_first_plan(lab):
    """Nine learning rates, three optimizers, two seeds."""
    assert panel.read_plan(**VALUES) == Plan()
    assert [axis_text(axis) for axis in Plan().axes()] == [
        "optimizer=sgd,adamw,muon", "lr=0.0001..1.0:9", "seed=0,1",
    ]  # fmt: skip
    assert len(grid(Plan().settings(lab.images), Plan().axes()).cells) == 54


PLANS = (
    Plan(),
    Plan(across=Range(name="batch_size", low=16, high=512, count=6), optimizers=("sam",), num_seeds=1),
    Plan(across=Range(name="lr", low=3e-3, high=0.5, count=15), down=RANGES["weight_decay"], epochs=20, num_images=0),
)


@pytest.mark.parametrize("one", PLANS)
def test_a_link_restores_the_plan(one):
    """Also in the widgets."""
    link = plan.write(one)
    assert (link == "") == (one == Plan())
    assert plan.read(link or "lr=1e-4..1:9") == one
    assert panel.read_plan(**values_of(one)) == one


@pytest.mark.parametrize(
    "link",
    [
        "x", "lr", "lr=", "lr=1", "lr=1..0:3", "lr=0..1:3", "lr=1e-4..1:99", "lr=1e-4..1:1", "lr=1e-4..1:x",
        "lr=a..b:3", "lr=1e-4..1:9&momentum=0.1..0.5:3&weight_decay=0.1..0.2:2",
        "optimizer=sgd", "lr=1e-4..1:9&optimizer=",
        "lr=1e-4..1:9&optimizer=sgd,sgd", "lr=1e-4..1:9&optimizer=lr", "lr=1e-4..1:9&seeds=0", "lr=1e-4..1:9&seeds=99",
        "lr=1e-4..1:9&seeds=%C2%B2", "lr=1e-4..1:9&epochs=21", "lr=1e-4..1:9&epochs=x", "eps=1e-9..1:3",
        "lr=1e-4..1:9&__class__=1", "lr=" + "9" * 9000, "lr=1e-4..nan:3", "lr=1e-4..inf:3", "lr=1e400..1e401:3",
    ],
)  # fmt: skip
def test_a_wrong_link_is_explained(link):
    """In one sentence, without a delay."""
    started = time.monotonic()
    with pytest.raises(UserError, match=r"^This link does not work here.*[.?]$"):
        plan.read(link)
    assert time.monotonic() - started < 0.5


def test_a_list_of_values_in_a_link_is_refused():
    """The command line takes one, but the page has no widgets for it."""
    with pytest.raises(UserError, match=r"over a range, such as lr=0\.0001\.\.1:9\.$"):
        plan.read("lr=0.1,0.2")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"optimizers": []}, "at least one optimizer"),
        ({"optimizers": None}, "at least one optimizer"),
        ({"across_low": None}, "range of lr is empty"),
        ({"across_low": 1, "across_high": 0.1}, "larger one"),
        ({"across_low": 0}, "above 0"),
        ({"across_low": -1}, "above 0"),
        ({"across_high": float("nan")}, "larger one"),
        ({"across_name": None}, "one or two settings"),
        ({"across_name": "__class__"}, "one or two settings"),
        ({"down_name": "lr", "down_low": 0.1, "down_high": 1, "down_count": 3}, "two different settings"),
        ({"num_images": None}, "num_images is empty"),
        ({"num_images": -1}, "num_images must be"),
        ({"epochs": 0}, "epochs must be"),
        ({"num_seeds": 0}, "from 1 to 5 seeds"),
        ({"across_name": "batch_size", "across_low": 1.5, "across_high": 9}, "batch_size must be"),
    ],
)
def test_a_wrong_plan_is_one_sentence(changed, words):
    with pytest.raises(UserError, match=words) as error:
        panel.read_plan(**{**VALUES, **changed}).axes()
    assert str(error.value).endswith(".")


def priced(lab, visitor=None, **changed):
    """The updates of the line on the plan's cost."""

    async def collect():
        return [
            updates async for updates in panel.price(lab, PANEL, visitor=visitor, turn=[0], **{**VALUES, **changed})
        ]

    return asyncio.run(collect())


SMALL = {
    "across_name": "batch_size", "across_low": 2, "across_high": 8, "across_count": 3, "num_images": 0, "num_seeds": 1,
}  # fmt: skip


def test_the_cost_is_known_before_anything_runs(lab):
    """The number of runs at once, the time once the optimizers have been measured, and the link."""

    def measured(work, stopping):
        works.append(work)
        yield Pace(batch_seconds=64.0, test_seconds=1.0)
        yield Served(seconds=1.0)

    works = []
    lab._run = measured
    first, last = priced(lab, **SMALL)
    assert text(first, PANEL.line) == "Plan: 9 runs · measuring how long they take …"
    # 37 pictures, of which 64 take 64 seconds, and the test, for two epochs of nine runs
    assert text(last, PANEL.line) == "Plan: 9 runs · about 11 min"
    assert last[PANEL.link] == "batch_size=2..8:3&optimizer=sgd,adamw,muon&seeds=1&epochs=2&num_images=0"
    assert [work.config.optimizer for work in works] == ["sgd", "adamw", "muon"]
    assert len(priced(lab, **SMALL)) == 1, "each is measured once"


def test_what_is_left_out_is_named_before_anything_runs(lab):
    """With the reason, counted."""
    lab.paces = {name: Pace(batch_seconds=1.0, test_seconds=1.0) for name in Plan().optimizers}
    line = text(priced(lab, **SMALL, down_name="momentum", down_low=0.5, down_high=0.9, down_count=2)[-1], PANEL.line)
    assert line.startswith("Plan: 12 runs · about")
    assert "6 left out: momentum is not a setting of the optimizer adamw" in line


def test_a_plan_that_cannot_be_is_explained_in_its_line(lab):
    """Beside Start, before it is pressed."""
    too_large = {**SMALL, "across_low": 64, "across_high": 512}
    assert "batch_size must not be above the 36" in text(priced(lab, **too_large)[-1], PANEL.line)
    lab.limits = Limits(cells=5)
    assert "make 9 runs; a sweep has up to 5" in text(priced(lab, **SMALL)[-1], PANEL.line)


def test_a_borrowed_gpu_is_priced_only_once_it_is_known(lab):
    """Measuring would cost the visitor's quota; the line says that its time is the visitor's."""
    lab.shares_machine = False
    lab._run = lambda work, stopping: iter(())
    assert "known once one run has been trained" in text(priced(lab, **SMALL)[-1], PANEL.line)
    lab.paces = {name: Pace(batch_seconds=1.0, test_seconds=1.0) for name in Plan().optimizers}
    assert "of your GPU time" in text(priced(lab, **SMALL)[-1], PANEL.line)


def test_a_page_without_a_sweep_says_what_to_do(lab):
    """There are no empty axes."""
    updates = shown(lab, new_visitor())
    assert text(updates).startswith("Ready. Press Start")
    assert updates[PAGE.results.body] == gr.update(visible=False)
    assert updates[PAGE.own_group] == gr.update(visible=False)


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """A lab with a finished sweep, for the tests that only look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ui.lab.load_images", lambda progress: pictures)
        made = make_lab(tmp_path_factory.mktemp("checkpoints"))
        while made.images is None:
            time.sleep(0.01)
    return made, ended(made.sweep(new_visitor(), SETTINGS, AXES))


def test_the_recorded_sweep_is_shown_until_there_is_one(finished, monkeypatch):
    """With the command that made it; a visitor can go back to it."""
    lab, job = finished
    recorded = Recording(axes=tuple(AXES), data={"name": "CIFAR-10"}, command="python <x>", runs=job.runs)
    monkeypatch.setattr(live, "recording", lambda: recorded)
    updates = shown(lab, new_visitor())
    sentence = "A recorded sweep of 8 runs on CIFAR-10: press Start to train your own. python &lt;x&gt;"
    assert text(updates).startswith(f"{sentence} {LESSONS['how-forgiving'].title}")
    assert len(updates[PAGE.results.chart]["data"]["points"]) == 4
    assert updates[PAGE.results.details] == gr.update(visible=True)
    assert text(shown(lab, job.owner)).startswith("Done")
    again = shown(lab, job.owner, Displayed(sweep=RECORDED))
    assert text(again).startswith("A recorded sweep")
    assert not again[PAGE.delete]["interactive"]


@pytest.mark.slow
def test_a_page_shows_a_sweep_from_its_start_to_its_end(lab):
    """And what it has been sent already, it is not sent again."""
    go_on, paused = threading.Event(), threading.Event()

    def pausing(work, stopping):
        for event in run_here(work, stopping):
            yield event
            if isinstance(event[1], EpochEnded) and event[1].epoch == 1 and len(begun) == 2:
                paused.set()
                assert go_on.wait(60)

    begun = []

    def counted(work, stopping):
        begun.append(work)
        return pausing(work, stopping)

    lab._run = counted
    visitor, displayed = new_visitor(), Displayed()
    running = lab.sweep(visitor, SETTINGS, AXES)
    assert paused.wait(60)
    while len(running.ended_runs) < 1:
        time.sleep(0.01)
    updates = shown(lab, visitor, displayed)
    assert text(updates).startswith("Training 1 of 8 runs")
    assert not updates[PAGE.start]["interactive"]
    assert updates[PAGE.stop]["interactive"]
    assert len(updates[PAGE.results.chart]["data"]["points"]) == 1
    assert len(updates[PAGE.results.chart]["data"]["running"]) == 1
    assert set(shown(lab, visitor, displayed)) <= {PAGE.status}
    go_on.set()
    ended(running)
    updates = shown(lab, visitor, displayed)
    assert text(updates).startswith("Done 8 of 8 runs")
    assert updates[PAGE.start]["interactive"]
    assert len(updates[PAGE.results.chart]["data"]["points"]) == 4
    assert text(updates, PAGE.results.table).count("±") == 4


def test_a_stopped_sweep_can_be_resumed(lab):
    """The page says how much is left, also after the app has started again."""
    visitor = new_visitor()
    count = iter(range(10**6))

    def stopping_soon(work, stopping):
        for event in run_here(work, stopping):
            yield event
            if next(count) == 20:
                lab.jobs.stop(visitor)

    lab._run = stopping_soon
    ended(lab.sweep(visitor, SETTINGS, AXES))
    updates = shown(lab, visitor)
    assert re.match(r"Stopped \d of 8 runs · Resume trains the others", text(updates))
    assert updates[PAGE.resume]["visible"]
    lab.jobs._ended.clear()
    again = shown(lab, visitor)
    assert text(again) == text(updates)
    assert again[PAGE.results.chart] == updates[PAGE.results.chart]
    assert again[PAGE.resume]["visible"]


def test_a_failure_is_shown_in_the_status(lab):
    """Of a sweep of which nothing was trained."""

    def refused(work, stopping):
        raise UserError("There is no memory for it.")
        yield

    lab._run = refused
    visitor = new_visitor()
    ended(lab.sweep(visitor, SETTINGS, AXES))
    assert text(shown(lab, visitor)) == "Not trained There is no memory for it."


def test_a_pressed_point_shows_its_runs(finished):
    """With their batches, read from the disk; without a press, those of the best settings."""
    lab, job = finished
    updates = shown(lab, job.owner, Displayed(picked="adam · lr 0.1"))
    assert updates[PAGE.results.picked]["value"] == "adam · lr 0.1"
    assert len(updates[PAGE.results.picked]["choices"]) == 4
    assert len(updates[PAGE.results.loss]["data"]["steps"]) == 2 * 2 * 5
    assert "optimizer adam · scheduler constant · lr 0.1" in updates[PAGE.results.settings]
    best_one = shown(lab, job.owner)[PAGE.results.picked]["value"]
    assert best_one in text(shown(lab, job.owner), PAGE.results.table)
    for nonsense in ("x", "adam"):
        assert shown(lab, job.owner, Displayed(picked=nonsense))[PAGE.results.picked]["value"] == best_one


@pytest.mark.parametrize("view", [results.LOSS, results.TIME, results.TUNING])
def test_every_view_has_its_chart(finished, view):
    """And the slider for the target is there where it counts."""
    lab, job = finished
    updates = shown(lab, job.owner, Displayed(view=view, target=0.1))
    assert updates[PAGE.results.chart]["data"]["points"]
    assert updates[PAGE.results.target] == gr.update(visible=view == results.TIME, value=10)


def test_the_first_target_is_one_that_was_reached(finished):
    """Without a choice of the visitor's it is 70% of the best accuracy, and some settings have a point."""
    lab, job = finished
    updates = shown(lab, job.owner, Displayed(view=results.TIME))
    best = max(run.history[-1].test_accuracy for run in job.runs.values())
    assert updates[PAGE.results.target]["value"] == max(10, math.floor(70 * best))
    assert updates[PAGE.results.chart]["data"]["points"]


def test_others_see_nothing_of_a_sweep(finished):
    """Neither by choosing its key nor otherwise."""
    lab, job = finished
    stranger = new_visitor()
    for key in (None, job.key):
        assert text(shown(lab, stranger, Displayed(sweep=key))).startswith("Ready.")
        assert live.shown_sweep(lab, stranger, Displayed(sweep=key)) is None
    assert live.shown_sweep(lab, None, Displayed()) is None


@pytest.mark.slow
def test_a_page_watches_its_sweep(lab):
    """The job counts as watched, and the changes arrive until it has ended."""
    visitor = new_visitor()
    job = lab.sweep(visitor, SETTINGS, AXES)
    job.watched_at = 0.0

    async def watch():
        async for updates in live.watch(lab, PAGE, visitor=visitor, displayed=Displayed()):
            if PAGE.status in updates and text(updates).startswith("Done"):
                return

    asyncio.run(asyncio.wait_for(watch(), 60))
    assert job.watched_at > 0


def test_a_page_without_a_key_is_left_as_it_is(lab):
    """It gets its key in a moment. Without any update, Gradio would empty the page's components."""

    async def collect(visitor):
        return [updates async for updates in live.watch(lab, PAGE, visitor=visitor, displayed=Displayed())]

    for visitor in (None, "", "x" * 32, [], 3):
        assert asyncio.run(collect(visitor)) == [gr.skip()]


def test_a_damaged_sweep_is_explained_and_can_be_deleted(lab):
    """The sentence names the run whose file cannot be read."""
    visitor = new_visitor()
    job = ended(lab.sweep(visitor, {**SETTINGS, "epochs": 1}, [parse_axis("lr=0.01,0.1")]))
    cell = job.cells[1]
    (job.sweep.folder_of(cell) / "training.json").write_text("{", encoding="utf-8")
    later = make_lab(lab.runs.folder)
    later.wait_for_images(threading.Event())
    updates = shown(later, visitor)
    assert text(updates).startswith(f"Damaged The run in runs/{cell.name} cannot be read: training.json is damaged")
    assert updates[PAGE.own]["value"] == job.key
    assert updates[PAGE.delete]["interactive"]
    assert not updates[PAGE.resume]["visible"]
    with pytest.raises(UserError, match=f"runs/{cell.name} cannot be read"):
        later.resume_sweep(visitor, job.key)
