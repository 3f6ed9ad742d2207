"""Progress on stderr: bars and words, if it is a terminal; otherwise a line every few seconds while others answer."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tqdm import tqdm

from trainer.progress import Report, repeating

_SECONDS_BETWEEN_LINES = 4.0


def bar_of(total: float, *, is_hidden: bool) -> Any:
    """Returns a bar of tqdm, with the time that is left, up to `total`; a hidden one draws nothing."""
    bar_format = "{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}"
    return tqdm(total=total, disable=True if is_hidden else None, leave=False, bar_format=bar_format, **_size())


@contextmanager
def progress_bar() -> Iterator[Report]:
    """Yields a Report that draws a progress bar, whose clock runs on; if stderr is not a terminal, it prints lines."""
    if not sys.stderr.isatty():
        line = "Starting …"

        def remember(fraction: float, doing: str) -> None:
            nonlocal line
            line = f"{doing}: {fraction:.0%}"

        with repeating(lambda: print(line, file=sys.stderr, flush=True), _SECONDS_BETWEEN_LINES):
            yield remember
        return
    bar_format = "{desc} {percentage:3.0f}% |{bar}| {elapsed}"
    with (
        tqdm(total=1.0, leave=False, bar_format=bar_format, **_size()) as bar,
        repeating(bar.refresh, 1.0),
    ):

        def report(fraction: float, doing: str) -> None:
            bar.n = fraction
            bar.set_description_str(doing)

        yield report


@contextmanager
def saying(words: str) -> Iterator[None]:
    """Displays words until the block ends, with a dot for every two seconds; nothing if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    written = [words]

    def write(more: str) -> None:
        written.append(more)
        print(more, end="", file=sys.stderr, flush=True)

    print(words, end="", file=sys.stderr, flush=True)
    with repeating(lambda: write("."), 2.0):
        yield
    print(f"\r{' ' * len(''.join(written))}\r", end="", file=sys.stderr, flush=True)


def _size() -> dict[str, int]:
    """Returns a size for a terminal that reports none, in which tqdm would draw nothing; {} lets tqdm find it out."""
    with suppress(OSError, ValueError):
        if os.get_terminal_size(sys.stderr.fileno()) == (0, 0):
            return {"ncols": 80, "nrows": 24}
    return {}
