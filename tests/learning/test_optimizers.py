"""The optimizer rows say what torch's classes take, and what they say reaches torch."""

import inspect
import math

import pytest
import torch

from trainer.learning.optimizers import CLASSES, build_optimizer
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS

# Every one of torch's parameters that no row offers: see the comment above OPTIMIZERS.
LEFT_OUT = {"params", "maximize", "foreach", "fused", "capturable", "differentiable"}

# A value other than torch's default and the row's, for every setting of an optimizer.
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
# What else must be set for it to make sense.
WITH = {"dampening": {"momentum": 0.5}, "decoupled_weight_decay": {"weight_decay": 0.1}}
PAIRS = [(name, setting) for name, row in OPTIMIZERS.items() for setting in row.defaults]


def test_every_row_has_its_class_and_the_other_way_round():
    """Nothing offered that cannot be built, nothing built that is not offered."""
    assert CLASSES.keys() == OPTIMIZERS.keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rows_agree_with_torch(name):
    """Each setting is a parameter of torch's class; each of torch's parameters is a setting or left out on purpose."""
    parameters = inspect.signature(CLASSES[name]).parameters.keys()
    offered = OPTIMIZERS[name].defaults.keys()
    assert offered <= parameters
    assert parameters - offered <= LEFT_OUT
    assert not offered & LEFT_OUT


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_are_torchs_but_for_those_that_would_not_train(name):
    """Only lr, SGD's momentum and its weight decay differ from torch."""
    parameters = inspect.signature(CLASSES[name]).parameters
    changed = {key for key, value in OPTIMIZERS[name].defaults.items() if value != parameters[key].default}
    assert changed <= {"lr", "momentum", "weight_decay"}
    assert changed <= {"lr"} or name == "sgd"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_row_steps_downhill(name):
    """Built from its defaults, each optimizer lowers w² of a w it is given."""
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
    """A value other than the default is what the optimizer's group holds, and changes the steps it takes."""
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
    """The table above has every setting of every row."""
    assert {setting for _, setting in PAIRS} == OTHER.keys()
    assert all(not isinstance(value, float) or math.isfinite(value) for value in OTHER.values())
