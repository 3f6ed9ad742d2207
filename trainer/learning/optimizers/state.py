"""Saves the state of an optimizer as tensors and plain data, and restores it bit for bit."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.learning.optimizers import is_schedule_free
from trainer.learning.optimizers.sam import SharpnessAware

COUNTS_IN_GROUPS = {"adan", "prodigy", "sgd_schedulefree", "adamw_schedulefree"}
"""The optimizers that keep a part of their progress in the parameter groups, among their settings."""

# What a scheduler writes into the groups when it is created, and computes lr and momentum from.
_SCHEDULED = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"}


def tensors_of(optimizer: Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Returns what the optimizer keeps for each parameter, as "<parameter>.<name>"; a number becomes a 0-d tensor."""
    state = optimizer.state_dict()["state"]
    return {
        f"{parameter}.{key}": value if isinstance(value, Tensor) else torch.tensor(value, dtype=_dtype(value))
        for index, parameter in enumerate(_names(optimizer, model))
        for key, value in state.get(index, {}).items()
    }


def groups_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Returns the plain, finite values of each parameter group: settings, and what some optimizers count there."""
    return [
        {name: value for name, value in group.items() if name != "params" and is_plain(value)}
        for group in optimizer.state_dict()["param_groups"]
    ]


def restore(
    optimizer: Optimizer, model: nn.Module, tensors: Mapping[str, Tensor], groups: Sequence[Mapping[str, Any]] | None
) -> None:
    """Restores the state of `tensors_of` and `groups_of` in a new optimizer, from copies of the tensors.

    Without tensors or groups the new optimizer's own remain. A saved state may come from a stranger: raises an
    exception of any type if it does not fit, which shows at the latest in a trial step of a copy.
    """
    stepped = _stepped(optimizer)
    own, expected = optimizer.state_dict(), stepped.state_dict()
    state = _state(optimizer, model, tensors, expected["state"]) or own["state"]
    merged = own["param_groups"]
    if groups is not None:
        known = zip(merged, expected["param_groups"], groups, strict=True)
        merged = [{**group, **_checked(saved, after_a_step)} for group, after_a_step, saved in known]
    _load(stepped, {"state": copy.deepcopy(state), "param_groups": merged})
    _step(stepped)
    _load(optimizer, {"state": state, "param_groups": merged})


def _names(optimizer: Optimizer, model: nn.Module) -> list[str]:
    """Returns the names of the optimizer's parameters in its order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _state(
    optimizer: Optimizer, model: nn.Module, tensors: Mapping[str, Tensor], expected: Mapping[int, Mapping[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Returns the tensors in the form of a state_dict. Raises KeyError or TypeError if they do not fit."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = {name: index for index, name in enumerate(_names(optimizer, model))}
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        parameter_name, key = name.rsplit(".", 1)
        index = indices[parameter_name]
        known = expected[index][key]
        if tensor.dtype != (known.dtype if isinstance(known, Tensor) else _dtype(known)):
            raise TypeError(f"{name} has another type than in this optimizer")
        value = _copy(tensor, parameters[index]) if isinstance(known, Tensor) else type(known)(tensor.item())
        state.setdefault(index, {})[key] = value
    if state and {index: set(values) for index, values in state.items()} != {i: set(v) for i, v in expected.items()}:
        raise KeyError("the optimizer's tensors are incomplete")
    return state


def _copy(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Returns a copy, in the parameter's memory layout if it has its shape: in another one steps would take longer."""
    if tensor.shape == parameter.shape and tensor.dim():
        return torch.empty_like(parameter, requires_grad=False).copy_(tensor)
    return tensor.clone()


def _checked(saved: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a saved group, with tuples for JSON's lists.

    Raises KeyError or TypeError for an unknown value, ValueError for one that the run's scheduler contradicts.
    """
    group = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
    for name, value in group.items():
        if kind_of(value) is not kind_of(known[name]):
            raise TypeError(name)
        if name in _SCHEDULED and value != known[name]:
            raise ValueError(name)
    return group


def _load(optimizer: Optimizer, state: dict[str, Any]) -> None:
    optimizer.load_state_dict(state)
    for values in optimizer.state.values():
        # load_state_dict moves scalars to the device, and each step would wait for the device to read them.
        scalars = {key: value for key, value in values.items() if isinstance(value, Tensor) and not value.dim()}
        values.update({key: value.cpu() for key, value in scalars.items()})


def _stepped(optimizer: Optimizer) -> Optimizer:
    """Returns a copy of the optimizer, over copies of its parameters, after one step."""
    stepped = copy.deepcopy(optimizer)
    _step(stepped)
    return stepped


def _step(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    if is_schedule_free(optimizer):
        optimizer.train()  # type: ignore[attr-defined]
    if isinstance(optimizer, SharpnessAware):
        optimizer.step(lambda: None)
    else:
        optimizer.step()


def _dtype(number: float) -> torch.dtype:
    return torch.int64 if isinstance(number, int) else torch.float64


def is_plain(value: Any) -> bool:
    """Whether JSON can hold a value exactly, but for the difference between tuple and list."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))


def kind_of(value: Any) -> type:
    """Returns the type of a value; that of whole numbers is float, because JSON may have written 1.0 as 1."""
    return float if type(value) is int else type(value)
