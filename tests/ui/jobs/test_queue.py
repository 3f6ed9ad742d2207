"""The app's jobs: how many run, which wait, and what ends them."""

import contextvars
import threading
import time

import pytest

from trainer.errors import BROKEN, UserError
from ui.jobs.queue import LEFT, MOST_OWN, STOPPED, UNWATCHED, Job, Jobs

WHO = contextvars.ContextVar("WHO", default="nobody")


class Work(Job):
    """A job that works until it is stopped or `go_on` is set."""

    def __init__(self, owner="one", *, raises=None, seconds=0.0, left=None):
        super().__init__(owner=owner)
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.raises, self.left, self.given_up, self.who = raises, left, 0, ""
        self.seconds = seconds

    @property
    def seconds_left(self):
        return self.left

    def work(self):
        self.who = WHO.get()
        self.begun.set()
        while not (self.stopping.is_set() or self.go_on.wait(0.01)):
            pass
        if self.raises:
            raise self.raises

    def give_up(self):
        self.given_up += 1


@pytest.fixture
def jobs():
    """A function that creates Jobs, which end with the test."""
    made = []

    def make(most_running=1, most_waiting=3, is_public=False, **options):
        made.append(Jobs(most_running=most_running, most_waiting=most_waiting, is_public=is_public, **options))
        return made[-1]

    yield make
    for one in made:
        for job in reversed(one.active()):
            one.end(job)
            assert job.ended.wait(30)


def started(jobs, *works):
    for job in works:
        jobs.start(job)
    return works


def finish(job):
    job.go_on.set()
    assert job.ended.wait(30)


def test_jobs_run_side_by_side_and_the_others_wait_in_order(jobs):
    """Each that ends makes room for the next one."""
    queue = jobs(most_running=2)
    works = started(queue, *(Work(f"visitor {number}") for number in range(5)))
    assert [job.state for job in works] == ["running"] * 2 + ["waiting"] * 3
    assert [queue.num_before(job) for job in works[2:]] == [0, 1, 2]
    assert queue.active() == list(works)
    finish(works[1])
    assert [job.state for job in works] == ["running", "ended", "running", "waiting", "waiting"]
    assert works[2].begun.wait(30)
    assert not works[3].begun.is_set()
    assert queue.num_before(works[4]) == 1
    for job in (works[0], *works[2:]):
        finish(job)
    assert queue.active() == []


@pytest.mark.parametrize(("share_machine", "states"), [(True, ["running", "waiting"]), (False, ["running"] * 2)])
def test_a_race_counts_as_one_job_on_a_machine_of_its_own(jobs, monkeypatch, share_machine, states):
    """On a shared machine its networks count, because they share the memory."""
    monkeypatch.setattr(Work, "size", 3)
    works = started(jobs(most_running=4, share_machine=share_machine), Work("one"), Work("other"))
    assert [job.state for job in works] == states


def test_a_full_queue_refuses(jobs):
    """In a sentence; the jobs that run and wait are not affected."""
    queue = jobs(most_waiting=1)
    first, second = started(queue, Work("one"), Work("other"))
    with pytest.raises(UserError, match="Too many people are training here"):
        queue.start(Work("third"))
    assert queue.active() == [first, second]
    finish(first)
    started(queue, Work("third"))


def test_an_owner_has_a_limited_number_of_jobs(jobs):
    """Running and waiting ones count; one that has ended does not, and others are not affected."""
    queue = jobs(most_running=2, most_waiting=10)
    own = started(queue, *(Work("one") for _ in range(MOST_OWN)))
    with pytest.raises(UserError, match=f"{MOST_OWN} of your trainings are running or waiting"):
        queue.start(Work("one"))
    started(queue, Work("other"))
    finish(own[0])
    started(queue, Work("one"))


def test_the_latest_job_of_an_owner(jobs):
    """An active one before one that has ended; nobody sees another's."""
    queue = jobs()
    first, second = started(queue, Work("one"), Work("one"))
    assert queue.of("one", Work) is second
    finish(first)
    assert queue.of("one", Work) is second
    finish(second)
    assert queue.of("one", Work) is second
    assert queue.of("other", Work) is None


def test_stop_ends_the_jobs_of_one_owner(jobs):
    """A waiting job ends at once and gives up what it prepared; a running one ends soon. Those of others go on."""
    queue = jobs()
    runs, waits, other = started(queue, Work("one"), Work("one"), Work("other"))
    assert runs.begun.wait(30)
    queue.stop("one")
    assert waits.ended.is_set()
    assert (waits.failure, waits.given_up, waits.begun.is_set()) == (STOPPED, 1, False)
    assert runs.ended.wait(30)
    assert runs.failure == ""
    assert other.begun.wait(30)
    assert not other.stopping.is_set()


def test_a_waiting_job_leaves_if_its_page_is_away_for_a_minute(jobs):
    """Also on a private app; a running job and a watched one stay."""
    queue = jobs()
    runs, waits, watched = started(queue, Work("one"), Work("other"), Work("third"))
    now = time.monotonic()
    runs.watched_at = waits.watched_at = now - 61
    watched.watched_at = now - 59
    queue.end_unwatched(now)
    assert waits.ended.is_set()
    assert waits.failure == LEFT
    assert queue.active() == [runs, watched]
    assert not runs.stopping.is_set()


@pytest.mark.parametrize(
    ("is_public", "seconds", "num_others", "stops"),
    [(True, 601, 1, True), (True, 599, 1, False), (True, 1e5, 0, False), (False, 1e5, 1, False)],
)
def test_a_running_job_ends_if_nobody_watches_and_others_want_the_machine(jobs, is_public, seconds, num_others, stops):
    """Only on a public Space, after ten minutes, and with the reason."""
    queue = jobs(most_running=2, is_public=is_public)
    job, *_ = started(queue, *(Work(f"visitor {number}") for number in range(1 + num_others)))
    now = time.monotonic()
    job.watched_at = now - seconds
    queue.end_unwatched(now)
    assert job.stopping.is_set() is stops
    assert job.stopped_because == (UNWATCHED if stops else "")


def test_a_visitors_own_stop_keeps_no_reason(jobs):
    """The first reason stays: one given after it does not replace it."""
    (job,) = started(jobs(), Work())
    job.stop(UNWATCHED)
    job.stop(LEFT)
    assert job.stopped_because == UNWATCHED


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        ((0, None), [(5, 5)], None),  # its own need is not known
        ((0, 10), [], 10),
        ((0, 10), [(0, 100)], 20),  # the same time each
        ((0, 10), [(0, 3)], 13),  # the other one ends first
        ((4, 6), [(0, 100)], 16),  # the other one catches up first
        ((0, 10), [(7, 100)], 13),  # the other one has had most of its time
        ((0, 10), [(30, 100)], 10),  # and more than all of this one's
        ((0, 10), [(2, None)], 18),  # as if the other one needed a lot
        ((5, 5), [(0, 4), (20, 9), (9, None)], 5 + 4 + 0 + 1),
    ],
)
def test_the_seconds_until_a_job_ends(jobs, own, others, expected):
    """The machine goes to the job that has had the least time: (seconds had, seconds needed) of it and the others."""
    queue = jobs(most_running=9, most_waiting=0)
    job, *_ = started(
        queue, *(Work(f"{number}", seconds=had, left=left) for number, (had, left) in enumerate([own, *others]))
    )
    assert queue.seconds_left(job) == expected


def test_waiting_jobs_do_not_count_in_the_seconds_left(jobs):
    """They take no time yet."""
    queue = jobs()
    job, _ = started(queue, Work("one", left=10), Work("other", left=10))
    assert queue.seconds_left(job) == 10
    assert queue.num_others(job) == 0


@pytest.mark.parametrize(
    ("error", "sentence"), [(UserError("It does not fit."), "It does not fit."), (KeyError(), BROKEN)]
)
def test_a_job_that_fails_ends_with_a_sentence(jobs, error, sentence, caplog):
    """A bug is logged and gets a general sentence; the next job begins either way."""
    queue = jobs()
    fails, waits = started(queue, Work("one", raises=error), Work("other"))
    finish(fails)
    assert fails.failure == sentence
    assert ("A job failed." in caplog.text) == (sentence == BROKEN)
    assert waits.begun.wait(30)
    assert queue.of("one", Work) is fails


def test_a_job_has_the_context_of_its_request(jobs):
    """Also if it waits and another thread begins it: a borrowed GPU is charged to the visitor of the request."""
    queue = jobs()
    first, second = Work("one"), Work("other")
    for job, name in ((first, "first"), (second, "second")):
        token = WHO.set(name)
        started(queue, job)
        WHO.reset(token)
    finish(first)
    assert second.begun.wait(30)
    assert (first.who, second.who) == ("first", "second")


def test_a_change_of_state_is_displayed(jobs):
    """The version grows when a job begins and when it ends."""
    queue = jobs()
    first, second = started(queue, Work("one"), Work("other"))
    waiting = second.version
    finish(first)
    assert second.version > waiting
    running = second.version
    finish(second)
    assert second.version > running


def test_a_system_without_threads_loses_no_job(jobs, monkeypatch):
    """A job that cannot begin ends with a sentence, and so do those that wait for it; later ones begin."""
    queue = jobs()
    first, second, third = started(queue, *(Work(f"visitor {number}") for number in range(3)))
    assert first.begun.wait(30)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        finish(first)
        for job in (second, third):
            assert job.ended.wait(30)
            assert "no room" in job.failure
            assert job.given_up == 1
        with pytest.raises(UserError, match="no room"):
            queue.start(Work("late"))
    (later,) = started(queue, Work("later"))
    finish(later)


def test_a_job_that_had_no_turn_for_a_while_is_paused(jobs, monkeypatch):
    """Only if others have the machine meanwhile."""
    queue = jobs(most_running=2)
    (first,) = started(queue, Work("one"))
    first.served_at -= 60
    assert not queue.is_paused(first)
    started(queue, Work("other"))
    assert queue.is_paused(first)
    first.was_served(3.0)
    assert not queue.is_paused(first)
