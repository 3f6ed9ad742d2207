"""Pace: how long training takes with a config on a device, measured in a few batches."""

import statistics
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
from trainer.runs.run import num_tested
from trainer.settings.config import TrainConfig

# A round takes at least this many seconds, so that waiting for the device hardly counts, or has this many batches.
_ROUND_SECONDS, _MOST_BATCHES = 0.1, 64
# Of the rounds the median counts: other processes may have interrupted some.
_NUM_ROUNDS, _ENOUGH_SECONDS = 7, 1.5
_TEST_IMAGES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """The seconds that one training batch and one evaluation on the whole test split take."""

    batch_seconds: float
    test_seconds: float

    def epoch_seconds(self, config: TrainConfig, data: ImageData) -> float:
        """Returns the seconds of one epoch, with an evaluation on the whole test split."""
        return batches_per_epoch(config, data) * self.batch_seconds + self.test_seconds

    def run_seconds(self, config: TrainConfig, data: ImageData) -> float:
        """Returns the seconds of all epochs, with their evaluations."""
        return config.epochs * batches_per_epoch(config, data) * self.batch_seconds + self.testing_seconds(config, data)

    def testing_seconds(self, config: TrainConfig, data: ImageData) -> float:
        """Returns the seconds of all evaluations of a run; only the last one is on the whole test split."""
        num_test_images = len(data.test.labels)
        share = num_tested(num_test_images, images_per_epoch(config, data)) / num_test_images
        return (1 + (config.epochs - 1) * share) * self.test_seconds


def measure(config: TrainConfig, data: ImageData, *, device: str | torch.device = "cpu") -> Pace:
    """Returns the pace of `config` on the device, measured on a new network in a second or two, or a few batches.

    Raises UserError if the config does not fit the data or the device.
    """
    constant = config.unscheduled()
    split, learner = prepare(constant, data, device=torch.device(device), resume=None)
    start_training(learner)
    batches = enumerate(passes(split, constant), 1)

    def seconds_of(num_batches: int) -> float:
        started = time.perf_counter()
        for step, (images, labels) in islice(batches, num_batches):
            loss, _ = train_batch(constant, learner, images, labels, step)
        loss.item()  # waits for the device
        return time.perf_counter() - started

    seconds_of(1)  # only warms the device up
    size = 1
    while (seconds := seconds_of(size)) < _ROUND_SECONDS and size < _MOST_BATCHES:
        size *= 4
    rounds = [seconds]
    while len(rounds) < _NUM_ROUNDS and sum(rounds) < _ENOUGH_SECONDS:
        rounds.append(seconds_of(size))
    return Pace(batch_seconds=statistics.median(rounds) / size, test_seconds=_test_seconds(learner.model, data, device))


def pace_of(row: EpochEnded, config: TrainConfig, data: ImageData) -> Pace:
    """Returns the pace of a completed epoch, which must not be epoch 0: nothing is trained in it."""
    assert row.images_per_second is not None
    training_seconds = images_per_epoch(config, data) / row.images_per_second
    return Pace(
        batch_seconds=training_seconds / batches_per_epoch(config, data),
        test_seconds=(row.seconds - training_seconds) / row.test_share,
    )


def _test_seconds(model: OptimizerLabModel, data: ImageData, device: str | torch.device) -> float:
    sample = to_device(subset(data.test, _TEST_IMAGES), device)
    for _ in range(2):  # the first pass only warms up
        started = time.perf_counter()
        for _ in evaluate(model, sample):
            pass
        seconds = time.perf_counter() - started
    return seconds * len(data.test.labels) / len(sample.labels)
