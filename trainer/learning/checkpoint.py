"""Checkpoint, the state that a run resumes from, and functions that save and restore a learner's state."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from trainer.errors import UserError
from trainer.learning.learner import Learner
from trainer.learning.schedulers import spans_run
from trainer.networks.model import OptimizerLabModel
from trainer.runs.events import CheckpointReady, EpochEnded
from trainer.runs.run import Curve, Run
from trainer.settings.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a run at the end of an epoch, for `train(resume=…)`."""

    config: TrainConfig
    data: Mapping[str, Any]  # name, source, revision and digest of the images
    history: tuple[EpochEnded, ...]
    weights: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]  # "optimizer.<parameter>.<name>" and "gradient.<parameter>"
    state: Mapping[str, Any]  # see CheckpointReady; `continued` adds "continued_with"
    curve: Curve  # up to the end of the last epoch

    @property
    def epoch(self) -> int:
        """The number of epochs that have ended."""
        return self.history[-1].epoch

    @property
    def schedule_from(self) -> int:
        """The epoch after which the schedule starts: 0, unless a continuation changed settings later."""
        return self.state["schedule_from"]

    @property
    def continued_with(self) -> dict[str, Any] | None:
        """The settings changed by a continuation in which no epoch has ended yet; None if there is none."""
        return self.state.get("continued_with")


class SpentScheduleError(UserError):
    """A run cannot go on with its schedule, which covers exactly the epochs that it has trained."""


def resumed(checkpoint: Checkpoint) -> Run:
    """Returns a new Run that continues from a checkpoint, with its settings, history and curve so far."""
    curve = replace(checkpoint.curve, points=list(checkpoint.curve.points))
    return Run(config=checkpoint.config, history=list(checkpoint.history), curve=curve)


def continued(checkpoint: Checkpoint, *, epochs: int | None, changes: Mapping[str, Any]) -> Checkpoint:
    """Returns a checkpoint to resume with: the same state, with `changes` to the settings and a total of `epochs`.

    `epochs` None keeps the run's own total. Without changes the run continues exactly as if it had never stopped. With
    changes the schedule starts again and covers the remaining epochs, and the optimizer's tensors are dropped if the
    new optimizer has others. Changes of an earlier continuation count too, until an epoch has ended in it.

    Raises UserError if no epochs remain or if a change is invalid, SpentScheduleError if the total changes without
    other changes although the schedule covers exactly the old one.
    """
    config, done = checkpoint.config, checkpoint.epoch
    total = config.epochs if epochs is None else epochs
    config = replace(config, epochs=total)
    if total <= done:
        raise UserError(
            "This run has trained {done} epochs already; choose a larger total to continue it.",
            done=done,
        )
    if not changes and not checkpoint.continued_with:
        if spans_run(checkpoint.config) and total != checkpoint.config.epochs:
            raise SpentScheduleError(
                "The {scheduler} schedule of this run covered the whole run and is finished; choose the scheduler to "
                "continue with, for example constant and a small lr.",
                scheduler=config.scheduler,
            )
        return replace(checkpoint, config=config)
    config = checkpoint.config.changed({**changes, "epochs": total})
    usable = {"gradient"} | ({"optimizer"} if _state_kind(config) == _state_kind(checkpoint.config) else set())
    settings = config.settings()
    chosen = {name: settings[name] for name in {**(checkpoint.continued_with or {}), **changes} if name in settings}
    return replace(
        checkpoint,
        config=config,
        tensors={name: tensor for name, tensor in checkpoint.tensors.items() if name.split(".")[0] in usable},
        state={"schedule_from": done, "scaler": checkpoint.state.get("scaler", {}), "continued_with": chosen},
    )


def _state_kind(config: TrainConfig) -> tuple[str, bool, bool, bool]:
    """Returns a key that is equal for two configs if their optimizers keep the same tensors."""
    has_momentum = config.momentum is not None and bool(config.momentum or config.cycle_momentum)
    return config.optimizer, has_momentum, bool(config.amsgrad), bool(config.centered)


def checkpoint_of(learner: Learner, *, epoch: int, with_gradients: bool) -> CheckpointReady:
    """Returns the learner's state at the end of `epoch`.

    `with_gradients` says whether to include its gradients, which a resumed run needs if the next batch adds to them.
    """
    names = [name for name, _ in learner.model.named_parameters()]
    state = learner.optimizer.state_dict()
    tensors = {
        f"optimizer.{names[index]}.{key}": value
        for index, values in state["state"].items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }
    if with_gradients:
        gradients = {f"gradient.{name}": p.grad for name, p in learner.model.named_parameters()}
        tensors |= {name: gradient for name, gradient in gradients.items() if gradient is not None}
    return CheckpointReady(
        epoch=epoch,
        model_config=learner.model.config,
        model=_to_bytes(learner.model.state_dict()),
        training=_to_bytes(tensors),
        state={
            "schedule_from": learner.schedule_from,
            "optimizer": [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]],
            "scheduler": _json_part(copy.deepcopy(learner.scheduler.state_dict())),
            "scaler": learner.scaler.state_dict(),
        },
    )


def restore(learner: Learner, checkpoint: Checkpoint) -> None:
    """Copies the checkpoint's state into a new learner; training it leaves the checkpoint unchanged.

    Raises UserError if the state does not fit the learner: the files it was read from are not trusted.
    """
    try:
        learner.model.load_state_dict(checkpoint.weights)
        _restore_gradients(learner.model, checkpoint.tensors)
        _restore_optimizer(learner, checkpoint)
        if "scheduler" in checkpoint.state:
            saved = copy.deepcopy(checkpoint.state["scheduler"])  # torch removes entries from it
            learner.scheduler.load_state_dict(_merged(learner.scheduler.state_dict(), saved))
        learner.scaler.load_state_dict(checkpoint.state["scaler"])
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError("The checkpoint does not fit the run it belongs to: its files are damaged.") from error


def _restore_gradients(model: OptimizerLabModel, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        kind, parameter_name = name.split(".", 1)
        if kind == "gradient":
            parameter = model.get_parameter(parameter_name)
            parameter.grad = _laid_out_as(parameter, tensor)


def _restore_optimizer(learner: Learner, checkpoint: Checkpoint) -> None:
    optimizer, initial = learner.optimizer, learner.optimizer.state_dict()
    groups = initial["param_groups"]
    if "optimizer" in checkpoint.state:
        saved = checkpoint.state["optimizer"]
        groups = [_merged(group, _with_tuples(its)) for group, its in zip(groups, saved, strict=True)]
    # If no tensors are saved, keep the initial ones: Adagrad has some before its first step.
    state = _optimizer_state(learner, checkpoint.tensors) or initial["state"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for values in optimizer.state.values():
        # load_state_dict moves scalars to the device, and each step would wait for the device to read them.
        scalars = {key: value for key, value in values.items() if isinstance(value, Tensor) and not value.dim()}
        values.update({key: value.cpu() for key, value in scalars.items()})


def _optimizer_state(learner: Learner, tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Returns copies of the optimizer's tensors by parameter index and name, as in the state_dict of torch.

    Raises AttributeError, KeyError or TypeError if they do not fit the learner.
    """
    model = learner.model
    indices = {name: index for index, (name, _) in enumerate(model.named_parameters())}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, rest = name.split(".", 1)
        if kind == "gradient":
            continue
        parameter_name, key = rest.rsplit(".", 1)
        parameter = model.get_parameter(parameter_name)
        if tensor.dtype != torch.float32 or tensor.shape not in ((), parameter.shape):
            raise TypeError(f"{name} has another type or shape than its parameter")
        # Scalars are copied too: torch uses Adam's `step` as it gets it and increments it in place, and the
        # checkpoint may be saved again.
        copied = _laid_out_as(parameter, tensor) if tensor.dim() else tensor.clone()
        state.setdefault(indices[parameter_name], {})[key] = copied
    names = _state_names(learner.optimizer) if state else set()
    if state and (len(state) < len(indices) or any(values.keys() != names for values in state.values())):
        raise KeyError("the optimizer's tensors are incomplete, or not its own")
    return state


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Returns a copy on the parameter's device and in its memory format; in another one each step would take longer."""
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _state_names(optimizer: torch.optim.Optimizer) -> set[str]:
    """Returns the names of the tensors that this optimizer keeps for a parameter after its first step."""
    probe = torch.nn.Parameter(torch.zeros(1))
    probe.grad = torch.zeros(1)
    options = {name: optimizer.param_groups[0][name] for name in optimizer.defaults}
    same_kind = type(optimizer)([{"params": [probe], **options}])  # type: ignore[call-arg]
    same_kind.step()
    return {name for name, value in same_kind.state[probe].items() if isinstance(value, Tensor)}


def _to_bytes(tensors: dict[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _json_part(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the entries of a scheduler's state that JSON can hold; build_scheduler creates the others again."""
    part = {key: value for key, value in state.items() if _is_plain(value)}
    if "_schedulers" in state:
        part["_schedulers"] = [_json_part(inner) for inner in state["_schedulers"]]
    return part


def _is_plain(value: Any) -> bool:
    if type(value) is list:
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))


def _merged(current: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """Returns the current entries, replaced by the saved ones.

    Raises KeyError for a saved entry that is not among the current ones, TypeError for one of another type.
    """
    if "_schedulers" in saved:
        pairs = zip(current["_schedulers"], saved["_schedulers"], strict=True)
        saved = {**saved, "_schedulers": [_merged(*pair) for pair in pairs]}
    for name, value in saved.items():
        if _kind(value) is not _kind(current[name]):
            raise TypeError(name)
    return {**current, **saved}


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _with_tuples(group: dict[str, Any]) -> dict[str, Any]:
    """Returns the entries of a parameter group with JSON's lists as torch's tuples, such as betas."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in group.items()}
