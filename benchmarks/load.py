"""A crowd at the door: how the app does while many classify beside a training, open the page, or want to train too.

The clients are real ones of gradio_client, the pages are Chromium's, all on the machine that also runs the app. What
goes wrong for anybody is counted, and told.
"""

import asyncio
import math
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from gradio_client import Client, handle_file
from gradio_client.utils import QueueError
from playwright.async_api import Browser, async_playwright
from torchvision.io import write_png

from benchmarks.app import chromium, running_app
from benchmarks.report import machine, options, percentile, report, run

_LONG = {"epochs": 1000, "scheduler": "constant", "model": "quick"}
_SHORT = {"epochs": 1, "num_images": 512, "batch_size": 64, "scheduler": "constant"}
_SECONDS_ALONE, _SECONDS_TO_SETTLE = 20.0, 5.0
_IS_USABLE = "() => { const train = document.querySelector('#train'); return train && !train.disabled; }"


def main() -> None:
    parser = options(__doc__, data="synthetic", has_order=False)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=50, help="that each client classifies, twice")
    parser.add_argument("--rate", type=float, default=10.0, help="pictures a second in all, the second time")
    parser.add_argument("--pages", type=int, default=100, help="that are opened within a second")
    parser.add_argument("--queue", type=int, default=20, help="requests that may wait, of twice as many")
    parser.add_argument("--checkpoint", default="quick", help="what they classify with: one that comes with the app")
    asked = parser.parse_args()
    rows: dict[str, list[float]] = {}
    errors: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.png")
        write_png(torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), str(picture))
        with running_app(asked.data, Path(folder, "checkpoints")) as app:

            def classify(pace: float, clients: int = asked.clients) -> list[float]:
                return _classified(app.url, picture, asked.checkpoint, clients, asked.pictures, pace, errors)

            rows["classify, idle app, seconds"] = classify(math.inf, clients=1)
            with _training(app.url, errors) as steps:
                rows["classify as fast as they can, seconds"] = classify(math.inf)
                time.sleep(_SECONDS_TO_SETTLE)
                alone = [_speed(steps, lambda: time.sleep(_SECONDS_ALONE))[0]]
                paced, rows["classify at the rate, seconds"] = _speed(steps, lambda: classify(asked.rate))
                alone.append(_speed(steps, lambda: time.sleep(_SECONDS_ALONE))[0])
            rows["pages opened at once until usable, seconds"] = asyncio.run(_opened(app.url, asked.pages, errors))
        with running_app(asked.data, Path(folder, "others"), OPTIMIZER_LAB_MAX_QUEUE=str(asked.queue)) as app:
            refused, trained = _crowd(app.url, 2 * asked.queue, errors)
            rows |= {"refused by a full queue, seconds": refused, "trained in turn, seconds": trained}
    for error in sorted(set(errors)):
        print(f"{errors.count(error)} × {error}")
    p99 = {
        f"p99 of {name}": percentile(rows[name], 0.99) for name in rows if name.startswith("classify") and rows[name]
    }
    report(
        "load",
        {name: values or [math.inf] for name, values in rows.items()},
        on=machine(),
        to=asked.json,
        clients=asked.clients,
        pictures_per_second=asked.rate,
        training_at_the_rate_times_as_fast_as_alone=paced / max(statistics.mean(alone), 1e-9),
        errors=len(errors),
        **p99,
    )


def _client(url: str) -> Client:
    # It would load the certificates anew for every request, which takes it ten times as long as all else.
    return Client(url, verbose=False, ssl_verify=False)


@contextmanager
def _training(url: str, errors: list[str]) -> Iterator[list[int]]:
    """A training that goes on meanwhile; the list holds the number of its latest batch."""
    steps, is_wanted = [0], True
    job = _client(url).submit(_LONG, api_name="/train")

    def follow() -> None:
        try:
            for row in job:
                steps[0] = row.get("step", steps[0])
            job.result()  # a loop over a job ends without an error, whatever has ended the job
        except Exception as error:
            if is_wanted:
                errors.append(f"the training broke off: {type(error).__name__}: {error}")

    threading.Thread(target=follow, daemon=True).start()
    while not steps[0]:
        if job.done():
            job.result()
        time.sleep(0.1)
    yield steps
    is_wanted = False
    job.cancel()


def _speed(steps: list[int], meanwhile: Callable[[], list[float] | None]) -> tuple[float, list[float] | None]:
    """Batches a second that are trained while something is done, and what that gives."""
    begun, before = time.perf_counter(), steps[0]
    done = meanwhile()
    return (steps[0] - before) / (time.perf_counter() - begun), done


def _classified(
    url: str, picture: Path, checkpoint: str, num_clients: int, count: int, rate: float, errors: list[str]
) -> list[float]:
    """Seconds of every picture that each of the clients has classified, `rate` a second in all."""
    seconds: list[float] = []
    with ThreadPoolExecutor(num_clients) as threads:
        clients = list(threads.map(lambda _: _client(url), range(num_clients)))
        begun = time.perf_counter()

        def work(place: int) -> None:
            for turn in range(count):
                due = begun + (turn * num_clients + place) / rate
                time.sleep(max(0.0, due - time.perf_counter()))
                sent = time.perf_counter()
                try:
                    clients[place].predict(handle_file(picture), checkpoint, api_name="/classify")
                except Exception as error:
                    errors.append(f"{type(error).__name__}: {error}")
                else:
                    seconds.append(time.perf_counter() - sent)

        list(threads.map(work, range(num_clients)))
    return seconds


async def _opened(url: str, count: int, errors: list[str]) -> list[float]:
    """Seconds until each of the pages, all opened within a second, can be used."""

    async def open_one(browser: Browser, place: int) -> float:
        page = await browser.new_page()  # as another visitor: of one, a browser opens six connections at most
        await asyncio.sleep(place / count)
        begun = time.perf_counter()
        try:
            await page.goto(url, wait_until="commit", timeout=600_000)
            await page.wait_for_function(_IS_USABLE, polling=500, timeout=600_000)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
            return math.inf
        return time.perf_counter() - begun

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        async with browser:
            return await asyncio.gather(*(open_one(browser, place) for place in range(count)))


def _crowd(url: str, count: int, errors: list[str]) -> tuple[list[float], list[float]]:
    """Many want to train at once: seconds until a full queue has refused some, and until the others had their turn."""
    refused, trained = [], []

    def train(client: Client) -> None:
        begun = time.perf_counter()
        try:
            last = client.submit(_SHORT, api_name="/train").result()
        except QueueError:
            refused.append(time.perf_counter() - begun)
            return
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
            return
        if last.get("reason") == "completed":
            trained.append(time.perf_counter() - begun)
        else:
            errors.append(f"a training ended with {last}")

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(train, list(threads.map(lambda _: _client(url), range(count)))))
    if not refused or not trained:
        errors.append(f"{len(refused)} refused, {len(trained)} trained")
    return refused or [math.inf], trained or [math.inf]


if __name__ == "__main__":
    run(main)
