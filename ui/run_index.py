"""RunIndex: the owners of all stored runs and sweeps, in memory: listing one visitor's reads no other folders."""

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeGuard

from trainer.runs import run_folder
from trainer.sweeps.folder import is_sweep

OWNER, RACE = ".owner", ".race"
_KEY = re.compile(r"[0-9a-f]{32}")

# Some file systems store modification times to two seconds only: a second change soon after a first one does not alter
# the time. The folder is therefore listed once more when its last change is this old.
_SECONDS_TO_SETTLE = 5.0


@dataclass(frozen=True, slots=True)
class OwnRun:
    """A visitor's run, or sweep: its folder, the key of its race, and its index within the race."""

    folder: Path
    race: str
    index: int


class RunIndex:
    """The owned runs in a folder, by the digests of their owners. Thread-safe.

    Other threads, other processes and people add and delete runs. The folder's modification time reveals a change; only
    then are its names listed, and only the new runs are read.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock = threading.Lock()
        self._owners: dict[str, str | None] = {}  # by run name; None for a run without an owner
        self._runs: dict[str, dict[str, OwnRun]] = {}  # by owner and run name
        self._modified: int | None = None  # the folder's modification time in ns at the last refresh
        self._refreshed_at = -1.0  # in seconds of `time.time`

    def refresh(self) -> None:
        """Updates the index. The first call reads the owner of every run; later ones only those of new runs."""
        with self._lock:
            self._refresh()

    def add(self, owner: str, run: OwnRun) -> None:
        """Adds a run that this process has just created."""
        with self._lock:
            self._remember(owner, run)

    def runs_of(self, owner: str) -> list[OwnRun]:
        """The owner's runs that exist and have started, the latest first."""
        return self._existing(owner, run_folder.is_run)

    def sweeps_of(self, owner: str) -> list[OwnRun]:
        """The owner's sweeps that exist, the latest first."""
        return self._existing(owner, is_sweep)

    def _existing(self, owner: str, is_there: Callable[[Path], bool]) -> list[OwnRun]:
        with self._lock:
            self._refresh()
            runs = list(self._runs.get(owner, {}).values())
        created = {run: _modified(run.folder / OWNER) for run in runs if is_there(run.folder)}
        dated = [(time, run) for run, time in created.items() if time is not None]
        return [run for _, run in sorted(dated, key=itemgetter(0), reverse=True)]

    def _refresh(self) -> None:
        now, modified = time.time(), _modified(self._folder)
        if modified == self._modified and (_is_settled(modified, self._refreshed_at) or not _is_settled(modified, now)):
            return
        try:
            names = set() if modified is None else {entry.name for entry in os.scandir(self._folder)}
        except OSError:  # the next refresh tries again
            return
        for name in self._owners.keys() - names:
            self._runs.get(self._owners.pop(name) or "", {}).pop(name, None)
        for name in filter(is_key, names - self._owners.keys()):
            self._read(self._folder / name, now)
        self._modified, self._refreshed_at = modified, now

    def _read(self, folder: Path, now: float) -> None:
        if owner := read(folder / OWNER):
            race, _, index = (read(folder / RACE) or "").partition(" ")
            is_valid = is_key(race) and index.isdecimal() and len(index) < 9
            self._remember(owner, OwnRun(folder, race, int(index)) if is_valid else OwnRun(folder, folder.name, 0))
        elif _is_settled(_modified(folder), now):  # else another process may be about to write its owner
            self._owners[folder.name] = None

    def _remember(self, owner: str, run: OwnRun) -> None:
        self._owners[run.folder.name] = owner
        self._runs.setdefault(owner, {})[run.folder.name] = run


def is_key(value: Any) -> TypeGuard[str]:
    """Whether an untrusted value has the form of a visitor's or a run's key: 32 hexadecimal digits."""
    return isinstance(value, str) and _KEY.fullmatch(value) is not None


def read(path: Path) -> str | None:
    """The text of a small file; None if it does not exist or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _modified(path: Path) -> int | None:
    """The modification time of a file or folder in nanoseconds; None if it does not exist."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _is_settled(modified: int | None, at: float) -> bool:
    """Whether a modification time, in ns, is so old at the time `at`, in s, that a later change would alter it."""
    return modified is None or at - modified / 1e9 > _SECONDS_TO_SETTLE
