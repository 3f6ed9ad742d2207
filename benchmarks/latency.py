"""Measures waiting times: for a usable page, for the first progress of a training, and to classify a large picture.

The page is usable once it names its pictures, which are loaded beforehand.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from gradio_client import Client, handle_file
from torchvision.io import write_jpeg

from benchmarks.app import new_page, running_app, visit
from benchmarks.report import machine, options, percentile, report, run

_HEIGHT, _WIDTH = 3000, 4000


def main() -> None:
    parser = options(__doc__, has_order=False)
    parser.add_argument("--rounds", type=int, default=5, help="starts of the app")
    parser.add_argument("--pictures", type=int, default=100, help="classifications of the picture")
    parser.add_argument("--checkpoint", default="quick", help="a network bundled with the app")
    args = parser.parse_args()
    listening, usable, moving = [], [], []
    with tempfile.TemporaryDirectory() as folder, new_page() as page:
        for _ in range(args.rounds):
            start = time.perf_counter()
            with running_app(args.data, Path(folder)) as app:
                listening.append(app.seconds)
                visit(page, app.url)
                usable.append(time.perf_counter() - start)
                pressed = time.perf_counter()
                page.click("#train")
                page.wait_for_function("parseFloat(document.querySelector('#status .fill')?.style.width) > 0")
                moving.append(time.perf_counter() - pressed)
                page.click("#stop")
                page.wait_for_selector("#status >> text=Stopped")
        with running_app(args.data, Path(folder)) as app:
            classified = _classified(app.url, args.checkpoint, args.pictures)
    report(
        "latency",
        {
            "python app.py to its first answer, seconds": listening,
            "python app.py to a usable page, seconds": usable,
            "Train to a moving bar, seconds": moving,
            "classify, seconds": classified,
        },
        on=machine(),
        to=args.json,
        classify_p50=statistics.median(classified),
        classify_p99=percentile(classified, 0.99),
        megapixels=_HEIGHT * _WIDTH / 1e6,
        checkpoint=args.checkpoint,
    )


def _classified(url: str, checkpoint: str, count: int) -> list[float]:
    """Returns the seconds of each call of /classify, its upload included, after a warm-up."""
    pixels = torch.randint(0, 256, (3, _HEIGHT // 20, _WIDTH // 20), generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.interpolate(pixels[None].float(), (_HEIGHT, _WIDTH), mode="bilinear")[0].byte()
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/picture.jpg"
        write_jpeg(picture, path, quality=90)
        client = Client(url, verbose=False)
        for _ in range(count + 1):
            start = time.perf_counter()
            client.predict(handle_file(path), checkpoint, api_name="/classify")
            seconds.append(time.perf_counter() - start)
    return seconds[1:]


if __name__ == "__main__":
    run(main)
