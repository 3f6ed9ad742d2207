"""Measures the time to a test accuracy of 70%, and the accuracy after a fixed time, for three recipes.

They are the app's default, the same network with the tutorial's settings, and the network and settings of PyTorch's own
CIFAR-10 tutorial ("Training a Classifier"). They train one after another, in random order, on the same pictures. Times
are those of training, without evaluation. A default training may end before the time limit, after ten epochs, with its
schedule; its final accuracy counts then.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from benchmarks.report import in_turns, machine, options, report, run
from benchmarks.training import epochs
from trainer.images.image_data import ImageData, load_images
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS

_WANTED = 0.70
_METRICS = (f"seconds to {_WANTED:.0%}", "accuracy at the end", "seconds at the end")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="training time of each")
    parser.add_argument("--rounds", type=int, default=3, help="seeds for each")
    args = parser.parse_args()
    data = load_images(args.data)
    tutorial = LESSONS["one-epoch"].config.changed({"train_split": "train", "epochs": 1000})
    recipes = {
        "default": lambda seed: _app(TrainConfig(seed=seed), data),
        "tutorial": lambda seed: _app(tutorial.changed({"seed": seed}), data),
        "PyTorch's tutorial": lambda seed: _pytorch(seed, data),
    }
    variants = {name: partial(_learned, name, recipe, args.seconds) for name, recipe in recipes.items()}
    learned = in_turns(variants, args.rounds, args.seed)
    rows = {
        f"{name}, {what}": list(values)
        for name, curves in learned.items()
        for what, values in zip(_METRICS, zip(*curves, strict=True), strict=True)
    }
    report("recipe", rows, on=machine(), to=args.json, seconds=args.seconds, pictures=data.note)


def _learned(
    name: str, recipe: Callable[[int], Iterator[tuple[float, float]]], limit: float, seed: int
) -> tuple[float, float, float]:
    """Returns the _METRICS of a training, and prints its final accuracy."""
    curve = [(0.0, 0.0), *_until(limit, recipe(seed))]
    reached = next((seconds for seconds, accuracy in curve if accuracy >= _WANTED), math.inf)
    spent, accuracy = curve[-1]
    print(f"{name}, seed {seed}: {accuracy:.2%} after {spent:.0f} s", flush=True)
    return reached, accuracy, spent


def _until(limit: float, curve: Iterator[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yields the points of a curve up to `limit` seconds, and at least the first."""
    for number, (seconds, accuracy) in enumerate(curve):
        if number and seconds > limit:
            return
        yield seconds, accuracy


def _app(config: TrainConfig, data: ImageData) -> Iterator[tuple[float, float]]:
    """Yields (seconds of training so far, test accuracy) after each epoch."""
    seconds = 0.0
    for epoch in epochs(config, data):
        if epoch.images_per_second:  # None for the untrained network
            seconds += len(data.train.labels) / epoch.images_per_second
            yield seconds, epoch.test_accuracy


def _pytorch(seed: int, data: ImageData) -> Iterator[tuple[float, float]]:
    """Yields the same for PyTorch's tutorial after each quarter of an epoch; it never ends."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            *(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(16 * 5 * 5, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
        )
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    chance = torch.Generator().manual_seed(seed)
    seconds, quarter = 0.0, len(data.train.labels) // 4
    while True:
        order = torch.randperm(len(data.train.labels), generator=chance)
        for part in order.split(quarter):
            start = time.perf_counter()
            for chosen in part.split(4):
                images = (data.train.images[chosen].float() / 255 - 0.5) / 0.5
                loss = loss_function(network(images), data.train.labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            seconds += time.perf_counter() - start
            with torch.inference_mode():
                tests = zip(data.test.images.split(500), data.test.labels.split(500), strict=True)
                right = sum((network((x.float() / 255 - 0.5) / 0.5).argmax(1) == y).sum().item() for x, y in tests)
            yield seconds, right / len(data.test.labels)


if __name__ == "__main__":
    run(main)
