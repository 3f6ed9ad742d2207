"""The live view of an open page, without a browser: what it shows of the visitor's jobs, and when."""

import asyncio
import json
import re
import threading
import time
from contextlib import suppress

import pytest
from labs import live_view, make_lab, run_here

from trainer.errors import UserError
from trainer.runs import run_folder
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS
from ui.jobs.queue import UNWATCHED
from ui.parts.run import watching
from ui.parts.shared import Displayed
from ui.tabs.train import live, own_runs
from ui.visitors import new_visitor

CONFIG = TrainConfig(epochs=2, batch_size=8, scheduler="constant")
PAGE = live_view()


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(watching, "_SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(watching, "_SECONDS_BETWEEN_UPDATES", 0.01)


class Paused:
    """A worker that waits for `go_on` once it has reported a number of events."""

    def __init__(self, after):
        self.after, self.paused, self.go_on = after, threading.Event(), threading.Event()

    def __call__(self, work, stopping):
        for number, event in enumerate(run_here(work, stopping), 1):
            yield event
            if number == self.after:
                self.paused.set()
                while not (self.go_on.wait(0.01) or stopping.is_set()):
                    pass


@pytest.fixture
def paused(lab):
    """The lab's worker, which pauses within the first epoch."""
    lab._run = Paused(after=7)
    yield lab._run
    lab._run.go_on.set()


def finish(job):
    assert job.ended.wait(60)
    return job


def shown(lab, visitor, displayed=None):
    return live.show(lab, PAGE, visitor, displayed or Displayed())


def status(updates):
    """The status line as text, without tags."""
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", updates[PAGE.view.status])).strip()


def watched(lab, visitor, displayed=None, *, seconds, until=lambda updates: False):
    """What a page receives within a time, or until the first updates of a kind."""
    received = []

    async def watch():
        updates = live.watch(lab, PAGE, visitor=visitor, displayed=displayed or Displayed())
        async for one in updates:
            received.append(one)
            if until(one):
                break
        await updates.aclose()

    async def within():
        with suppress(TimeoutError):
            await asyncio.wait_for(watch(), seconds)

    asyncio.run(within())
    return received


def test_a_visitor_without_runs(lab):
    """The page shows the recorded race and its result, and is ready; there is nothing to stop."""
    updates = shown(lab, new_visitor())
    assert re.match("Same network.* Muon gets .*%.*, AdamW .*%, SGD .*%", status(updates))
    assert updates[PAGE.view.first]["visible"]
    assert {row["label"] for row in updates[PAGE.view.accuracy]["data"]["epochs"]} == {
        f"test accuracy · {name}" for name in ("Muon", "AdamW", "SGD")
    }
    assert updates[PAGE.buttons.train]["interactive"]
    assert not updates[PAGE.buttons.stop]["interactive"]
    assert status(shown(lab, None)) == status(updates)


def test_a_page_shows_a_training_from_its_start_to_its_end(lab):
    """Train cannot be pressed meanwhile, and Stop can; in the end it is the other way round."""
    visitor, displayed = new_visitor(), Displayed()
    lab._run = worker = Paused(after=7)
    job = lab.train(visitor, [CONFIG])
    assert worker.paused.wait(60)
    *_, running = watched(lab, visitor, displayed, seconds=60, until=lambda one: "Training" in status(one))
    assert not running[PAGE.buttons.train]["interactive"]
    assert not running[PAGE.buttons.resume]["interactive"]
    assert running[PAGE.buttons.stop]["interactive"]
    worker.go_on.set()
    received = watched(lab, visitor, displayed, seconds=60, until=lambda one: PAGE.ended in one)
    assert status(received[-1]).startswith("Done epoch 2 of 2")
    assert received[-1][PAGE.buttons.train]["interactive"]
    assert not received[-1][PAGE.buttons.stop]["interactive"]
    assert received[-1][PAGE.ended] == id(job)


@pytest.mark.slow
def test_nothing_is_sent_while_nothing_changes(lab, paused):
    """Neither without a job, nor while a training does not advance, nor after its end."""
    visitor, displayed = new_visitor(), Displayed()
    assert len(watched(lab, visitor, displayed, seconds=0.5)) == 1
    job = lab.train(visitor, [CONFIG])
    assert paused.paused.wait(60)
    assert len(watched(lab, visitor, displayed, seconds=0.5)) == 1
    job.changed()
    assert len(watched(lab, visitor, displayed, seconds=0.5)) == 1
    paused.go_on.set()
    finish(job)
    assert len(watched(lab, visitor, displayed, seconds=0.5)) == 1


def test_a_change_is_sent(lab, paused):
    """To every page of the visitor, and to no other."""
    visitor = new_visitor()
    job = lab.train(visitor, [CONFIG])
    assert paused.paused.wait(60)
    change = threading.Timer(0.3, job.changed)
    change.start()
    assert len(watched(lab, visitor, seconds=1.0)) == 2
    change = threading.Timer(0.3, job.changed)
    change.start()
    assert len(watched(lab, new_visitor(), seconds=1.0)) == 1


def test_a_page_that_is_opened_later_shows_the_whole_curve(lab, paused):
    """All batches so far, as the page that has watched from the start."""
    visitor = new_visitor()
    job = lab.train(visitor, [CONFIG])
    assert paused.paused.wait(60)
    first, later = shown(lab, visitor), shown(lab, visitor, Displayed())
    assert first[PAGE.view.loss] == later[PAGE.view.loss]
    assert len(later[PAGE.view.loss]["data"]["steps"]) == len(job.runs[0].curve.points) == 3
    assert status(later).startswith("Training epoch 1 of 2")


def test_watching_is_seen(lab, paused):
    """A job counts as watched while a page of its visitor is open."""
    visitor = new_visitor()
    job = lab.train(visitor, [CONFIG])
    assert paused.paused.wait(60)
    job.watched_at = 0.0
    watched(lab, new_visitor(), seconds=0.2)
    shown(lab, visitor)
    assert job.watched_at == 0.0
    watched(lab, visitor, seconds=0.2)
    assert time.monotonic() - job.watched_at < 30


def test_only_a_visitor_with_a_key_watches(lab):
    """A page gets one when it is opened; anything else in a request ends at once."""
    for visitor in (None, "", "x" * 32, [], 3):
        assert watched(lab, visitor, seconds=60) == []


def test_a_client_that_has_gone_is_not_watched_for(lab, monkeypatch):
    """The generator ends, so that nothing keeps an unwatched job."""
    left = iter([True, True, True])
    monkeypatch.setattr(watching, "listener", lambda most_unread: lambda: next(left, False))
    started = time.monotonic()
    assert len(watched(lab, new_visitor(), seconds=60)) == 1
    assert time.monotonic() - started < 30


def test_a_chosen_run_stays_displayed_while_another_trains(lab, paused):
    """Stop still stops the training; a page without a choice follows it."""
    visitor, displayed = new_visitor(), Displayed()
    paused.go_on.set()
    before = finish(lab.train(visitor, [CONFIG]))
    paused.go_on.clear()
    paused.paused.clear()
    lab.train(visitor, [CONFIG.changed({"epochs": 7})])
    assert paused.paused.wait(60)
    own_runs.show(lab, PAGE, visitor=visitor, displayed=displayed, race=before.race)
    updates = shown(lab, visitor, displayed)
    assert status(updates).startswith("Done epoch 2 of 2")
    assert updates[PAGE.buttons.stop]["interactive"]
    assert status(shown(lab, visitor)).startswith("Training epoch 1 of 7")


def test_a_chosen_lesson_takes_the_place_of_another_result(lab, paused):
    """Until it is trained, and again when it is left."""
    visitor, displayed = new_visitor(), Displayed()
    paused.go_on.set()
    finish(lab.train(visitor, [CONFIG]))
    lesson = LESSONS["one-epoch"]
    live.choose_lesson(displayed=displayed, lesson=lesson.name)
    updates = shown(lab, visitor, displayed)
    assert status(updates).startswith(f"{lesson.title} not trained yet")
    assert not updates[PAGE.view.first]["visible"]
    assert updates[PAGE.view.loss]["data"]["epochs"] == []
    assert updates[PAGE.view.loss]["data"]["printed"]
    live.choose_lesson(displayed=displayed, lesson="")
    assert status(shown(lab, visitor, displayed)).startswith("Done epoch 2 of 2")


@pytest.mark.parametrize("nonsense", [None, 3, [], {}, "no-lesson"])
def test_what_is_no_lesson_clears_nothing(lab, nonsense):
    """As a handcrafted request may send it."""
    displayed = Displayed(race="chosen")
    live.choose_lesson(displayed=displayed, lesson=nonsense)
    assert displayed == Displayed(race="chosen")


def test_the_result_of_a_lesson_stays_when_the_lesson_is_opened_again(lab, paused):
    """Also when its link is opened."""
    visitor = new_visitor()
    paused.go_on.set()
    job = finish(lab.train(visitor, [CONFIG]))
    lesson, file = LESSONS["softmax-plateau"], lab.runs.folder / job.race / run_folder.HISTORY_FILE
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, "config": lesson.config.settings()}), encoding="utf-8")
    assert status(shown(lab, visitor, Displayed(lesson=lesson.name))).startswith("Done epoch 2 of")
    assert status(shown(lab, visitor, Displayed(lesson="one-epoch"))).startswith("One epoch is not enough not trained")


def test_a_training_is_displayed_whatever_lesson_is_open(lab, paused):
    """As is a run that was chosen from the list since."""
    visitor = new_visitor()
    job = lab.train(visitor, [CONFIG])
    assert paused.paused.wait(60)
    assert status(shown(lab, visitor, Displayed(lesson="one-epoch"))).startswith("Training")
    paused.go_on.set()
    finish(job)
    chosen = Displayed(race=job.race, lesson="one-epoch")
    assert status(shown(lab, visitor, chosen)).startswith("Done epoch 2 of 2")


def test_a_failure_is_shown_once_to_a_page_that_is_opened_later(lab):
    """The page that has displayed the job keeps the sentence; the next visit starts afresh."""

    def refused(work, stopping):
        assert go_on.wait(60)
        raise UserError("There is no memory for it.")
        yield

    go_on, lab._run = threading.Event(), refused
    visitor, displayed = new_visitor(), Displayed()
    job = lab.train(visitor, [CONFIG])
    shown(lab, visitor, displayed)
    go_on.set()
    finish(job)
    for _ in range(2):
        assert status(shown(lab, visitor, displayed)) == "Not trained There is no memory for it."
    assert status(shown(lab, visitor, Displayed())).startswith("Same network")


def test_a_failure_that_no_page_has_seen_is_shown(lab):
    """To the first page that is opened afterwards."""

    def refused(work, stopping):
        raise UserError("There is no memory for it.")
        yield

    lab._run = refused
    visitor = new_visitor()
    finish(lab.train(visitor, [CONFIG]))
    displayed = Displayed()
    assert "no memory" in status(shown(lab, visitor, displayed))
    assert status(shown(lab, visitor, Displayed())).startswith("Same network")


def test_a_training_that_waits_says_why(lab, paused):
    """And how many are before it."""
    lab.jobs._most_running = 1
    visitor, other, third = new_visitor(), new_visitor(), new_visitor()
    for owner in (visitor, other, third):
        lab.train(owner, [CONFIG])
    words = "Not started yet the machine is full; {}"
    assert status(shown(lab, other)) == words.format("yours is next")
    updates = shown(lab, third)
    assert status(updates) == words.format("1 is ahead of yours")
    assert updates[PAGE.buttons.stop]["interactive"]
    lab.jobs.stop(third)
    assert status(shown(lab, third)).startswith("Not trained It was stopped before it started")


@pytest.mark.parametrize(
    ("num_others", "words"),
    [(0, None), (1, "you share this machine with 1 other"), (3, "you share this machine with 3 others")],
)
def test_a_training_that_shares_the_machine_says_so(lab, paused, num_others, words):
    """With how many others; a job that waits is none."""
    lab.jobs._most_running = 1 + num_others
    visitor = new_visitor()
    lab.train(visitor, [CONFIG])
    assert paused.paused.wait(60)
    for _ in range(num_others + 1):
        lab.train(new_visitor(), [CONFIG])
    said = status(shown(lab, visitor))
    assert ("share" in said) == bool(words)
    assert (words or "Training") in said


def test_others_that_come_and_go_are_shown(lab, paused):
    """Without a change of the visitor's own job."""
    visitor, displayed = new_visitor(), Displayed()
    lab.train(visitor, [CONFIG])
    assert paused.paused.wait(60)
    come = threading.Timer(0.3, lambda: lab.train(new_visitor(), [CONFIG]))
    come.start()
    received = watched(lab, visitor, displayed, seconds=60, until=lambda one: "share" in status(one))
    assert len(received) == 2


def test_a_run_that_was_stopped_because_nobody_watched_says_so(lab, paused):
    """And that it can be resumed."""
    visitor = new_visitor()
    job = lab.train(visitor, [CONFIG])
    assert paused.paused.wait(60)
    lab.jobs.end(job, UNWATCHED)
    finish(job)
    said = status(shown(lab, visitor))
    assert said.startswith("Stopped")
    assert str(UNWATCHED) in said
    assert "by you" not in said


def test_a_run_that_its_visitor_stopped_says_so(lab, paused):
    """Without any other reason."""
    visitor = new_visitor()
    job = lab.train(visitor, [CONFIG])
    assert paused.paused.wait(60)
    lab.jobs.stop(visitor)
    finish(job)
    said = status(shown(lab, visitor))
    assert said.startswith("Stopped")
    assert str(UNWATCHED) not in said


def test_a_training_that_waits_for_the_images_says_so(tmp_path, pictures, monkeypatch):
    """With the progress of loading them."""
    go_on = threading.Event()

    def load(progress):
        progress(0.25, "Downloading")
        assert go_on.wait(60)
        return pictures

    monkeypatch.setattr("ui.lab.load_images", load)
    lab, visitor = make_lab(tmp_path), new_visitor()
    job = lab.train(visitor, [CONFIG])
    assert status(shown(lab, visitor)) == "Starting loading the pictures"
    go_on.set()
    finish(job)
    assert status(shown(lab, visitor)).startswith("Done")


def test_the_lists_keep_their_choices_while_a_training_advances(lab, paused):
    """They are filled when the training starts, when epoch by epoch its title changes, and choose it once."""
    visitor, displayed = new_visitor(), Displayed()
    job = lab.train(visitor, [CONFIG])
    assert paused.paused.wait(60)
    first = shown(lab, visitor, displayed)
    assert first[PAGE.lists.races]["value"] == job.race
    assert PAGE.lists.races not in shown(lab, visitor, displayed)
    paused.go_on.set()
    finish(job)
    last = shown(lab, visitor, displayed)
    assert "value" not in last[PAGE.lists.races]
    assert "2 of 2 epochs" in last[PAGE.lists.races]["choices"][0][0]


def test_a_search_is_shown_beside_a_training(lab, monkeypatch):
    """Its trials, then the lr to use; a search that could not start says why."""
    monkeypatch.setattr("trainer.learning.lr_finder._NUM_IMAGES", 800)  # fewer steps
    visitor = new_visitor()
    lab._run = worker = Paused(after=3)
    search = lab.search(visitor, CONFIG)
    assert worker.paused.wait(60)
    updates = shown(lab, visitor)
    assert "Searching" in updates[PAGE.finder.status]
    assert updates[PAGE.buttons.train]["interactive"]
    assert updates[PAGE.buttons.stop]["interactive"]
    worker.go_on.set()
    finish(search)
    updates = shown(lab, visitor)
    assert search.finding.reason in updates[PAGE.finder.status].replace("&#x27;", "'")
    assert updates[PAGE.finder.suggestion] == search.finding.suggestion
    assert not updates[PAGE.buttons.stop]["interactive"]

    def refused(work, stopping):
        raise UserError("There is no memory for it.")
        yield

    lab._run = refused
    finish(lab.search(visitor, CONFIG))
    assert "no memory" in shown(lab, visitor)[PAGE.finder.status]
