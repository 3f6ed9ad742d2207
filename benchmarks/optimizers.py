"""Measures each optimizer at a few learning rates around its default, over seeds: the test accuracy at the end.

Every training sees the same pictures for the same epochs, with the optimizer's other settings and its scheduler left at
their defaults. Several trainings run at once, each in a process with one thread.
"""

import argparse
import math
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import lru_cache
from multiprocessing import get_context

import torch

from benchmarks.report import machine, options, report, run
from benchmarks.training import epochs
from trainer.images.image_data import ImageData, load_images, subset
from trainer.settings.config import PRECISIONS, TrainConfig
from trainer.settings.optimizers import OPTIMIZERS


def main() -> None:
    parser = options(__doc__, has_order=False)
    parser.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS), choices=OPTIMIZERS, metavar="NAME")
    parser.add_argument("--factors", nargs="+", type=float, default=[0.3, 1, 3], help="of the default lr")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--num-images", type=int, default=12_800)
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--num-test", type=int, default=2000, help="test pictures")
    parser.add_argument("--at-once", type=int, default=2)
    args = parser.parse_args()
    load_images(args.data)  # fills the cache that the processes read
    accuracies: dict[str, list[float]] = {}
    with ProcessPoolExecutor(args.at_once, get_context("spawn")) as pool:
        waiting = {pool.submit(_accuracy, args.data, args.num_test, config): _name(config) for config in _configs(args)}
        for done in as_completed(waiting):
            accuracies.setdefault(waiting[done], []).append(done.result())
            print(f"{waiting[done]}: {done.result():.2%}", flush=True)
    report("optimizers", dict(sorted(accuracies.items())), on=machine(), to=args.json, epochs=args.epochs)
    print("\n| optimizer | best lr | test accuracy |\n| --- | --- | --- |")
    for name in args.optimizers:
        rows = {row: values for row, values in accuracies.items() if row.split()[0] == name}
        best = max(rows, key=lambda row: statistics.fmean(rows[row]))
        spread = statistics.stdev(rows[best]) if len(rows[best]) > 1 else math.nan
        print(f"| `{name}` | {best.split()[-1]} | {statistics.fmean(rows[best]):.1%} ± {spread:.1%} |")


def _configs(args: argparse.Namespace) -> Iterator[TrainConfig]:
    for seed in range(args.seeds):
        for name in args.optimizers:
            for factor in args.factors:
                yield TrainConfig(
                    optimizer=name,
                    lr=float(f"{OPTIMIZERS[name].defaults['lr'] * factor:.2g}"),
                    epochs=args.epochs,
                    num_images=args.num_images,
                    precision=args.precision,
                    seed=seed,
                )


def _name(config: TrainConfig) -> str:
    return f"{config.optimizer} lr {config.lr:g}"


@lru_cache(maxsize=1)
def _images(source: str | None, num_test: int) -> ImageData:
    torch.set_num_threads(1)
    data = load_images(source)
    return replace(data, test=subset(data.test, num_test))


def _accuracy(source: str | None, num_test: int, config: TrainConfig) -> float:
    """Returns the test accuracy at the end of a training; that of guessing if it diverged."""
    last = list(epochs(config, _images(source, num_test)))[-1]
    return last.test_accuracy if last.epoch == config.epochs else 0.1


if __name__ == "__main__":
    run(main)
