"""Moves files on systems that protect those that a program holds open."""

import time
from pathlib import Path

# The errors of Windows for a file that another program holds open, such as a virus scanner reading a new file.
_HELD_OPEN = (5, 32)
_MOST_TRIES, _SECONDS_BETWEEN_TRIES = 10, 0.1


def move(path: Path, target: Path) -> None:
    """Renames a file or a folder; a file replaces `target`. Where an open file forbids that, waits up to a second."""
    for number in range(1, _MOST_TRIES + 1):
        try:
            path.replace(target)
            return
        except OSError as error:
            if getattr(error, "winerror", None) not in _HELD_OPEN or number == _MOST_TRIES:
                raise
        time.sleep(_SECONDS_BETWEEN_TRIES)
