"""Optimizer Lab's library: train on images, keep the checkpoint, classify a picture."""

from trainer.config import TrainConfig
from trainer.data import ImageData, load_images
from trainer.loop import evaluate, train
from trainer.model import OptimizerLabModel
from trainer.predict import Prediction, classify

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
