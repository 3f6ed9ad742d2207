"""Trains every lesson with its comparison runs, and writes the small curves of the lessons' cards.

Example: python -m scripts.record_lessons --data FOLDER
"""

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from trainer.errors import UserError
from trainer.images.image_data import ImageData, load_images, subset
from trainer.learning.loop import train
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS
from trainer.sweeps.recorded import read_recording

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
_NUM_POINTS = 40  # of each curve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.record_lessons", description=__doc__)
    parser.add_argument("--data", metavar="SOURCE", help="as for python -m trainer train")
    parser.add_argument("--output", type=Path, default=CHECKPOINTS / "lessons.json", metavar="FILE")
    options = parser.parse_args()
    try:
        images = load_images(options.data)
        curves = {}
        for name, lesson in tqdm(LESSONS.items()):
            configs = [lesson.config, *lesson.compared]
            curves[name] = _valleys() if lesson.vary else [_curve(config, images) for config in configs]
        recorded = {"command": "python -m scripts.record_lessons --data FOLDER", "curves": curves}
        options.output.write_text(json.dumps(recorded, separators=(",", ":")) + "\n", encoding="utf-8")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _curve(config: TrainConfig, images: ImageData) -> list[list[float]]:
    """Returns the smoothed train loss of a run as [epochs passed, loss] pairs, as long as it is finite."""
    few_tested = replace(images, train=getattr(images, config.train_split), test=subset(images.test, 100))
    run = Run(config=config.changed({"train_split": "train"}))
    for event in train(run.config, few_tested):
        run.apply(event)
    points = [point for point in run.curve.points if math.isfinite(point.smoothed)]
    stride = -(-len(points) // _NUM_POINTS) or 1
    kept = [*points[::stride], *points[-1:]]
    return [[round(point.epochs, 3), float(f"{point.smoothed:.4g}")] for point in kept]


def _valleys() -> list[list[list[float]]]:
    """Returns the test loss over the logarithm of lr in the recorded sweep, one curve for each optimizer."""
    losses: dict[str, dict[float, list[float]]] = {}
    for run in read_recording(CHECKPOINTS / "sweep.json").runs.values():
        loss, lr = run.history[-1].test_loss, run.config.lr
        if lr and run.epoch and math.isfinite(loss):
            losses.setdefault(run.config.optimizer, {}).setdefault(lr, []).append(loss)
    return [
        [[round(math.log10(lr), 3), float(f"{fmean(seeds):.4g}")] for lr, seeds in sorted(by_lr.items())]
        for by_lr in losses.values()
    ]


if __name__ == "__main__":
    main()
