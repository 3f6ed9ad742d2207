"""Progress bars on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from trainer.progress import Report

BAR_FORMAT = "{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}"


@contextmanager
def progress_bar() -> Iterator[Report]:
    """A progress bar, if stderr is a terminal: call the report it yields with the fraction done and a description."""
    with tqdm(total=1.0, disable=None, leave=False, bar_format="{desc} {percentage:3.0f}% |{bar}|") as bar:

        def report(fraction: float, doing: str) -> None:
            bar.n = fraction
            bar.set_description_str(doing)

        yield report
