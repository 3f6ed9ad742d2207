"""Paths that somebody has typed, or a stranger's file names: not all of them are such as a disk can have."""

import os
from pathlib import Path


def exists(path: Path) -> bool:
    """Whether there is such a file or folder: False for a name that is too long, too, or one with a NUL in it."""
    return os.path.exists(path)  # noqa: PTH110 - pathlib's own raises


def is_folder(path: Path) -> bool:
    """Whether there is such a folder, as `exists`."""
    return os.path.isdir(path)  # noqa: PTH112 - pathlib's own raises
