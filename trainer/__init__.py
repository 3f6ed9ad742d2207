"""Optimizer Lab's library: train on images, keep the checkpoint, classify a picture."""

import os

# Torch's threads spin while they wait for each other; on a machine with anything else to do, such as a page to serve,
# that makes the small steps of this network many times slower. Read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from trainer.images.image_data import ImageData, load_images
from trainer.learning.loop import evaluate, train
from trainer.networks.model import OptimizerLabModel
from trainer.networks.predict import Prediction, classify
from trainer.settings.config import TrainConfig

__all__ = [
    "ImageData",
    "OptimizerLabModel",
    "Prediction",
    "TrainConfig",
    "classify",
    "evaluate",
    "load_images",
    "train",
]
