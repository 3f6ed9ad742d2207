"""A training by the app's own loop, for the benchmarks that want no more of it than its epochs."""

from collections.abc import Iterator

import torch

from trainer.images.image_data import ImageData
from trainer.learning.loop import train
from trainer.runs.events import EpochEnded
from trainer.settings.config import TrainConfig


def epochs(config: TrainConfig, data: ImageData, device: str | torch.device = "cpu") -> Iterator[EpochEnded]:
    """The end of each epoch, of the untrained network's evaluation first."""
    return (event for event in train(config, data, device=device) if isinstance(event, EpochEnded))


def images_per_second(config: TrainConfig, data: ImageData, device: str | torch.device = "cpu") -> float:
    """Those of a training's last epoch, as the app's own history has them."""
    *_, last = epochs(config, data, device)
    return last.images_per_second
