"""RunIndex: the owners of all stored runs, in memory: a list of one visitor's runs reads no other visitor's folder."""

import os
import re
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from trainer.runs import run_folder

OWNER, RACE = ".owner", ".race"
_KEY = re.compile(r"[0-9a-f]{32}")

# A folder's time of change may be as coarse as two seconds: what changes within them is known by a second look alone.
_SECONDS_TO_SETTLE = 5.0


class OwnRun(NamedTuple):
    """A visitor's run: its folder, and the key of its race and its place there."""

    folder: Path
    race: str
    place: int


class RunIndex:
    """The owned runs in a folder of runs, by the digests of their owners. May be used by several threads at a time.

    Runs come and go in other threads, in other processes and by hand. A change of the folder is known by its time,
    which is all that is looked at where nothing has changed; then its names are listed, and only new runs are read.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock = threading.Lock()
        self._owners: dict[str, str | None] = {}  # by the names of the runs; None of one that nobody owns
        self._runs: dict[str, dict[str, OwnRun]] = {}  # by owners and names
        self._changed: int | None = None  # the folder's time of change, in ns, at the last look
        self._looked = -1.0  # when that was, in seconds as `time.time`

    def refresh(self) -> None:
        """Looks for runs that came or went, so that the next look costs less: the first one reads every run's owner."""
        with self._lock:
            self._refresh()

    def add(self, owner: str, run: OwnRun) -> None:
        """Takes in a run that this process has just made."""
        with self._lock:
            self._remember(owner, run)

    def runs_of(self, owner: str) -> list[OwnRun]:
        """The owner's runs that are there now and have begun, the latest first."""
        with self._lock:
            self._refresh()
            runs = list(self._runs.get(owner, {}).values())
        made = {run: _changed(run.folder / OWNER) for run in runs if run_folder.is_run(run.folder)}
        there = [run for run, changed in made.items() if changed is not None]
        return sorted(there, key=made.__getitem__, reverse=True)

    def _refresh(self) -> None:
        now, changed = time.time(), _changed(self._folder)
        if changed == self._changed and (_is_settled(changed, self._looked) or not _is_settled(changed, now)):
            return
        try:
            names = set() if changed is None else {entry.name for entry in os.scandir(self._folder)}
        except OSError:  # the next look may find them
            return
        for name in self._owners.keys() - names:
            self._runs.get(self._owners.pop(name) or "", {}).pop(name, None)
        for name in filter(is_key, names - self._owners.keys()):
            self._read(self._folder / name, now)
        self._changed, self._looked = changed, now

    def _read(self, folder: Path, now: float) -> None:
        if owner := read(folder / OWNER):
            race, _, place = (read(folder / RACE) or "").partition(" ")
            is_whole = is_key(race) and place.isdecimal() and len(place) < 9
            self._remember(owner, OwnRun(folder, race, int(place)) if is_whole else OwnRun(folder, folder.name, 0))
        elif _is_settled(_changed(folder), now):  # else another process may be about to write its owner
            self._owners[folder.name] = None

    def _remember(self, owner: str, run: OwnRun) -> None:
        self._owners[run.folder.name] = owner
        self._runs.setdefault(owner, {})[run.folder.name] = run


def is_key(value: Any) -> bool:
    """Whether a value, which anyone may have sent, has the form of a visitor's or a run's key."""
    return isinstance(value, str) and _KEY.fullmatch(value) is not None


def read(path: Path) -> str | None:
    """The text of a small file; None where there is none, or it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _changed(path: Path) -> int | None:
    """When a file or folder was last changed, in nanoseconds; None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _is_settled(changed: int | None, at: float) -> bool:
    return changed is None or at - changed / 1e9 > _SECONDS_TO_SETTLE
