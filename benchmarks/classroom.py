"""Measures a class: thirty visitors train at the same time as two long trainings.

Each visitor trains one epoch of 5,000 pictures, and all press within ten seconds. Measured are the seconds until each
curve has moved and until each training has ended, compared with the time that the thirty take one after the other.
"""

import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gradio_client import Client

from benchmarks.app import running_app
from benchmarks.report import machine, options, report, run

_LONG = {"epochs": 100, "scheduler": "constant"}
_SECONDS_TO_SETTLE = 20.0
_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(kw_only=True)
class _Training:
    pressed: float
    moved: float
    ended: float


def main() -> None:
    parser = options(__doc__, data="synthetic", has_order=False)
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--long", type=int, default=2, help="number of long trainings that run at the same time")
    parser.add_argument("--images", type=int, default=5000, help="pictures of each visitor's epoch")
    parser.add_argument("--seconds", type=float, default=10.0, help="within which all visitors press Train")
    parser.add_argument("--seeds", action="store_true", help="each visitor has another seed, so another network")
    parser.add_argument("--alone", type=int, default=5, help="trainings measured one after the other")
    args = parser.parse_args()
    short = {"epochs": 1, "num_images": args.images}
    with tempfile.TemporaryDirectory() as folder, running_app(args.data, Path(folder)) as app:
        clients = [Client(app.url, verbose=False, ssl_verify=False) for _ in range(args.visitors)]
        _train(clients[0], short, 0)  # warm-up
        alone = [_train(clients[0], short, seed if args.seeds else 0) for seed in range(args.alone)]
        long = [
            Client(app.url, verbose=False).submit({**_LONG, "seed": seed}, api_name="/train")
            for seed in range(args.long)
        ]
        time.sleep(_SECONDS_TO_SETTLE)
        start = threading.Event()

        def press(index: int) -> _Training:
            start.wait()
            time.sleep(index * args.seconds / args.visitors)
            return _train(clients[index], short, index if args.seeds else 0)

        with ThreadPoolExecutor(args.visitors) as threads:
            results = [threads.submit(press, index) for index in range(args.visitors)]
            start.set()
            together = [result.result() for result in results]
        for job in long:
            job.cancel()
    in_turn = args.visitors * statistics.median(one.ended - one.pressed for one in alone)
    took = max(one.ended for one in together) - min(one.pressed for one in together)
    report(
        "classroom",
        {
            "alone, seconds": [one.ended - one.pressed for one in alone],
            "Train until the curve moves, seconds": [one.moved - one.pressed for one in together],
            "Train until the end, seconds": [one.ended - one.pressed for one in together],
        },
        on=machine(),
        to=args.json,
        last_curve_moved_after=max(one.moved - one.pressed for one in together),
        all_ended_after=took,
        times_one_after_the_other=took / in_turn,
    )


def _train(client: Client, config: dict[str, int], seed: int) -> _Training:
    """Trains to the end; raises if the training does not complete."""
    pressed = time.perf_counter()
    job = client.submit({**config, "seed": seed}, api_name="/train")
    moved = None
    # Not by iterating, which makes each client look a thousand times a second.
    while not job.done():
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        if moved is None and any(row["event"] == "step" for row in job.outputs()):
            moved = time.perf_counter()
    row = job.result()
    if moved is None or row["reason"] != "completed":
        raise RuntimeError(f"The training ended with {row}.")
    return _Training(pressed=pressed, moved=moved, ended=time.perf_counter())


if __name__ == "__main__":
    run(main)
