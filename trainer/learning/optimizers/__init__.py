"""Builds the optimizer that a config chooses."""

import pkgutil
from collections.abc import Iterable
from typing import Any

from torch import nn, optim

from trainer.errors import UserError
from trainer.settings.config import TrainConfig

CLASSES = {
    "sgd": "torch.optim:SGD",
    "adam": "torch.optim:Adam",
    "adamw": "torch.optim:AdamW",
    "rmsprop": "torch.optim:RMSprop",
    "adagrad": "torch.optim:Adagrad",
    "adadelta": "torch.optim:Adadelta",
    "nadam": "torch.optim:NAdam",
    "radam": "torch.optim:RAdam",
    "adamax": "torch.optim:Adamax",
    "adafactor": "torch.optim:Adafactor",
    "lion": "timm.optim:Lion",
    "adan": "timm.optim:Adan",
    "mars": "timm.optim:Mars",
    "adopt": "timm.optim:Adopt",
    "sgd_schedulefree": "schedulefree:SGDScheduleFree",
    "adamw_schedulefree": "schedulefree:AdamWScheduleFree",
    "prodigy": "prodigyopt:Prodigy",
    "muon": "trainer.learning.optimizers.muon:Muon",
    "sam": "trainer.learning.optimizers.sam:SAM",
    "sam_adamw": "trainer.learning.optimizers.sam:SAMAdamW",
}
"""The class of each optimizer. Its package is imported only when the optimizer is chosen: timm takes seconds."""

# What a class calls a setting that has another name here, because the scheduler has one of the same name (gamma), or
# because the other optimizers agree on one (decoupled_weight_decay).
_NAMES = {"mars": {"mars_gamma": "gamma"}, "adopt": {"decoupled_weight_decay": "decoupled"}}


def build_optimizer(config: TrainConfig, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Returns the chosen optimizer over `parameters`, which are in the order of the network's layers.

    Raises UserError if the optimizer's package is not installed.
    """
    settings = arguments(config)
    # Prodigy prints a line if it is built with a weight_decay.
    later = {"weight_decay": settings.pop("weight_decay")} if config.optimizer == "prodigy" else {}
    optimizer = optimizer_class(config.optimizer)(parameters, **settings)
    for group in optimizer.param_groups:
        group.update(later)
    if config.zero_grad_every == 0 and is_schedule_free(optimizer):
        _keep_gradients(optimizer)
    return optimizer


def optimizer_class(name: str) -> type[Any]:
    """Returns the class of an optimizer. Raises UserError if its package is not installed."""
    try:
        return pkgutil.resolve_name(CLASSES[name])
    except ModuleNotFoundError as error:
        raise UserError(
            "The optimizer {name} needs the package {package}: pip install {package}", name=name, package=error.name
        ) from None


def arguments(config: TrainConfig) -> dict[str, Any]:
    """Returns the settings of the chosen optimizer as the arguments of its class."""
    names = _NAMES.get(config.optimizer, {})
    settings = {names.get(name, name): value for name, value in config.row_settings["optimizer"].items()}
    if "beta3" in settings:  # Adan's betas are three
        settings["betas"] = (*settings["betas"], settings.pop("beta3"))
    return settings


def is_schedule_free(optimizer: optim.Optimizer) -> bool:
    """Whether the optimizer evaluates other weights than it trains, between which its train() and eval() switch."""
    return hasattr(optimizer, "eval")


def _keep_gradients(optimizer: optim.Optimizer) -> None:
    """Makes a step leave the gradients as they are.

    schedulefree turns them into its update in place, which would be added to the next batch's if they are not cleared.
    """
    kept: list[Any] = []

    def save(*_: Any) -> None:
        kept[:] = [
            (p, p.grad.clone()) for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]

    def restore(*_: Any) -> None:
        for parameter, gradient in kept:
            parameter.grad.copy_(gradient)

    optimizer.register_step_pre_hook(save)
    optimizer.register_step_post_hook(restore)
