"""Optimizer Lab's library: train on images, keep the checkpoint, classify a picture."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# Each name is imported on first use, because importing torch takes seconds and fixes OMP_WAIT_POLICY (see __main__).
_MODULES = {
    "ImageData": "images.image_data",
    "OptimizerLabModel": "networks.model",
    "Prediction": "networks.predict",
    "TrainConfig": "settings.config",
    "classify": "networks.predict",
    "evaluate": "learning.loop",
    "load_images": "images.image_data",
    "train": "learning.loop",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
