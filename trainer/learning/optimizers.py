"""Builds the torch optimizer that a config chooses."""

from collections.abc import Iterable

from torch import nn, optim

from trainer.settings.config import TrainConfig

CLASSES = {
    "sgd": optim.SGD,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "rmsprop": optim.RMSprop,
    "adagrad": optim.Adagrad,
    "adadelta": optim.Adadelta,
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "adamax": optim.Adamax,
}


def build_optimizer(config: TrainConfig, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Returns the chosen torch optimizer over `parameters`; the config's settings have torch's names."""
    return CLASSES[config.optimizer](parameters, **config.row_settings["optimizer"])
