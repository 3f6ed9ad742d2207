"""The optimizers' settings match the parameters of their classes, and their values reach them."""

import inspect
import math
import subprocess
import sys

import pytest
import torch

from trainer.errors import UserError
from trainer.learning import optimizers
from trainer.learning.optimizers import CLASSES, arguments, build_optimizer, optimizer_class
from trainer.learning.optimizers.sam import SharpnessAware
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS

# Parameters that no optimizer here offers; the comment above OPTIMIZERS gives the reasons for most.
LEFT_OUT = {"params", "maximize", "foreach", "fused", "capturable", "differentiable"}
# Variants of other papers, ways to need less memory, and parameters that their authors do not recommend to change.
ALSO_LEFT_OUT = {
    "adafactor": {"eps"},
    "lion": {"caution", "corrected_weight_decay"},
    "adan": {"no_prox", "caution"},
    "mars": {"mars_type", "optimize_1d", "lr_1d_factor", "betas_1d", "caution"},
    "adopt": {"clip_exp", "corrected_weight_decay", "caution"},
    "sgd_schedulefree": {"warmup_steps", "r", "weight_lr_power"},
    "adamw_schedulefree": {"warmup_steps", "r", "weight_lr_power"},
    "prodigy": {
        "beta3", "decouple", "use_bias_correction", "safeguard_warmup", "d0", "growth_rate", "fsdp_in_use", "slice_p",
    },
    "sam": {"dampening"},
    "sam_adamw": {"amsgrad"},
}  # fmt: skip

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
    "beta2_decay": -0.5,
    "d": 3.0,
    "beta3": 0.66,
    "mars_gamma": 0.5,
    "adamw_lr": 0.0246,
    "ns_steps": 2,
    "adjust_lr_fn": "match_rms_adamw",
    "d_coef": 0.5,
}
# Other settings that a setting needs to have an effect.
WITH = {"dampening": {"momentum": 0.5}, "decoupled_weight_decay": {"weight_decay": 0.1}}
PAIRS = [(name, setting) for name, row in OPTIMIZERS.items() for setting in row.defaults]


def test_optimizers_and_classes_match():
    """Every optimizer offered can be built, and no other."""
    assert CLASSES.keys() == OPTIMIZERS.keys()


def parameters_of(name):
    """Returns the parameters of an optimizer's class by name; those of SAM and of its base are one."""
    kind = optimizer_class(name)
    kinds = [SharpnessAware, kind.__mro__[2]] if issubclass(kind, SharpnessAware) else [kind]
    found = {key: value for kind in kinds for key, value in inspect.signature(kind).parameters.items()}
    return {key: value for key, value in found.items() if key != "settings"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rows_agree_with_the_classes(name):
    """Every setting is a parameter of the class; every other parameter is left out deliberately."""
    parameters = parameters_of(name).keys()
    offered = arguments(TrainConfig(optimizer=name)).keys()
    left_out = LEFT_OUT | ALSO_LEFT_OUT.get(name, set())
    assert offered <= parameters
    assert parameters - offered <= left_out
    assert not offered & left_out


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_are_torchs_except_where_training_needs_others(name):
    """Only learning rates, and in a few rows momentum and weight decay."""
    parameters, given = parameters_of(name), arguments(TrainConfig(optimizer=name))
    changed = {key for key, value in given.items() if value != parameters[key].default}
    assert changed <= {"lr", "adamw_lr", "momentum", "weight_decay", *({"betas"} if name == "mars" else {})}
    is_torchs = CLASSES[name].startswith("torch")
    assert changed <= {"lr"} or name == "sgd" or not is_torchs


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_row_steps_downhill(name):
    """With its defaults, each optimizer lowers w²."""
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = build_optimizer(TrainConfig(optimizer=name), [weight])
    assert type(optimizer) is optimizer_class(name)
    before = weight.detach().clone()

    def backward():
        optimizer.zero_grad()
        weight.square().sum().backward()

    if optimizers.is_schedule_free(optimizer):
        optimizer.train()
    for _ in range(20):
        backward()
        optimizer.step(*[backward] if isinstance(optimizer, SharpnessAware) else [])
    assert bool((weight.detach().abs() < before.abs()).all())


@pytest.mark.parametrize(("name", "setting"), PAIRS, ids=[f"{name}-{setting}" for name, setting in PAIRS])
def test_each_setting_reaches_torch(name, setting):
    """The optimizer's parameter group has a value other than the default."""
    default = OPTIMIZERS[name].defaults[setting]
    value = not default if isinstance(default, bool) else OTHER[setting]
    given = {setting: value, **WITH.get(setting, {})}
    group = build_optimizer(TrainConfig(optimizer=name, **given), [torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
    assert value != default
    if setting in ("beta3", "mars_gamma", "adamw_lr", "decoupled_weight_decay") and setting not in group:
        in_group = {
            "beta3": group.get("betas", ())[2:] == (0.66,),
            "mars_gamma": group.get("gamma") == 0.5,
            "adamw_lr": math.isclose(group["lr"] * group.get("adamw_lr_ratio", 0), 0.0246),
            "decoupled_weight_decay": group.get("decoupled") is True,
        }
        assert in_group[setting]
    elif name == "adan" and setting == "betas":
        assert group["betas"] == (0.7, 0.8, 0.99)
    elif setting == "initial_accumulator_value":
        weight = torch.nn.Parameter(torch.zeros(1))
        assert build_optimizer(TrainConfig(optimizer=name, **given), [weight]).state[weight]["sum"].item() == 0.5
    else:
        assert group[setting] == value


def test_other_values_are_complete():
    """The table above has every setting of every optimizer."""
    assert {setting for _, setting in PAIRS} == OTHER.keys()
    assert all(not isinstance(value, float) or math.isfinite(value) for value in OTHER.values())


def test_a_package_that_is_missing_is_named(monkeypatch):
    """The sentence says what to install."""
    monkeypatch.setitem(CLASSES, "lion", "no_such_package.optim:Lion")
    with pytest.raises(
        UserError, match="The optimizer lion needs the package no_such_package: pip install no_such_package"
    ):
        build_optimizer(TrainConfig(optimizer="lion"), [torch.nn.Parameter(torch.zeros(1))])


@pytest.mark.slow
def test_packages_are_imported_only_when_chosen():
    """timm loads all its models, which takes seconds."""
    code = (
        "import sys, torch\n"
        "from trainer import TrainConfig, train\n"
        "from trainer.learning.optimizers import build_optimizer\n"
        "parameters = [torch.nn.Parameter(torch.zeros(1))]\n"
        "build_optimizer(TrainConfig(), parameters)\n"
        "print([name for name in ('timm', 'schedulefree', 'prodigyopt') if name in sys.modules])\n"
        "build_optimizer(TrainConfig(optimizer='lion'), parameters)\n"
        "print('timm' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["[]", "True"]
