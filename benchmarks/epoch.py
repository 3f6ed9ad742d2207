"""Compares an epoch of the tutorial's settings in this app with the tutorial's loop as a user would write it.

Both train the same network from the same initial weights on the same batches, and are measured alternately, in random
order. A matrix product on the same machine gives the upper limit of its speed.
"""

import time
from dataclasses import replace

import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import CIFAR10
from torchvision.transforms import ToTensor

from benchmarks.report import in_turns, machine, options, report, run
from trainer.images.image_data import ImageData, Split, load_images, subset
from trainer.learning.learner import build_model
from trainer.learning.loop import train
from trainer.learning.training_set import training_split
from trainer.runs.events import EpochEnded, StepLogged
from trainer.settings.config import TrainConfig

_BATCH_SIZE, _LR = 64, 0.01
_SIDE = 2048  # of the matrices of the ceiling: so large that only arithmetic takes time


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--num-images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each, after a warm-up")
    args = parser.parse_args()
    data = load_images(args.data)
    config = TrainConfig(
        activation="none",
        normalize=False,
        flip=False,
        shift=0,
        shuffle=False,
        scheduler="constant",
        lr=_LR,
        momentum=0.0,
        weight_decay=0.0,
        batch_size=_BATCH_SIZE,
        epochs=1,
        num_images=args.num_images,
    )
    variants = {
        "tutorial": lambda _: _tutorial(config, data),
        "app": lambda _: _app(config, data),
        "ceiling": lambda _: (_matrix_product(), []),
    }
    losses = {variant: measure(0)[1] for variant, measure in variants.items()}
    measured = in_turns(variants, args.rounds, args.seed)
    seconds = {variant: [one for one, _ in values] for variant, values in measured.items()}

    flop, count = _flop_per_image(config, data), len(training_split(config, data).labels)
    ceiling = [2 * _SIDE**3 / one for one in seconds["ceiling"]]
    rounds = list(zip(seconds["tutorial"], seconds["app"], ceiling, strict=True))
    report(
        "epoch",
        {
            "tutorial's loop, seconds": seconds["tutorial"],
            "app, seconds": seconds["app"],
            "times as fast": [theirs / ours for theirs, ours, _ in rounds],
            "ceiling, GFLOP/s": [most / 1e9 for most in ceiling],
            "app's part of the ceiling": [flop * count / ours / most for _, ours, most in rounds],
        },
        on=machine(),
        to=args.json,
        images=count,
        mflop_per_image=flop / 1e6,
        largest_difference_of_a_loss=max(
            abs(one - other) for one, other in zip(losses["tutorial"], losses["app"], strict=True)
        ),
        pictures=data.note,
    )


def _tutorial(config: TrainConfig, data: ImageData) -> tuple[float, list[float]]:
    """Returns the seconds of an epoch and its losses."""
    # torchvision's class with our pictures, because not every machine has its files.
    pictures = CIFAR10.__new__(CIFAR10)
    split = training_split(config, data)
    pictures.data, pictures.targets = split.images.permute(0, 2, 3, 1).numpy(), split.labels.tolist()
    pictures.transform, pictures.target_transform = ToTensor(), None
    network = nn.Sequential(
        nn.Conv2d(3, 32, 5, 1, 2),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 5, 1, 2),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, 1, 2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 64),
        nn.Linear(64, len(data.class_names)),
    )
    first = build_model(config, data, data.train)
    with torch.no_grad():
        for own, ours in zip(network.parameters(), first.parameters(), strict=True):
            own.copy_(ours)
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=_LR)
    losses = []
    start = time.perf_counter()
    for images, labels in DataLoader(pictures, batch_size=_BATCH_SIZE):
        outputs = network(images)
        loss = loss_function(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return time.perf_counter() - start, losses


def _app(config: TrainConfig, data: ImageData) -> tuple[float, list[float]]:
    """Returns the seconds of an epoch, from the run's history, and its losses."""
    small_test = replace(data, test=subset(data.test, 100))
    events = list(train(config, small_test))
    losses = [event.loss for event in events if isinstance(event, StepLogged)]
    (epoch,) = [event for event in events if isinstance(event, EpochEnded) and event.epoch == 1]
    return len(training_split(config, data).labels) / epoch.images_per_second, losses


def _matrix_product() -> float:
    """Returns the seconds of a product of two square matrices, the fastest of five."""
    one, other = torch.rand(2, _SIDE, _SIDE)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(one, other)
        best = min(best, time.perf_counter() - start)
    return best


def _flop_per_image(config: TrainConfig, data: ImageData) -> float:
    """Returns the floating-point operations of a training step per picture; a multiply-add counts as two."""
    model = build_model(config, data, data.train)
    batch = Split(images=data.train.images[:_BATCH_SIZE], labels=data.train.labels[:_BATCH_SIZE])
    with FlopCounterMode(display=False) as counter:
        nn.functional.cross_entropy(model(batch.images), batch.labels).backward()
    return counter.get_total_flops() / _BATCH_SIZE


if __name__ == "__main__":
    run(main)
