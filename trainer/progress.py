"""Work that may hang, done where the caller can give up on it."""

import queue
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, TypeVar

Report = Callable[[float, str], None]
"""Takes progress: a fraction 0..1, and what is being done."""

T = TypeVar("T")


def silent(fraction: float, doing: str) -> None:
    """A Report that shows no progress."""


def watch(work: Callable[[Report], T], progress: Report, patience: float) -> T:
    """Runs `work(report)` in a thread of its own and returns what it returns, or raises what it raises.

    Its reports are passed on to `progress` here, in the caller's thread, the last one again after each half second of
    silence. Raises TimeoutError as `watched` does.
    """
    latest = (0.0, "Starting")
    with closing(watched(work, patience)) as reports:
        while True:
            try:
                latest = next(reports) or latest
            except StopIteration as done:
                return done.value
            progress(*latest)


def watched(work: Callable[[Report], T], patience: float) -> Generator[tuple[float, str] | None, None, T]:
    """`watch` step by step: yields each report, and None after each half second of silence; returns the result.

    Raises TimeoutError after `patience` seconds of silence. No library's own timeout does that: looking up a name has
    none, and retries multiply the others. Once this generator is closed the thread, a daemon, ends at its next report
    or with the process.
    """
    messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    abandoned = threading.Event()

    def report(fraction: float, doing: str) -> None:
        if abandoned.is_set():
            raise SystemExit  # which no library takes for an error worth another try
        messages.put(("report", (fraction, doing)))

    def run() -> None:
        try:
            messages.put(("result", work(report)))
        except BaseException as error:
            messages.put(("error", error))

    threading.Thread(target=run, daemon=True, name="watched").start()
    last_heard = time.monotonic()
    try:
        while True:
            left = last_heard + patience - time.monotonic()
            if left <= 0:
                raise TimeoutError
            try:
                kind, value = messages.get(timeout=min(0.5, left))
            except queue.Empty:
                yield None
                continue
            if kind == "result":
                return value
            if kind == "error":
                raise value
            last_heard = time.monotonic()
            yield value
    finally:
        abandoned.set()
