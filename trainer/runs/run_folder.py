"""A run's folder on disk, written so that a crash at any instant leaves the previous state or the new one.

A commit writes all files of the new state to `.staging` and renames it to `.committed`: from that instant on, the
new state is valid. Then the files move to their final locations. If the process dies in between, the next writer of the
folder finishes the move.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from trainer.disk import move
from trainer.errors import UserError
from trainer.networks.files import WEIGHTS_FILE, read_json
from trainer.runs import lock

HISTORY_FILE, TENSORS_FILE = "training.json", "training.safetensors"
MOST_EPOCHS = 60  # whose weights a run keeps, besides the untrained, the best and the last
LARGEST_HISTORY = 4 << 20  # bytes; a thousand epochs take a tenth of it

_LOCK_SECONDS = 1.0  # a reader that checks whether the run is in training holds the lock for an instant
_STAGING, _COMMITTED = ".staging", ".committed"
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_NOT_FOUND, _LONGEST_PATH = (2, 3, 206), 260  # errors of Windows, and its limit with the NUL at the end
_DISK_FAILURES = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


def check_name(name: str) -> str:
    """Returns the name of a run's folder; raises UserError if it is not valid on every system."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,95}", name) or name[-1] == ".":
        raise UserError(
            "A run's name has at most 96 letters, digits, '.', '_' and '-', and does not start or end with a dot."
        )
    if _RESERVED.match(name):
        raise UserError("Windows does not allow {name} as the name of a folder; choose another.", name=name)
    return name


def new_key() -> str:
    """Returns an unguessable name for a run: 128 random bits as 32 hexadecimal digits."""
    return secrets.token_hex(16)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Holds the lock of the run's only writer, and finishes a commit that another writer left unfinished.

    Creates a folder that does not exist, and removes it at the end if nothing was saved in it. Raises UserError if
    another process or thread is writing the run, or if the folder cannot be written.
    """
    is_new = not os.path.exists(folder)
    try:
        with _locked(folder):
            yield
    finally:
        if is_new:
            discard_unused(folder)


def discard_unused(folder: Path) -> None:
    """Removes the folder of a run if nothing was saved in it.

    Its dot files, except `.committed`, do not count as saved and are deleted with it.
    """
    with suppress(OSError):
        if all(path.name[0] == "." and path.name != _COMMITTED for path in folder.iterdir()):
            shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock.held(folder, _LOCK_SECONDS))
            _finish_commit(folder)
        except TimeoutError:
            raise UserError("This run is being trained in another tab or command; stop it there first.") from None
        except OSError as error:
            raise UserError("The run's folder cannot be written: {reason}.", reason=reason(error)) from None
        yield


def is_run(folder: Path) -> bool:
    """Returns whether the folder has a saved state of a run, at least its untrained network."""
    # In this order, because a writer moves the file from the first location to the second, perhaps between the checks.
    return os.path.exists(folder / _COMMITTED / HISTORY_FILE) or os.path.exists(folder / HISTORY_FILE)


def check_free(folder: Path, names: Iterable[str]) -> None:
    """Raises UserError if the folder has a run, or a file with one of these names."""
    if is_run(folder) or os.path.exists(folder / WEIGHTS_FILE):
        raise UserError("{folder} already contains a checkpoint; choose another folder.", folder=folder)
    for name in names:
        if os.path.exists(folder / name):
            raise UserError("{folder} already contains a file {name}; choose another folder.", name=name, folder=folder)


def read_history(folder: Path) -> dict[str, Any]:
    """Returns the content of training.json, also while a writer moves the file; checks only that it is a JSON object.

    Raises UserError if the file is missing, damaged or too large.
    """
    if not os.path.isdir(folder):
        raise UserError("There is no such run.")
    try:
        return read_json(folder / _COMMITTED / HISTORY_FILE, at_most=LARGEST_HISTORY)
    except UserError:
        # Missing, or moved to its final location since the reading began.
        if os.path.exists(folder / _COMMITTED / HISTORY_FILE):
            raise
        return read_json(folder / HISTORY_FILE, at_most=LARGEST_HISTORY)


def epoch_file(epoch: int) -> str:
    """Returns the path, in a run's folder, of the weights of an epoch."""
    return f"epochs/epoch-{epoch:04d}.safetensors"


def saved_epochs(folder: Path) -> dict[int, Path]:
    """Returns the file of each epoch whose weights are in the folder, by epoch, ascending."""
    paths = {path.stem.removeprefix("epoch-"): path for path in (folder / "epochs").glob("epoch-*.safetensors")}
    epochs = {int(digits): path for digits, path in paths.items() if re.fullmatch("[0-9]{4,9}", digits)}
    return dict(sorted(epochs.items()))


def thin_epochs(folder: Path, *, best: int, last: int) -> None:
    """Deletes weights, but those of the untrained network, of the best and last epoch and of MOST_EPOCHS others.

    Those are evenly spaced in the logarithm, because a network changes most in its first epochs. A file that the system
    does not let go, as Windows does while it is read, is left for the next time. The caller must hold the lock.
    """
    saved = saved_epochs(folder)
    others = [epoch for epoch in saved if epoch not in (0, best) and epoch < last]
    while len(others) > MOST_EPOCHS:
        # The epoch between the two that are closest to each other in the logarithm.
        bounds = zip(others, [*others[2:], last], strict=False)
        _, index = min((after / before, index) for index, (before, after) in enumerate(bounds, 1))
        with suppress(OSError):
            saved[others[index]].unlink()
        del others[index]


def create(folder: Path, files: Mapping[str, bytes]) -> None:
    """Creates a run's folder with these files, all or none.

    Raises UserError if it has a run or one of the files already, or if it cannot be written.
    """
    with writing(folder):
        check_free(folder, files)
        _commit(folder, files)


def add_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Adds files such as the card to a run's folder, or replaces them.

    Raises UserError if the run is in training, or if the folder cannot be written.
    """
    with writing(folder):
        _commit(folder, files)


def delete(folder: Path) -> None:
    """Deletes a run permanently. Raises UserError if it is in training, or if a file cannot be deleted."""
    with writing(folder):
        try:
            for path in folder.iterdir():
                if path.name not in lock.LOCK_FILES:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            raise UserError("The run cannot be deleted: {reason}.", reason=reason(error)) from None
    shutil.rmtree(folder, ignore_errors=True)


def _commit(folder: Path, files: Mapping[str, bytes]) -> None:
    """Does the same as `commit`, but raises UserError if the disk refuses."""
    try:
        commit(folder, files)
    except OSError as error:
        raise UserError("The folder cannot be written: {reason}.", reason=reason(error)) from None


def commit(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files, by their paths in the folder: all of them or none. The caller must hold the lock (see `writing`).

    Raises OSError if the disk refuses. The folder then has the previous state or, after the rename, the new one.
    """
    _finish_commit(folder)
    if not os.path.exists(folder / HISTORY_FILE):
        _sync_folder(folder.parent)  # the folder may be new itself
    staging = folder / _STAGING
    shutil.rmtree(staging, ignore_errors=True)
    # parents=True would bring back the folder of a deleted run, without its other files.
    staging.mkdir()
    try:
        for name, content in files.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for directory in sorted({staging, *((staging / name).parent for name in files)}, reverse=True):
            _sync_folder(directory)
        move(staging, folder / _COMMITTED)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _sync_folder(folder)
    _finish_commit(folder)


def _finish_commit(folder: Path) -> None:
    """Moves the files of `.committed`, if there are any, to their final locations."""
    committed = folder / _COMMITTED
    if not committed.is_dir():
        return
    changed = {folder}
    for path in sorted(committed.rglob("*")):
        if path.is_file():
            target = folder / path.relative_to(committed)
            target.parent.mkdir(exist_ok=True)
            move(path, target)
            changed.add(target.parent)
    for directory in sorted(changed, reverse=True):
        _sync_folder(directory)
    shutil.rmtree(committed)


def _sync_folder(folder: Path) -> None:
    """Flushes a folder's list of files to the disk, if the system can; fsync on the files does not."""
    if os.name == "nt":  # cannot open a folder
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Any other error means that this file system cannot sync a folder.
        if error.errno in _DISK_FAILURES:
            raise


def reason(error: Exception) -> str:
    """Returns the reason of a failed write as part of a sentence, without paths."""
    # Windows says of such a path only that it does not exist.
    if getattr(error, "winerror", None) in _NOT_FOUND and len(str(getattr(error, "filename", ""))) >= _LONGEST_PATH:
        return "the path is longer than the 260 characters that Windows allows"
    return (getattr(error, "strerror", None) or "the disk refused").lower()
