"""How soon 70% of the test pictures are right, and how many after a fixed time, by three recipes.

The app's default, the same network with the tutorial's settings, and network and settings of PyTorch's own CIFAR-10
tutorial ("Training a Classifier"). Each learns alone, in random order, on the same pictures. Times are those of
learning; evaluation is not in them. A default training that has ended before the time is out is judged as it is: its
schedule ends with it, after ten epochs.
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
_TOLD = (f"seconds to {_WANTED:.0%}", "accuracy at the end", "seconds at the end")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="of learning, for each")
    parser.add_argument("--rounds", type=int, default=3, help="seeds for each")
    asked = parser.parse_args()
    data = load_images(asked.data)
    tutorial = LESSONS["one-epoch"].config.changed({"train_split": "train", "epochs": 1000})
    recipes = {
        "default": lambda seed: _app(TrainConfig(seed=seed), data),
        "tutorial": lambda seed: _app(tutorial.changed({"seed": seed}), data),
        "PyTorch's tutorial": lambda seed: _pytorch(seed, data),
    }
    ways = {name: partial(_learned, name, recipe, asked.seconds) for name, recipe in recipes.items()}
    learned = in_turns(ways, asked.rounds, asked.seed)
    rows = {
        f"{name}, {what}": list(values)
        for name, curves in learned.items()
        for what, values in zip(_TOLD, zip(*curves, strict=True), strict=True)
    }
    report("recipe", rows, on=machine(), to=asked.json, seconds=asked.seconds, pictures=data.note)


def _learned(
    name: str, recipe: Callable[[int], Iterator[tuple[float, float]]], limit: float, seed: int
) -> tuple[float, float, float]:
    """What _TOLD says of one training, the end of which it also tells."""
    curve = [(0.0, 0.0), *_until(limit, recipe(seed))]
    soon = next((seconds for seconds, accuracy in curve if accuracy >= _WANTED), math.inf)
    spent, accuracy = curve[-1]
    print(f"{name}, seed {seed}: {accuracy:.2%} after {spent:.0f} s", flush=True)
    return soon, accuracy, spent


def _until(limit: float, curve: Iterator[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """The points of a curve up to `limit` seconds, and at least the first."""
    for number, (seconds, accuracy) in enumerate(curve):
        if number and seconds > limit:
            return
        yield seconds, accuracy


def _app(config: TrainConfig, data: ImageData) -> Iterator[tuple[float, float]]:
    """(seconds of learning so far, test accuracy) after each epoch."""
    seconds = 0.0
    for epoch in epochs(config, data):
        if epoch.images_per_second:  # the untrained network's has none
            seconds += len(data.train.labels) / epoch.images_per_second
            yield seconds, epoch.test_accuracy


def _pytorch(seed: int, data: ImageData) -> Iterator[tuple[float, float]]:
    """The same for the network and the loop of PyTorch's tutorial, without end; a point at each quarter of an epoch."""
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
            begun = time.perf_counter()
            for chosen in part.split(4):
                images = (data.train.images[chosen].float() / 255 - 0.5) / 0.5
                loss = loss_function(network(images), data.train.labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            seconds += time.perf_counter() - begun
            with torch.inference_mode():
                tests = zip(data.test.images.split(500), data.test.labels.split(500), strict=True)
                right = sum((network((x.float() / 255 - 0.5) / 0.5).argmax(1) == y).sum().item() for x, y in tests)
            yield seconds, right / len(data.test.labels)


if __name__ == "__main__":
    run(main)
