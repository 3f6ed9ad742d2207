"""Opens networks by name (stored runs, bundled checkpoints, repos on the Hub), and published runs."""

import hashlib
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from anyio import CapacityLimiter, fail_after, to_thread

from trainer.errors import UserError
from trainer.hub import repositories, retry
from trainer.insight.timeline import Timeline
from trainer.networks.files import WEIGHTS_FILE
from trainer.networks.model import OptimizerLabModel
from trainer.runs.events import LayersMeasured
from trainer.runs.run import Run
from ui.lab import Lab
from ui.login import own_token

_MAX_OPENED = 32  # networks in memory from the Hub, and as many from folders; a few MiB each
_MAX_RUNS = 64
_MAX_SECONDS = 30.0
_SECONDS_KEPT = 600.0

# Threads that wait for the Hub have a limit of their own, so that a slow Hub delays nothing else.
_HUB_THREADS = CapacityLimiter(8)
# Few threads compute, as more would not finish sooner.
_THREADS = CapacityLimiter(4)

T = TypeVar("T")


async def open_model(lab: Lab, name: Any) -> OptimizerLabModel:
    """The network of a run's key, of a bundled checkpoint's name or of `repo_id[@revision]`, on the lab's device.

    Requests to the Hub run in `in_hub_thread`. Raises UserError if there is no such network.
    """
    if not isinstance(name, str) or "/" not in name:
        return await to_thread.run_sync(open_kept, lab, name)
    return await in_hub_thread(open_published, name, lab.device)


def open_kept(lab: Lab, name: Any) -> OptimizerLabModel:
    """The network of a run's key or of a bundled checkpoint's name; reloads it if its file has changed.

    The network is shared: do not change it. Raises UserError if it cannot be read.
    """
    folder = lab.runs.checkpoint(name)
    try:
        file = (folder / WEIGHTS_FILE).stat()
    except OSError:
        return _read(folder, None, lab.device)  # raises the error for what is missing
    return _read(folder, (file.st_ino, file.st_mtime_ns), lab.device)


@lru_cache(maxsize=_MAX_OPENED)
def _read(folder: Path, file: tuple[int, int] | None, device: torch.device) -> OptimizerLabModel:
    return OptimizerLabModel.from_pretrained(folder).to(device)


def open_published(name: str, device: torch.device) -> OptimizerLabModel:
    """The network of `repo_id[@revision]`, downloaded and checked once.

    The network is shared: do not change it. Each call looks up the commit on the Hub, which checks that the visitor may
    read it. Raises UserError, within about a second unless the Hub stops answering.
    """
    repo_id, revision = repositories.split_revision(name)
    with retry.short_timeouts():
        commit = repositories.find_commit(repo_id, revision, token=own_token())
        return _open(repo_id, commit, device)


@lru_cache(maxsize=_MAX_OPENED)
def _open(repo_id: str, commit: str, device: torch.device) -> OptimizerLabModel:
    return repositories.open_model(repo_id, commit, token=own_token()).to(device)


def open_run(name: str) -> Run:
    """The settings and curves of `repo_id[@revision]`, as its author reports them.

    The run is shared: do not change it. It is downloaded again after at most ten minutes. Raises UserError, as fast as
    `open_published`.
    """
    return _run(*repositories.split_revision(name), _reader_id(), time.monotonic() // _SECONDS_KEPT)


def open_layers(name: str) -> list[LayersMeasured]:
    """What was measured in the layers of `repo_id[@revision]`. Raises UserError, as fast as `open_published`."""
    repo_id, revision = repositories.split_revision(name)
    with retry.short_timeouts():
        return repositories.open_layers(repo_id, revision, token=own_token())


def open_timeline(name: str) -> Timeline:
    """The timeline of `repo_id[@revision]`, whose networks are downloaded when they are opened.

    Raises UserError if it has no epochs, or if the Hub does not answer.
    """

    def open_epoch(repo_id: str, revision: str, **_: Any) -> OptimizerLabModel:
        return open_published(f"{repo_id}@{revision}", torch.device("cpu"))

    repo_id, _ = repositories.split_revision(name)
    with retry.short_timeouts():
        return repositories.open_timeline(repo_id, token=own_token(), open_model=open_epoch)


@lru_cache(maxsize=_MAX_RUNS)
def _run(repo_id: str, revision: str | None, reader: str | None, period: float) -> Run:
    with retry.short_timeouts():
        run = repositories.open_run(repo_id, revision, token=own_token())
    if not run.history:
        raise UserError("{repo} contains no epochs.", repo=repo_id)
    return run


async def in_hub_thread(call: Callable[..., T], *arguments: Any, seconds: float | None = _MAX_SECONDS) -> T:
    """Calls `call` in one of a few threads for requests to the Hub; returns its result.

    Raises UserError after `seconds`, which include the wait for a thread; the call then continues to its end.
    """
    try:
        with fail_after(seconds):
            return await to_thread.run_sync(call, *arguments, limiter=_HUB_THREADS, abandon_on_cancel=True)
    except TimeoutError:
        raise UserError(
            "The Hub is too slow right now, or too many requests are waiting for it; try again later."
        ) from None


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Calls `call`, which computes, in another thread, because this one serves all pages; returns its result."""
    return await to_thread.run_sync(call, *arguments, limiter=_THREADS)


def _reader_id() -> str | None:
    """A digest of the visitor's token, or None without one; tokens themselves are not stored."""
    token = own_token()
    return hashlib.sha256(token.encode()).hexdigest() if token else None
