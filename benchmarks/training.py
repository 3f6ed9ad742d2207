"""Runs a training for the benchmarks that need only its epochs."""

from collections.abc import Iterator

import torch

from trainer.images.image_data import ImageData
from trainer.learning.loop import train
from trainer.runs.events import EpochEnded
from trainer.settings.config import TrainConfig


def epochs(config: TrainConfig, data: ImageData, device: str | torch.device = "cpu") -> Iterator[EpochEnded]:
    """Returns the end of each epoch, the first of which is the untrained network's evaluation."""
    return (event for event in train(config, data, device=device) if isinstance(event, EpochEnded))


def images_per_second(config: TrainConfig, data: ImageData, device: str | torch.device = "cpu") -> float:
    """Returns the images per second of a training's last epoch, from the run's history."""
    *_, last = epochs(config, data, device)
    return last.images_per_second
