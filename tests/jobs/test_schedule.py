"""The schedule of the worker: the generator that has had the least time goes next."""

import itertools

import pytest

from trainer.jobs.schedule import Schedule


class Clock:
    """Seconds that pass only when a generator works."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds, step=0.1):
        """A generator that takes `seconds` and yields every `step` seconds."""
        for number in range(round(seconds / step)):
            self.now += step
            yield number


@pytest.fixture
def clock():
    return Clock()


def ends(schedule, clock):
    """The time at which each generator ended."""
    times = {}
    while len(schedule):
        turn = schedule.turn()
        if turn.is_over:
            times[turn.key] = clock.now
    return times


def test_one_generator_runs_to_its_end_in_order(clock):
    schedule = Schedule(clock)
    schedule.add(7, clock.work(2))
    turns = []
    while len(schedule):
        turns.append(schedule.turn())
    assert [event for turn in turns for event in turn.events] == list(range(20))
    assert [turn.is_over for turn in turns] == [False] * (len(turns) - 1) + [True]
    assert turns[-1].seconds == pytest.approx(2)


def test_a_new_generator_advances_at_once_and_ends_before_the_long_ones(clock):
    """Ten trainings of an hour delay a short one by one turn, not by their length."""
    schedule = Schedule(clock)
    for key in range(10):
        schedule.add(key, clock.work(3600, step=0.4))
    while clock.now < 600:
        schedule.turn()
    started = clock.now
    schedule.add(99, clock.work(30))
    assert schedule.turn().key == 99
    while (turn := schedule.turn()).key != 99 or not turn.is_over:
        pass
    assert clock.now - started <= 30.5


def test_all_that_begin_together_advance_within_seconds_and_end_together(clock):
    schedule = Schedule(clock)
    for key in range(30):
        schedule.add(key, clock.work(12, step=0.4))
    seen = set()
    while len(seen) < 30:
        seen.add(schedule.turn().key)
    assert clock.now <= 15
    assert min(ends(schedule, clock).values()) > 30 * 12 * 0.9


def test_a_few_take_long_turns(clock):
    """Two trainings alternate every few seconds, not at every event."""
    schedule = Schedule(clock)
    for key in range(2):
        schedule.add(key, clock.work(60))
    keys = []
    while len(schedule):
        keys.append(schedule.turn().key)
    assert sum(one != other for one, other in itertools.pairwise(keys)) <= 2 * 60 / 3 + 1


def test_an_error_ends_its_generator_only(clock):
    def broken():
        yield 1
        raise ValueError("no")

    schedule = Schedule(clock)
    schedule.add(1, broken())
    turn = schedule.turn()
    assert (turn.events, turn.is_over, str(turn.error)) == ([1], True, "no")
    schedule.add(2, clock.work(1))
    assert ends(schedule, clock) == {2: pytest.approx(1)}


def test_what_is_removed_is_closed(clock):
    closed = []

    def work():
        try:
            while True:
                clock.now += 0.3
                yield
        finally:
            closed.append(True)

    schedule = Schedule(clock)
    schedule.add(1, work())
    schedule.turn()
    schedule.remove(1)
    assert closed == [True]
    assert not len(schedule)
    schedule.remove(1)


def test_the_parts_of_a_job_count_as_one(clock):
    """A sweep's runs, each of which begins when the last one has ended, do not always go before a training."""
    schedule = Schedule(clock)
    schedule.add(0, clock.work(60))
    schedule.add(1, clock.work(3))
    had = 0.0
    while True:
        turn = schedule.turn()
        if turn.key == 1:
            had = turn.seconds
        if turn.is_over and turn.key == 0:
            break
        if turn.is_over:
            schedule.add(1, clock.work(3), had)
    assert clock.now == pytest.approx(2 * 60, abs=4)
    assert had == pytest.approx(clock.now - 60)
