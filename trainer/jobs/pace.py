"""How long training takes, from a short measurement of these settings on this device."""

import time
from dataclasses import dataclass
from itertools import islice

import torch

from trainer.images.batches import passes
from trainer.images.image_data import ImageData, subset, to_device
from trainer.learning.learner import train_batch
from trainer.learning.loop import evaluate, prepare
from trainer.learning.training_set import batches_per_epoch, images_per_epoch
from trainer.runs.events import EpochEnded
from trainer.settings.config import TrainConfig

# The first batch only warms the device up; then so many more at a time that what it costs to wait is not measured.
_ROUNDS = (1, 1, 4, 16, 64)
_ENOUGH_SECONDS = 0.25
_TEST_IMAGES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Seconds that one batch of training and one evaluation of the whole test split take."""

    batch_seconds: float
    test_seconds: float

    def epoch_seconds(self, config: TrainConfig, data: ImageData) -> float:
        """Seconds of one epoch, evaluation included."""
        return batches_per_epoch(config, data) * self.batch_seconds + self.test_seconds


def measure(config: TrainConfig, data: ImageData, *, device: str | torch.device = "cpu") -> Pace:
    """The pace of `config`'s batches on the device, from up to some dozens of them on a network of its own.

    Raises ValueError where the config does not fit the data or the device.
    """
    constant = config.unscheduled()
    split, learner = prepare(constant, data, device=torch.device(device), resume=None)
    learner.model.train()
    batches = enumerate(passes(split, constant), 1)
    for number, count in enumerate(_ROUNDS):
        begun = time.perf_counter()
        for step, (images, labels) in islice(batches, count):
            loss, _ = train_batch(constant, learner, images, labels, step)
        loss.item()  # waits for the device
        spent = time.perf_counter() - begun
        if number and spent > _ENOUGH_SECONDS:
            break
    return Pace(batch_seconds=spent / count, test_seconds=_test_seconds(learner.model, data, device))


def pace_of(row: EpochEnded, config: TrainConfig, data: ImageData) -> Pace:
    """The pace that an epoch was trained at; not the untrained one, which was not."""
    seconds = images_per_epoch(config, data) / row.images_per_second
    return Pace(batch_seconds=seconds / batches_per_epoch(config, data), test_seconds=row.seconds - seconds)


def _test_seconds(model, data: ImageData, device: str | torch.device) -> float:
    some = to_device(subset(data.test, _TEST_IMAGES), device)
    for _ in range(2):  # the first warms up
        begun = time.perf_counter()
        for _ in evaluate(model, some):
            pass
        spent = time.perf_counter() - begun
    return spent * len(data.test.labels) / len(some.labels)
