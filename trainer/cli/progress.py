"""Progress on stderr: a bar that runs on or, where stderr is not a terminal, a line every few seconds."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from trainer.progress import Report, repeating

BAR_FORMAT = "{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}"

_SECONDS_BETWEEN_LINES = 4.0


@contextmanager
def progress_bar() -> Iterator[Report]:
    """Yields a Report that draws a progress bar, whose clock runs on; if stderr is not a terminal, it prints lines."""
    if not sys.stderr.isatty():
        line = ""

        def remember(fraction: float, doing: str) -> None:
            nonlocal line
            line = f"{doing}: {fraction:.0%}"

        with repeating(lambda: _print(line), _SECONDS_BETWEEN_LINES):
            yield remember
        return
    bar_format = "{desc} {percentage:3.0f}% |{bar}| {elapsed}"
    with tqdm(total=1.0, leave=False, bar_format=bar_format) as bar, repeating(bar.refresh, 1.0):

        def report(fraction: float, doing: str) -> None:
            bar.n = fraction
            bar.set_description_str(doing)

        yield report


@contextmanager
def saying(words: str) -> Iterator[None]:
    """Displays words until the block ends, with a dot for every two seconds, or prints lines if stderr is no terminal.

    A block that ends within seconds prints no line.
    """
    if not sys.stderr.isatty():
        with repeating(lambda: _print(f"{words} …"), _SECONDS_BETWEEN_LINES):
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


def _print(line: str) -> None:
    if line:
        print(line, file=sys.stderr, flush=True)
