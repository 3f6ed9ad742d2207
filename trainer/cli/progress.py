"""Progress bars on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from trainer.progress import Report

BAR_FORMAT = "{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}"


@contextmanager
def progress_bar() -> Iterator[Report]:
    """Yields a Report that draws a progress bar, or does nothing if stderr is not a terminal."""
    with tqdm(total=1.0, disable=None, leave=False, bar_format="{desc} {percentage:3.0f}% |{bar}|") as bar:

        def report(fraction: float, doing: str) -> None:
            bar.n = fraction
            bar.set_description_str(doing)

        yield report
