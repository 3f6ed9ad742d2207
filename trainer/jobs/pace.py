"""Pace: how long training takes with a config on a device, measured in a few batches."""

import time
from dataclasses import dataclass
from itertools import islice

import torch

from trainer.images.batches import passes
from trainer.images.image_data import ImageData, subset, to_device
from trainer.learning.learner import start_training, train_batch
from trainer.learning.loop import evaluate, prepare
from trainer.learning.training_set import batches_per_epoch, images_per_epoch
from trainer.networks.model import OptimizerLabModel
from trainer.runs.events import EpochEnded
from trainer.settings.config import TrainConfig

# Batches per round. The first one only warms the device up; longer rounds make the wait for the device negligible.
_ROUNDS = (1, 1, 4, 16, 64)
_ENOUGH_SECONDS = 0.25
_TEST_IMAGES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """The seconds that one training batch and one evaluation on the whole test split take."""

    batch_seconds: float
    test_seconds: float

    def epoch_seconds(self, config: TrainConfig, data: ImageData) -> float:
        """Returns the seconds of one epoch, with its evaluation."""
        return batches_per_epoch(config, data) * self.batch_seconds + self.test_seconds


def measure(config: TrainConfig, data: ImageData, *, device: str | torch.device = "cpu") -> Pace:
    """Returns the pace of `config` on the device, measured on a new network in at most 86 batches.

    Raises UserError if the config does not fit the data or the device.
    """
    constant = config.unscheduled()
    split, learner = prepare(constant, data, device=torch.device(device), resume=None)
    start_training(learner)
    batches = enumerate(passes(split, constant), 1)
    for round_index, num_batches in enumerate(_ROUNDS):
        started = time.perf_counter()
        for step, (images, labels) in islice(batches, num_batches):
            loss, _ = train_batch(constant, learner, images, labels, step)
        loss.item()  # waits for the device
        seconds = time.perf_counter() - started
        if round_index and seconds > _ENOUGH_SECONDS:
            break
    return Pace(batch_seconds=seconds / num_batches, test_seconds=_test_seconds(learner.model, data, device))


def pace_of(row: EpochEnded, config: TrainConfig, data: ImageData) -> Pace:
    """Returns the pace of a completed epoch, which must not be epoch 0: nothing is trained in it."""
    assert row.images_per_second is not None
    training_seconds = images_per_epoch(config, data) / row.images_per_second
    return Pace(
        batch_seconds=training_seconds / batches_per_epoch(config, data),
        test_seconds=row.seconds - training_seconds,
    )


def _test_seconds(model: OptimizerLabModel, data: ImageData, device: str | torch.device) -> float:
    sample = to_device(subset(data.test, _TEST_IMAGES), device)
    for _ in range(2):  # the first pass only warms up
        started = time.perf_counter()
        for _ in evaluate(model, sample):
            pass
        seconds = time.perf_counter() - started
    return seconds * len(data.test.labels) / len(sample.labels)
