"""A class at once: every student trains a small run and classifies pictures, all through the real gradio_client.

The trainings take turns, and so wait longer the more there are; a picture is classified beside them. What goes wrong
for anybody is counted, and told.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from gradio_client import Client, handle_file
from torchvision.io import write_png

from benchmarks.app import running_app
from benchmarks.report import machine, options, percentile, report

_RUN = {"epochs": 1, "num_images": 512, "batch_size": 64, "scheduler": "constant"}


@dataclass
class _Measured:
    """Seconds of everything that anybody waited for, and what went wrong."""

    first_row: list[float] = field(default_factory=list)
    last_row: list[float] = field(default_factory=list)
    classified: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", metavar="SOURCE", default="synthetic", help="as for python -m trainer train")
    parser.add_argument("--students", type=int, default=30)
    parser.add_argument("--pictures", type=int, default=10, help="that each classifies while the trainings go on")
    parser.add_argument("--checkpoint", default="quick", help="what they classify with: one that comes with the app")
    asked = parser.parse_args()
    busy = _Measured()
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.png")
        write_png(torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), str(picture))
        with running_app(asked.data, Path(folder, "checkpoints")) as app:
            idle = _Measured()
            _classify(Client(app.url, verbose=False), picture, asked.checkpoint, 5 * asked.pictures, idle)
            begun = time.perf_counter()
            with ThreadPoolExecutor(2 * asked.students) as students:
                for _ in range(asked.students):
                    students.submit(_try, busy, lambda: _train(Client(app.url, verbose=False), busy))
                    students.submit(
                        _try,
                        busy,
                        lambda: _classify(
                            Client(app.url, verbose=False), picture, asked.checkpoint, asked.pictures, busy
                        ),
                    )
            spent = time.perf_counter() - begun
    for error in sorted(set(busy.errors)):
        print(f"{busy.errors.count(error)} × {error}")
    report(
        "classroom",
        {
            "classify alone, seconds": idle.classified,
            "classify while all train, seconds": busy.classified,
            "Train to the first row, seconds": busy.first_row,
            "Train to the last row, seconds": busy.last_row,
        },
        on=machine(),
        to=asked.json,
        students=asked.students,
        errors=len(busy.errors),
        seconds=spent,
        classify_p50=statistics.median(busy.classified),
        classify_p99=percentile(busy.classified, 0.99),
        classify_p99_alone=percentile(idle.classified, 0.99),
    )


def _train(client: Client, measured: _Measured) -> None:
    begun = time.perf_counter()
    job = client.submit(_RUN, api_name="/train")
    rows = iter(job)
    next(rows)
    measured.first_row.append(time.perf_counter() - begun)
    for row in rows:
        last = row
    if last.get("reason") != "completed":
        raise ValueError(f"a training ended with {last}")
    measured.last_row.append(time.perf_counter() - begun)


def _classify(client: Client, picture: Path, checkpoint: str, count: int, measured: _Measured) -> None:
    for _ in range(count):
        begun = time.perf_counter()
        client.predict(handle_file(picture), checkpoint, api_name="/classify")
        measured.classified.append(time.perf_counter() - begun)


def _try(measured: _Measured, work: Callable[[], None]) -> None:
    """A student's work; that it failed is what is measured, whatever it was."""
    try:
        work()
    except Exception as error:
        measured.errors.append(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
