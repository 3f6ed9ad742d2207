"""WorkerProcess: runs work in a worker process, and starts a new one if that dies."""

import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import torch

import trainer
from trainer.errors import Message, UserError
from trainer.jobs.schedule import Turn
from trainer.jobs.work import Work
from trainer.jobs.worker import READY, Command

_logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_CHECKS = 0.2  # whether the work is to stop
_SECONDS_TO_END = 2.0
_MOST_UNREAD = 50  # turns of one piece of work; each has the weights of the epochs that ended in it
_SECONDS_BETWEEN_LOOKS = 0.05


class WorkerLostError(UserError):
    """The worker process ended while it ran this work; another one may run it again."""


class NoWorkersError(UserError):
    """No worker can be reached any more, for this work or any other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """The seconds that the work has had so far, with its `served_before`; it comes after the events of each turn."""

    seconds: float


Turns = queue.SimpleQueue[Turn | UserError]
"""The turns of a piece of work in order, or the error that ends them."""


def events_of(turns: Turns, stopping: threading.Event) -> Iterator[Any]:
    """Yields the events of the turns, and a Served after each turn, until the last one or until `stopping` is set.

    Raises the error of a turn, or the one in its place.
    """
    while not stopping.is_set():
        with suppress(queue.Empty):
            turn = turns.get(timeout=_SECONDS_BETWEEN_CHECKS)
            if isinstance(turn, UserError):
                raise turn
            yield from turn.events
            yield Served(seconds=turn.seconds)
            if turn.error:
                raise turn.error
            if turn.is_over:
                return


@dataclass(kw_only=True, eq=False)
class _Task:
    """Work in the worker. `has_begun` says that the worker has reported a turn of it."""

    work: Work
    turns: Turns = field(default_factory=queue.SimpleQueue)
    has_begun: bool = False
    is_second_try: bool = False


class WorkerProcess:
    """A process that runs work on one device; all work in it takes turns (see `trainer.jobs.schedule`). Thread-safe.

    The process is started at once, so that its imports are done before the first work arrives. When it dies, its work
    ends with WorkerLostError, except for work that had not begun, which goes to the new process.
    """

    def __init__(self, device: torch.device, *, threads: int | None = None) -> None:
        self.device = device
        self._threads = threads  # of the process's computations; None: one for each core
        self._lock = threading.Lock()
        self._tasks: dict[int, _Task] = {}
        self._last_key = 0
        self._deaths = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False
        with self._lock:
            self._start()

    def __len__(self) -> int:
        """The number of pieces of work that the process holds."""
        return len(self._tasks)

    @property
    def deaths(self) -> int:
        """How often the process has died since it last ended some work."""
        return self._deaths

    @property
    def pid(self) -> int | None:
        """The id of the process; None if it could not be started."""
        process = self._process
        return process.pid if process else None

    def run(self, work: Work, stopping: threading.Event) -> Iterator[Any]:
        """Yields the events of the work, and a Served after each turn, until it ends or `stopping` is set.

        Raises UserError if the work is refused, WorkerLostError if the process dies.
        """
        key, task = self._submit(work)
        try:
            yield from events_of(task.turns, stopping)
        finally:
            self._forget(key)

    def close(self) -> None:
        """Ends the process and all work in it."""
        with self._lock:
            self._is_closed = True
            process = self._process
        if process:
            with suppress(OSError):
                cast("IO[bytes]", process.stdin).close()
            process.wait()

    def _submit(self, work: Work) -> tuple[int, _Task]:
        task = _Task(work=work)
        with self._lock:
            if self._process is None and not self._start_again():
                raise WorkerLostError(_NOT_STARTED)
            self._last_key += 1
            self._tasks[self._last_key] = task
            self._send(self._last_key, work)
            return self._last_key, task

    def _forget(self, key: int) -> None:
        with self._lock:
            if self._tasks.pop(key, None):
                self._send(key, None)

    def _send(self, key: int, work: Work | None) -> None:
        command: Command = (key, work)
        with suppress(OSError, ValueError):  # the process has died, which `_read` notices too
            stdin = cast("IO[bytes]", cast("subprocess.Popen[bytes]", self._process).stdin)
            pickle.dump(command, stdin)
            stdin.flush()

    def _start(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - no part of the command comes from outside
            [sys.executable, "-m", "trainer.jobs.worker", str(self.device)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(trainer.__file__).parents[1],  # where it finds the package
            env={**os.environ, "OMP_NUM_THREADS": str(self._threads)} if self._threads else None,
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _start_again(self) -> bool:
        try:
            self._start()
        except (OSError, RuntimeError):  # RuntimeError: no thread can be started
            _logger.exception("A worker process cannot be started.")
            return False
        return True

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        """Hands the turns of the process to their work until it ends; then starts another one."""
        is_ready = False
        try:
            stdout = cast("IO[bytes]", process.stdout)
            while True:
                message = pickle.load(stdout)  # noqa: S301 - from the process started here
                if message == READY:
                    is_ready = True
                elif task := self._tasks.get(message.key):
                    task.has_begun = True
                    self._wait_for_reader(message.key, task)
                    if message.is_over:
                        self._tasks.pop(message.key, None)
                        self._deaths = 0
                    task.turns.put(message)
        except EOFError:
            pass
        except Exception:
            _logger.exception("The worker process sent something that cannot be read.")
        code = _end(process)
        with self._lock:
            lost, self._tasks, self._process = self._tasks, {}, None
            if self._is_closed:
                return
            self._deaths += 1
            _logger.error("The worker process ended with exit code %d and %d pieces of work.", code, len(lost))
            # One that dies before it is ready would do so again; the next work tries it.
            if is_ready and self._start_again():
                for key, task in list(lost.items()):
                    if not task.has_begun and not task.is_second_try:
                        task.is_second_try = True
                        self._tasks[key] = lost.pop(key)
                        self._send(key, task.work)
        for task in lost.values():
            task.turns.put(WorkerLostError(_explain(code) if is_ready else _NOT_STARTED))

    def _wait_for_reader(self, key: int, task: _Task) -> None:
        """Waits until not too many turns of a task are unread.

        The pipe then fills and the process waits too: on a slow disk, epochs would otherwise gather in memory.
        """
        while task.turns.qsize() >= _MOST_UNREAD and self._tasks.get(key) is task:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


class Workers:
    """A WorkerProcess for each device; work goes to the one that holds the least.

    One that has died goes last until it has ended some work: it has none, and would otherwise attract all that follows.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._workers = [WorkerProcess(device) for device in devices]

    def run(self, work: Work, stopping: threading.Event) -> Iterator[Any]:
        """Yields the events of the work, as `WorkerProcess.run` does."""
        return min(self._workers, key=lambda worker: (worker.deaths, len(worker))).run(work, stopping)

    def close(self) -> None:
        """Ends all processes and the work in them."""
        for worker in self._workers:
            worker.close()


def _end(process: "subprocess.Popen[bytes]") -> int:
    """Returns the exit code of a process that has closed its stdout; kills it if it does not end by itself."""
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):  # what is still in its buffer cannot be written any more
            cast("IO[bytes]", stream).close()
    return process.wait()


_NOT_STARTED = Message("The process that trains could not be started; the app's log says why.")


def _explain(code: int) -> Message:
    """Returns a sentence on why a process ended with this exit code; a negative one is a signal's number."""
    if code == -getattr(signal, "SIGKILL", 9):
        return Message("The process that trains was ended by the system, probably because the memory ran out.")
    return Message("The process that trains ended unexpectedly (exit code {code}).", code=code)
