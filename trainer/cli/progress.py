"""Progress on stderr, if it is a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from trainer.progress import Report, repeating

BAR_FORMAT = "{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}"


@contextmanager
def progress_bar() -> Iterator[Report]:
    """Yields a Report that draws a progress bar, whose clock runs on, or does nothing if stderr is not a terminal."""
    bar_format = "{desc} {percentage:3.0f}% |{bar}| {elapsed}"
    with tqdm(total=1.0, disable=None, leave=False, bar_format=bar_format) as bar, repeating(bar.refresh, 1.0):

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
