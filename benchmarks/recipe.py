"""How soon 70% of the test pictures are right, and how many after a fixed time, by three recipes.

The app's default, the same network with the tutorial's settings, and network and settings of PyTorch's own CIFAR-10
tutorial ("Training a Classifier"). Each learns alone, in random order, on the same pictures. Times are those of
learning; evaluation is not in them. A default training that has ended before the time is out is judged as it is: its
schedule ends with it, after ten epochs.
"""

import math
import random
import time
from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.report import machine, options, report
from trainer.config import TrainConfig
from trainer.data import ImageData, load_images
from trainer.events import EpochEnded
from trainer.lessons import LESSONS
from trainer.loop import train

_WANTED = 0.70


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
    soon: dict[str, list[float]] = {name: [] for name in recipes}
    after: dict[str, list[float]] = {name: [] for name in recipes}
    spent: dict[str, list[float]] = {name: [] for name in recipes}
    order = random.Random(asked.seed)
    for seed in range(asked.rounds):
        for name in order.sample(sorted(recipes), len(recipes)):
            curve = [(0.0, 0.0), *_until(asked.seconds, recipes[name](seed))]
            soon[name].append(next((seconds for seconds, accuracy in curve if accuracy >= _WANTED), math.inf))
            after[name].append(curve[-1][1])
            spent[name].append(curve[-1][0])
            print(f"{name}, seed {seed}: {after[name][-1]:.2%} after {spent[name][-1]:.0f} s", flush=True)
    rows = {f"{name}, seconds to {_WANTED:.0%}": values for name, values in soon.items()}
    rows |= {f"{name}, accuracy at the end": values for name, values in after.items()}
    rows |= {f"{name}, seconds at the end": values for name, values in spent.items()}
    report("recipe", rows, on=machine(), to=asked.json, seconds=asked.seconds, pictures=data.note)


def _until(limit: float, curve: Iterator[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """The points of a curve up to `limit` seconds, and at least the first."""
    for number, (seconds, accuracy) in enumerate(curve):
        if number and seconds > limit:
            return
        yield seconds, accuracy


def _app(config: TrainConfig, data: ImageData) -> Iterator[tuple[float, float]]:
    """(seconds of learning so far, test accuracy) after each epoch."""
    seconds = 0.0
    for event in train(config, data):
        if isinstance(event, EpochEnded) and event.images_per_second:
            seconds += len(data.train.labels) / event.images_per_second
            yield seconds, event.test_accuracy


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
    main()
