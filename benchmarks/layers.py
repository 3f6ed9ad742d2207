"""Measures what recording the layers costs a training: the same training with and without it, in processor time.

Processor time depends less than a clock's on what else the machine does. A short training measures a larger share of
its steps than a long one, so the cost of one measured step is reported too, relative to a step.
"""

import time
from dataclasses import replace
from unittest import mock

from benchmarks.report import in_turns, machine, options, report, run
from benchmarks.training import epochs
from trainer.images.image_data import load_images, subset
from trainer.learning import loop
from trainer.learning.layers import is_measured
from trainer.learning.training_set import batches_per_epoch
from trainer.settings.config import MODELS, TrainConfig


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", choices=MODELS, default="quick")
    parser.add_argument("--num-images", type=int, default=12_800)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    data = load_images(args.data)
    data = replace(data, test=subset(data.test, 100))
    config = TrainConfig(model=args.model, epochs=1, num_images=args.num_images)

    def train(_: int) -> float:
        start = time.process_time()
        list(epochs(config, data))
        return time.process_time() - start

    def train_without(_: int) -> float:
        with mock.patch.object(loop, "is_measured", return_value=False):
            return train(0)

    train(0)  # warm-up
    seconds = in_turns({"with": train, "without": train_without}, args.rounds, args.seed)
    steps = batches_per_epoch(config, data)
    measured = sum(is_measured(step, steps, config.zero_grad_every) for step in range(1, steps + 1))
    more = [each / other - 1 for each, other in zip(seconds["with"], seconds["without"], strict=True)]
    rows = {
        "processor seconds with": seconds["with"],
        "processor seconds without": seconds["without"],
        "additional time": more,
        "a measured step: additional time, in steps": [each * steps / measured for each in more],
    }
    report("layers", rows, on=machine(), to=args.json, steps=steps, measured_steps=measured, pictures=data.note)


if __name__ == "__main__":
    run(main)
