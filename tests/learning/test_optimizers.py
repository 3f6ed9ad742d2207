"""The optimizers' settings match torch's classes, and their values reach torch."""

import inspect
import math

import pytest
import torch

from trainer.learning.optimizers import CLASSES, build_optimizer
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS

# Parameters of torch that no optimizer here offers; the comment above OPTIMIZERS gives the reasons.
LEFT_OUT = {"params", "maximize", "foreach", "fused", "capturable", "differentiable"}

# For every setting, a value other than torch's default and ours.
OTHER = {
    "lr": 0.0123,
    "momentum": 0.55,
    "dampening": 0.25,
    "weight_decay": 0.0321,
    "nesterov": True,
    "betas": (0.7, 0.8),
    "eps": 1e-3,
    "amsgrad": True,
    "decoupled_weight_decay": True,
    "alpha": 0.66,
    "centered": True,
    "lr_decay": 0.125,
    "initial_accumulator_value": 0.5,
    "rho": 0.77,
    "momentum_decay": 0.125,
}
# Other settings that a setting needs to have an effect.
WITH = {"dampening": {"momentum": 0.5}, "decoupled_weight_decay": {"weight_decay": 0.1}}
PAIRS = [(name, setting) for name, row in OPTIMIZERS.items() for setting in row.defaults]


def test_optimizers_and_classes_match():
    """Every optimizer offered can be built, and no other."""
    assert CLASSES.keys() == OPTIMIZERS.keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rows_agree_with_torch(name):
    """Every setting is a parameter of torch's class; every other parameter is left out deliberately."""
    parameters = inspect.signature(CLASSES[name]).parameters.keys()
    offered = OPTIMIZERS[name].defaults.keys()
    assert offered <= parameters
    assert parameters - offered <= LEFT_OUT
    assert not offered & LEFT_OUT


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_are_torchs_except_where_training_needs_others(name):
    """Only lr, SGD's momentum and its weight decay differ from torch."""
    parameters = inspect.signature(CLASSES[name]).parameters
    changed = {key for key, value in OPTIMIZERS[name].defaults.items() if value != parameters[key].default}
    assert changed <= {"lr", "momentum", "weight_decay"}
    assert changed <= {"lr"} or name == "sgd"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_row_steps_downhill(name):
    """With its defaults, each optimizer lowers w²."""
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = build_optimizer(TrainConfig(optimizer=name), [weight])
    assert type(optimizer) is CLASSES[name]
    before = weight.detach().clone()
    for _ in range(20):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert bool((weight.detach().abs() < before.abs()).all())


@pytest.mark.parametrize(("name", "setting"), PAIRS, ids=[f"{name}-{setting}" for name, setting in PAIRS])
def test_each_setting_reaches_torch(name, setting):
    """The optimizer's parameter group has a value other than the default."""
    given = {setting: OTHER[setting], **WITH.get(setting, {})}
    group = build_optimizer(TrainConfig(optimizer=name, **given), [torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
    default = OPTIMIZERS[name].defaults[setting]
    assert OTHER[setting] != default
    if setting == "initial_accumulator_value":
        weight = torch.nn.Parameter(torch.zeros(1))
        assert build_optimizer(TrainConfig(optimizer=name, **given), [weight]).state[weight]["sum"].item() == 0.5
    else:
        assert group[setting] == OTHER[setting]


def test_other_values_are_complete():
    """The table above has every setting of every optimizer."""
    assert {setting for _, setting in PAIRS} == OTHER.keys()
    assert all(not isinstance(value, float) or math.isfinite(value) for value in OTHER.values())
