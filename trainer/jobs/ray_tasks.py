"""What runs inside a Ray cluster: the task that a node runs, and Tasks, which starts tasks and collects their turns.

This module imports neither PyTorch nor what may differ in another version of the library. A node imports that in
`run_on_node`, once its version is known to be the right one; the head node does not need it at all.
"""

import hashlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trainer
from trainer.errors import Message, UserError, first_line
from trainer.jobs.schedule import Turn

_logger = logging.getLogger(__name__)

OTHER_VERSION = Message(
    "A node of the Ray cluster has another version of trainer or of PyTorch; install the same on all nodes."
)


def fingerprint() -> str:
    """Returns a digest of what decides the results of a training: the code of this library, and PyTorch's version."""
    folder = Path(trainer.__file__).parent
    digest = hashlib.sha256(version("torch").partition("+")[0].encode())  # +cpu and +cu130 are builds of one version
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run_on_node(work: bytes, images: list[Any], device: str, expected: str) -> Iterator[Turn]:
    """Yields the turns of pickled work, run on a node whose fingerprint must be the expected one.

    `images` holds the reference to the images in the object store.
    """
    if fingerprint() != expected:
        yield Turn(key=0, seconds=0.0, is_over=True, error=UserError(OTHER_VERSION))
        return
    with _interrupted_between_turns() as check:
        from trainer.jobs import ray_node

        check()
        for turn in ray_node.turns_of(work, images[0], device):
            yield turn
            check()


@contextmanager
def _interrupted_between_turns() -> Iterator[Callable[[], None]]:
    """Postpones the KeyboardInterrupt with which Ray cancels a task to the next call of the function returned.

    Anywhere else it could interrupt an import, and the half of PyTorch would stay in the process for the next task.
    """
    is_cancelled = threading.Event()
    previous = signal.signal(signal.SIGINT, lambda *_: is_cancelled.set())

    def check() -> None:
        if is_cancelled.is_set():
            raise KeyboardInterrupt

    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, previous)


class Tasks:
    """Starts tasks and collects their turns. Thread-safe.

    Ray Client, which connects to a running cluster from outside, has no streaming generators. There, this is an actor
    on the head node; otherwise it is an ordinary object.
    """

    def __init__(self, resources: Mapping[str, float], device: str, expected: str) -> None:
        import ray

        self._ray = ray
        # A sweep runs a lost task again from its last epoch; Ray would do so from the beginning.
        self._task = ray.remote(run_on_node).options(num_returns="streaming", max_retries=0, **resources)
        self._arguments = device, expected
        self._streams: dict[int, Any] = {}

    def start(self, key: int, work: bytes, images: list[Any]) -> None:
        """Starts a task for pickled work."""
        self._streams[key] = self._task.remote(work, images, *self._arguments)

    def stop(self, key: int) -> None:
        """Cancels a task, unless it has ended."""
        if stream := self._streams.pop(key, None):
            self._ray.cancel(stream)

    def turns(self, seconds: float) -> list[tuple[int, Turn | None]]:
        """Returns the turns that have ended since the last call, each with the key of its task; None for a lost task.

        Waits until all tasks have one, but not longer than `seconds`.
        """
        streams = dict(self._streams)
        if not streams:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(streams.values()), num_returns=len(streams), timeout=seconds)
        is_ready = set(map(id, ready))
        return [(key, turn) for key, stream in streams.items() if id(stream) in is_ready for turn in self._next(key)]

    def _next(self, key: int) -> Iterator[Turn | None]:
        """Yields the turns of a task that are here."""
        stream = self._streams.get(key)
        while stream and self._ray.wait([stream], timeout=0)[0]:
            turn = self._turn(stream)
            yield turn
            if turn is None or turn.is_over:
                self._streams.pop(key, None)
                return

    def _turn(self, stream: Any) -> Turn | None:
        try:
            return self._ray.get(next(stream))
        except self._ray.exceptions.RayTaskError as error:
            return Turn(key=0, seconds=0.0, is_over=True, error=cannot_run(error))
        except (StopIteration, self._ray.exceptions.RayError) as error:
            _logger.info("A task was lost or cancelled: %r", error)
            return None


def cannot_run(error: Any) -> UserError:
    """Returns the error for a node on which not even the code could be started, from Ray's error."""
    return UserError(
        "A node of the Ray cluster cannot run the training ({reason}); install the same packages on all nodes.",
        reason=first_line(error.cause),
    )
