"""Schedule: several generators that take turns, so that a new one advances at once and a short one ends soon."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_LONGEST_LEAD = 3.0  # seconds that the running generator may be ahead of the least served one
_SECONDS_FOR_ALL = 6.0  # within which everyone has had a turn, if many have just begun
_SECONDS_OF_A_TURN = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What one generator yielded in its turn, and the seconds that it has had so far.

    `is_over` says that it has ended; `error` is the exception that ended it, if any.
    """

    key: int
    seconds: float
    events: list[Any] = field(default_factory=list)
    is_over: bool = False
    error: Exception | None = None


@dataclass(kw_only=True)
class _Task:
    events: Iterator[Any]
    seconds: float = 0.0


class Schedule:
    """Generators by key. The one that has had the least time goes next: least attained service.

    A generator that has just been added therefore runs at once, and a short one ends soon, however many long ones there
    are; the long ones share what is left. Schrage (1966), and Nuyens and Wierman, "The Foreground-Background queue: a
    survey" (2008), analyse the rule. Changing to another generator costs nothing, but a cache works better for one that
    goes on: it keeps running until it is a few seconds ahead of the least served one, less if there are many.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._tasks: dict[int, _Task] = {}
        self._last = -1

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, key: int, events: Iterator[Any], seconds: float = 0.0) -> None:
        """Adds a generator, which has the next turn unless it counts as having had `seconds` already."""
        self._tasks[key] = _Task(events=events, seconds=seconds)

    def remove(self, key: int) -> None:
        """Closes a generator between two of its events and forgets it; does nothing if it has ended."""
        if task := self._tasks.pop(key, None):
            task.events.close()  # type: ignore[attr-defined]

    def turn(self) -> Turn:
        """Runs the next generator for about a fifth of a second, at least until it yields."""
        key = self._next()
        task, events = self._tasks[key], []
        end: dict[str, Any] = {}
        started = self._clock()
        while not end and self._clock() - started < _SECONDS_OF_A_TURN:
            try:
                events.append(next(task.events))
            except StopIteration:
                end = {"is_over": True}
            except Exception as error:
                end = {"is_over": True, "error": error}
        task.seconds += self._clock() - started
        self._last = key
        if end:
            del self._tasks[key]
        return Turn(key=key, seconds=task.seconds, events=events, **end)

    def _next(self) -> int:
        least = min(self._tasks, key=lambda key: self._tasks[key].seconds)
        lead = min(_LONGEST_LEAD, _SECONDS_FOR_ALL / len(self._tasks))
        with suppress(KeyError):  # the last one has ended
            if self._tasks[self._last].seconds - self._tasks[least].seconds < lead:
                return self._last
        return least
