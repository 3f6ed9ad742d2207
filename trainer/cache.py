"""The app's own files that can be made again: decoded pictures, the page's scripts, uploads."""

import logging
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from trainer.disk import move
from trainer.errors import first_line

_logger = logging.getLogger(__name__)


def cached(name: str) -> Path:
    """Returns the path of a file or folder in the folder optimizer-lab of HF_HOME; it may not exist."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME, "optimizer-lab", name)


def write_cached(name: str, write: Callable[[Path], object]) -> Path:
    """Calls `write` with the path at which it is to create a file, moves the file to its place, and returns its path.

    Its place is `cached(name)` or, if that cannot be written, a temporary folder that exists until the process ends.
    Raises OSError if neither can be written.
    """

    def write_in(folder: Path) -> Path:
        # A unique name: another process may be writing the same file.
        unfinished = folder / f".{name}.{uuid.uuid4().hex}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write(unfinished)
            move(unfinished, folder / name)
            return folder / name
        finally:
            with suppress(OSError):
                unfinished.unlink()

    return _in_home_or_temporary(write_in, cached(name).parent)


def writable_folder(name: str) -> Path:
    """Returns a folder that exists and can be written: `cached(name)` or, failing that, a temporary one.

    Raises OSError if neither can be written.
    """
    return _in_home_or_temporary(lambda parent: check_folder(parent / name), cached(name).parent)


def check_folder(folder: Path) -> Path:
    """Creates a folder if it does not exist, and returns it. Raises OSError if it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x")
    return folder


def _in_home_or_temporary(create_in: Callable[[Path], Path], home: Path) -> Path:
    try:
        return create_in(home)
    except OSError as error:
        created = create_in(Path(_temporary_folder().name))
        _warn_once(home, first_line(error))
        return created


@cache
def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="optimizer-lab-", ignore_cleanup_errors=True)


@cache
def _warn_once(home: Path, reason: str) -> None:
    _logger.warning("%s cannot be written (%s): its files are temporary, and made again at each start.", home, reason)
