"""What is opened by its name: networks kept here, bundled or published on the Hub, and published runs."""

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
from trainer.networks.files import WEIGHTS_FILE
from trainer.networks.model import OptimizerLabModel
from trainer.runs.run import Run
from ui.lab import Lab
from ui.login import own_token

_MOST_OPENED = 32  # networks kept in memory, those of the Hub and others, each of some MiB
_MOST_RUNS = 64
_LONGEST_SECONDS = 30.0
_SECONDS_ALIKE = 600.0

# Threads that may wait for the Hub are counted apart from Gradio's own: a slow Hub holds nobody else up.
_WAITING = CapacityLimiter(8)
# And so are those that only compute, which more of them at a time would not finish sooner.
_WORKING = CapacityLimiter(4)

T = TypeVar("T")


async def open_model(lab: Lab, name: Any) -> OptimizerLabModel:
    """The network of a run's key, of a bundled checkpoint's name or of `repo_id[@revision]`, on the lab's device.

    Whatever waits for the Hub waits aside, as of `aside`. Raises ValueError with one sentence.
    """
    if not isinstance(name, str) or "/" not in name:
        return await to_thread.run_sync(open_kept, lab, name)
    return await aside(open_published, name, lab.device)


def open_kept(lab: Lab, name: Any) -> OptimizerLabModel:
    """The network of a run's key or of a bundled checkpoint's name, read once as long as its file stays the same.

    Do not change it: others have the same one. Raises ValueError with one sentence.
    """
    folder = lab.checkpoint(name)
    try:
        file = (folder / WEIGHTS_FILE).stat()
    except OSError:
        return _read(folder, None, lab.device)  # which says what is missing
    return _read(folder, (file.st_ino, file.st_mtime_ns), lab.device)


@lru_cache(maxsize=_MOST_OPENED)
def _read(folder: Path, file: tuple[int, int] | None, device: torch.device) -> OptimizerLabModel:
    return OptimizerLabModel.from_pretrained(folder).to(device)


def open_published(name: str, device: torch.device) -> OptimizerLabModel:
    """The network of `repo_id[@revision]`, fetched and checked once; do not change it: others have the same one.

    The Hub is asked each time which commit that is, and whether it may be read. Raises ValueError with one sentence,
    within a second or so unless the Hub falls silent.
    """
    repo_id, revision = repositories.split_revision(name)
    with retry.short_timeouts():
        commit = repositories.find_commit(repo_id, revision, token=own_token())
        return _open(repo_id, commit, device)


@lru_cache(maxsize=_MOST_OPENED)
def _open(repo_id: str, commit: str, device: torch.device) -> OptimizerLabModel:
    return repositories.open_model(repo_id, commit, token=own_token()).to(device)


def open_run(name: str) -> Run:
    """The settings and curves of `repo_id[@revision]`, as claimed; do not change it: others have the same one.

    The Hub is asked anew after ten minutes at most. Raises ValueError with one sentence, as soon as `open_published`.
    """
    return _run(*repositories.split_revision(name), _reader(), time.monotonic() // _SECONDS_ALIKE)


@lru_cache(maxsize=_MOST_RUNS)
def _run(repo_id: str, revision: str | None, reader: str | None, period: float) -> Run:
    with retry.short_timeouts():
        run = repositories.open_run(repo_id, revision, token=own_token())
    if not run.history:
        raise UserError("{repo} tells of no epoch.", repo=repo_id)
    return run


async def aside(call: Callable[..., T], *arguments: Any, seconds: float | None = _LONGEST_SECONDS) -> T:
    """What `call` returns that waits for the Hub, made in one of a few threads that nothing else needs.

    Raises ValueError where it takes more than `seconds`, its turn included; the call then goes on until it ends.
    """
    try:
        with fail_after(seconds):
            return await to_thread.run_sync(call, *arguments, limiter=_WAITING, abandon_on_cancel=True)
    except TimeoutError:
        raise UserError("The Hub is too slow just now, or too many are asking it; try again later.") from None


async def at_once(call: Callable[..., T], *arguments: Any) -> T:
    """What `call` returns that waits for nobody, made in another thread: this one serves everybody's pages."""
    return await to_thread.run_sync(call, *arguments, limiter=_WORKING)


def _reader() -> str | None:
    """Tells apart who reads, and is no token: those are remembered nowhere."""
    token = own_token()
    return hashlib.sha256(token.encode()).hexdigest() if token else None
