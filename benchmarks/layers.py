"""Measures what recording the layers costs a training, in processor time with one thread.

One training measures the layers in one of every two steps, in random order, so that both kinds of steps meet the same
network and the same load of the machine. The additional time of a measured step, times the share of steps that a run
with the default settings measures, is the cost of recording such a run.
"""

import math
import random
import statistics
import time
from unittest import mock

import torch

from benchmarks.report import machine, options, report, run
from benchmarks.training import epochs
from trainer.images.image_data import ImageData, load_images
from trainer.learning import loop
from trainer.learning.layers import is_measured
from trainer.learning.training_set import batches_per_epoch
from trainer.settings.config import MODELS, TrainConfig

_WARM_UP = 10  # pairs of steps


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", choices=MODELS, default="quick")
    parser.add_argument("--num-images", type=int, default=50_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_images(args.data)
    with_layers, without = _pairs(TrainConfig(model=args.model, epochs=1, num_images=args.num_images), data, args.seed)
    ratios = [measured / other - 1 for measured, other in zip(with_layers, without, strict=True)]
    default = TrainConfig(model=args.model)
    steps = batches_per_epoch(default, data) * default.epochs
    share = sum(is_measured(step, steps, default.zero_grad_every) for step in range(1, steps + 1)) / steps
    rows = {
        "processor seconds of a measured step": with_layers,
        "processor seconds of another": without,
        "additional time of a measured step": ratios,
        "additional time of a default run": [share * ratio for ratio in ratios],
    }
    error = _error_of_median(ratios)
    facts = {"error_of_median_step": error, "error_of_median_run": share * error, "measured_steps": share}
    report("layers", rows, on=machine(), to=args.json, **facts, pictures=data.note)


def _pairs(config: TrainConfig, data: ImageData, seed: int) -> tuple[list[float], list[float]]:
    """Returns the processor seconds of pairs of steps of a training: with the layers measured, and without."""
    rng = random.Random(seed)
    starts: list[float] = []
    choices: list[bool] = []

    def choose(*_: int) -> bool:
        choices.append(not choices[-1] if len(choices) % 2 else rng.random() < 0.5)
        starts.append(time.process_time())
        return choices[-1]

    with mock.patch.object(loop, "is_measured", choose):
        list(epochs(config, data))
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for index in range(2 * _WARM_UP, len(starts) - 2, 2):
        for number in (index, index + 1):
            seconds[choices[number]].append(starts[number + 1] - starts[number])
    return seconds[True], seconds[False]


def _error_of_median(values: list[float]) -> float:
    """Returns the standard error of a median, from the middle two thirds of the values, as if they were normal."""
    cuts = statistics.quantiles(values, n=6)
    return math.sqrt(math.pi / 2 / len(values)) * (cuts[-1] - cuts[0]) / 2


if __name__ == "__main__":
    run(main)
