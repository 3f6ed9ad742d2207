"""Measures the app under load: many clients classify during a training, open the page, or train at the same time.

The clients are gradio_client's, the pages are Chromium's, and all run on the same machine as the app. Errors are
counted and printed.
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
from gradio_client.exceptions import AppError
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
    parser.add_argument("--pictures", type=int, default=50, help="pictures for each client, in both measurements")
    parser.add_argument("--rate", type=float, default=10.0, help="total pictures a second, in the second measurement")
    parser.add_argument("--pages", type=int, default=100, help="pages opened within a second")
    parser.add_argument("--queue", type=int, default=20, help="limit of the queue; twice as many requests are sent")
    parser.add_argument("--checkpoint", default="quick", help="the network that classifies, bundled with the app")
    args = parser.parse_args()
    rows: dict[str, list[float]] = {}
    errors: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.png")
        write_png(torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), str(picture))
        with running_app(args.data, Path(folder, "checkpoints")) as app:

            def classify(pace: float, clients: int = args.clients, pictures: int = args.pictures) -> list[float]:
                return _classified(app.url, picture, args.checkpoint, clients, pictures, pace, errors)

            rows["the first picture, seconds"] = classify(math.inf, clients=1, pictures=1)
            rows["classify, idle app, seconds"] = classify(math.inf, clients=1)
            rows["classify at the rate, idle app, seconds"] = classify(args.rate)
            with training(app.url, errors) as steps:
                rows["classify as fast as they can, seconds"] = classify(math.inf)
                time.sleep(_SECONDS_TO_SETTLE)
                alone = [_speed(steps, lambda: time.sleep(_SECONDS_ALONE))[0]]
                paced, rows["classify at the rate, seconds"] = _speed(steps, lambda: classify(args.rate))
                alone.append(_speed(steps, lambda: time.sleep(_SECONDS_ALONE))[0])
                memory = app.memory_mib()
            rows["pages opened at once until usable, seconds"] = asyncio.run(_opened(app.url, args.pages, errors))
        with running_app(
            args.data, Path(folder, "others"), OPTIMIZER_LAB_MAX_AT_ONCE="1", OPTIMIZER_LAB_MAX_QUEUE=str(args.queue)
        ) as app:
            refused, trained = _crowd(app.url, 2 * args.queue, errors)
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
        to=args.json,
        clients=args.clients,
        pictures_per_second=args.rate,
        memory_of_app_and_worker_mib=memory,
        training_at_the_rate_times_as_fast_as_alone=paced / max(statistics.mean(alone), 1e-9),
        errors=len(errors),
        **p99,
    )


def _client(url: str) -> Client:
    # With verification it would load the certificates for every request, which takes ten times as long as the rest.
    return Client(url, verbose=False, ssl_verify=False)


@contextmanager
def training(url: str, errors: list[str]) -> Iterator[list[int]]:
    """Trains in the background; yields a list with the number of the latest batch."""
    steps, is_wanted = [0], True
    job = _client(url).submit(_LONG, api_name="/train")

    def follow() -> None:
        try:
            for row in job:
                steps[0] = row.get("step", steps[0])
            job.result()  # iterating over a job does not raise its error
        except Exception as error:
            if is_wanted:
                errors.append(f"the training failed: {type(error).__name__}: {error}")

    threading.Thread(target=follow, daemon=True).start()
    while not steps[0]:
        if job.done():
            job.result()
        time.sleep(0.1)
    yield steps
    is_wanted = False
    job.cancel()


def _speed(steps: list[int], call: Callable[[], list[float] | None]) -> tuple[float, list[float] | None]:
    """Returns the batches a second that are trained during a call, and the call's result."""
    start, before = time.perf_counter(), steps[0]
    result = call()
    return (steps[0] - before) / (time.perf_counter() - start), result


def _classified(
    url: str, picture: Path, checkpoint: str, num_clients: int, count: int, rate: float, errors: list[str]
) -> list[float]:
    """Returns the seconds of each classification by all clients, which together send `rate` pictures a second."""
    seconds: list[float] = []
    with ThreadPoolExecutor(num_clients) as threads:
        clients = list(threads.map(lambda _: _client(url), range(num_clients)))
        start = time.perf_counter()

        def work(index: int) -> None:
            for turn in range(count):
                due = start + (turn * num_clients + index) / rate
                time.sleep(max(0.0, due - time.perf_counter()))
                sent = time.perf_counter()
                try:
                    clients[index].predict(handle_file(picture), checkpoint, api_name="/classify")
                except Exception as error:
                    errors.append(f"{type(error).__name__}: {error}")
                else:
                    seconds.append(time.perf_counter() - sent)

        list(threads.map(work, range(num_clients)))
    return seconds


async def _opened(url: str, count: int, errors: list[str]) -> list[float]:
    """Returns the seconds until each page is usable; all are opened within a second."""

    async def open_one(browser: Browser, index: int) -> float:
        page = await browser.new_page()  # with its own context, because a browser opens at most six connections for one
        await asyncio.sleep(index / count)
        start = time.perf_counter()
        try:
            await page.goto(url, wait_until="commit", timeout=600_000)
            await page.wait_for_function(_IS_USABLE, polling=500, timeout=600_000)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
            return math.inf
        return time.perf_counter() - start

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        async with browser:
            return await asyncio.gather(*(open_one(browser, index) for index in range(count)))


def _crowd(url: str, count: int, errors: list[str]) -> tuple[list[float], list[float]]:
    """Starts many trainings at once; returns the seconds until each refusal by the full queue and until each end."""
    refused, trained = [], []

    def train(client: Client) -> None:
        start = time.perf_counter()
        try:
            last = client.submit(_SHORT, api_name="/train").result()
        except AppError as error:
            if "Too many people" not in str(error):
                errors.append(str(error))
                return
            refused.append(time.perf_counter() - start)
            return
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
            return
        if last.get("reason") == "completed":
            trained.append(time.perf_counter() - start)
        else:
            errors.append(f"a training ended with {last}")

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(train, list(threads.map(lambda _: _client(url), range(count)))))
    if not refused or not trained:
        errors.append(f"{len(refused)} refused, {len(trained)} trained")
    return refused or [math.inf], trained or [math.inf]


if __name__ == "__main__":
    run(main)
