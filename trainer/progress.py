"""Progress reports, and work that can be abandoned once it stops reporting."""

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from types import ModuleType
from typing import Any, Generic, TypeVar

Report = Callable[[float, str], None]
"""Receives progress: the fraction done, 0–1, and what is being done."""

THREAD_NAME = "work with a timeout"

T = TypeVar("T")
S = TypeVar("S")


class Steps(Generic[S, T]):
    """Iterates over a generator; `value` is what it returned, once it has ended."""

    value: T

    def __init__(self, generator: Generator[S, None, T]) -> None:
        self._generator = generator

    def __iter__(self) -> "Steps[S, T]":
        return self

    def __next__(self) -> S:
        try:
            return next(self._generator)
        except StopIteration as end:
            self.value = end.value
            raise


def ignore_progress(fraction: float, doing: str) -> None:
    """A `Report` that does nothing."""


@contextmanager
def repeating(action: Callable[[], None], seconds: float) -> Iterator[None]:
    """Calls `action` every `seconds`, in another thread, until the block ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            action()

    thread = threading.Thread(target=repeat, daemon=True, name="repeating")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


_quiet_lock = threading.Lock()
_num_quiet: Counter[str] = Counter()  # by library: the blocks that silence it now
_before: dict[str, tuple[int, bool]] = {}  # by library: its log level, and whether it had progress bars


@contextmanager
def quiet(library: ModuleType) -> Iterator[None]:
    """Silences the log and the progress bars of `huggingface_hub` or `datasets`; errors are still raised.

    Blocks in several threads may overlap: the library is silent until the last one ends.
    """
    name, logger = library.__name__, logging.getLogger(library.__name__)
    with _quiet_lock:
        if not _num_quiet[name]:
            _before[name] = logger.level, not library.utils.are_progress_bars_disabled()
            logger.setLevel(logging.CRITICAL)
            library.utils.disable_progress_bars()
        _num_quiet[name] += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _num_quiet[name] -= 1
            if not _num_quiet[name]:
                level, had_bars = _before[name]
                logger.setLevel(level)
                if had_bars:
                    library.utils.enable_progress_bars()


def run_with_timeout(work: Callable[[Report], T], progress: Report, timeout: float) -> T:
    """Calls `work(report)` in a thread; returns its result or raises its error.

    Calls `progress` in the caller's thread with each report, and with the last one again after each half second without
    a report. Raises TimeoutError after `timeout` seconds without a report.
    """
    latest = (0.0, "Starting")
    with closing(run_in_thread(work, timeout)) as thread:
        reports = Steps(thread)
        for report in reports:
            latest = report or latest
            progress(*latest)
        return reports.value


def run_in_thread(work: Callable[[Report], T], timeout: float) -> Generator[tuple[float, str] | None, None, T]:
    """Calls `work(report)` in a thread; yields its reports, and returns its result or raises its error.

    Yields None after each half second without a report. Raises TimeoutError after `timeout` seconds without a report.
    The timeouts of libraries cannot replace this: looking up a host name has none, and retries multiply the others.
    The thread is a daemon. Once this generator is closed, the thread ends at its next report, or with the process.
    """
    messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    abandoned = threading.Event()

    def report(fraction: float, doing: str) -> None:
        if abandoned.is_set():
            raise SystemExit  # no library catches it and retries
        messages.put(("report", (fraction, doing)))

    def run() -> None:
        try:
            messages.put(("result", work(report)))
        except BaseException as error:
            messages.put(("error", error))

    threading.Thread(target=run, daemon=True, name=THREAD_NAME).start()
    last_message = time.monotonic()
    try:
        while True:
            remaining = last_message + timeout - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            try:
                kind, value = messages.get(timeout=min(0.5, remaining))
            except queue.Empty:
                yield None
                continue
            if kind == "result":
                return value
            if kind == "error":
                raise value
            last_message = time.monotonic()
            yield value
    finally:
        abandoned.set()
