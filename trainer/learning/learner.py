"""Learner: all that changes while a network learns, to bytes and back."""

import copy
import math
import threading
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from trainer.errors import UserError
from trainer.images.image_data import ImageData, Split, pixel_statistics
from trainer.learning.checkpoint import Checkpoint
from trainer.learning.optimizers import build_optimizer
from trainer.learning.schedulers import build_scheduler
from trainer.networks.architectures import memory_format
from trainer.networks.model import OptimizerLabModel
from trainer.runs.events import CheckpointReady
from trainer.settings.config import TrainConfig

# fork_rng saves and restores the whole process's generator: two runs that start at once must not interleave there.
_INITIALIZING = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """A network with its torch optimizer, scheduler and gradient scaler (which does nothing but for float16)."""

    model: OptimizerLabModel
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    schedule_from: int  # the epoch after which the schedule began: 0, or where a resumed run chose a new one


def build_learner(
    config: TrainConfig,
    data: ImageData,
    split: Split,
    *,
    num_batches: int,
    device: torch.device,
    resume: Checkpoint | None,
) -> Learner:
    """The learner at its beginning, or as `resume` left it; ValueError where the two do not fit together."""
    model = build_model(config, data, split).to(device, memory_format=memory_format(device))
    optimizer = build_optimizer(config, model.parameters())
    schedule_from = resume.schedule_from if resume else 0
    learner = Learner(
        model=model,
        optimizer=optimizer,
        scheduler=build_scheduler(config, optimizer, num_batches=num_batches, after_epoch=schedule_from),
        scaler=torch.amp.GradScaler(device.type, enabled=config.precision == "float16"),
        schedule_from=schedule_from,
    )
    if resume:
        _restore(learner, resume)
    return learner


def build_model(config: TrainConfig, data: ImageData, split: Split) -> OptimizerLabModel:
    """The untrained network of a run: the same weights for the same seed, whatever else the process has drawn."""
    mean, std = pixel_statistics(split) if config.normalize else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with _INITIALIZING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        return OptimizerLabModel(
            architecture=config.model,
            activation=config.activation,
            softmax=config.softmax,
            class_names=list(data.class_names),
            image_size=split.images.shape[-1],
            mean=list(mean),
            std=[max(value, 1e-3) for value in std],  # pictures of one flat colour have no spread to divide by
        )


def checkpoint_of(learner: Learner, *, epoch: int, carry_gradients: bool) -> CheckpointReady:
    """The learner's state at the end of `epoch`; with its gradients where the next batch adds to them."""
    names = [name for name, _ in learner.model.named_parameters()]
    state = learner.optimizer.state_dict()
    tensors = {
        f"optimizer.{names[index]}.{key}": value
        for index, values in state["state"].items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }
    if carry_gradients:
        gradients = {f"gradient.{name}": p.grad for name, p in learner.model.named_parameters()}
        tensors |= {name: gradient for name, gradient in gradients.items() if gradient is not None}
    return CheckpointReady(
        epoch=epoch,
        model_config=learner.model.config,
        model=_bytes(learner.model.state_dict()),
        training=_bytes(tensors),
        state={
            "schedule_from": learner.schedule_from,
            "optimizer": [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]],
            "scheduler": _plain(copy.deepcopy(learner.scheduler.state_dict())),
            "scaler": learner.scaler.state_dict(),
        },
    )


def _restore(learner: Learner, kept: Checkpoint) -> None:
    model, optimizer = learner.model, learner.optimizer
    try:
        model.load_state_dict(kept.weights)
        places = {name: index for index, (name, _) in enumerate(model.named_parameters())}
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in kept.tensors.items():
            kind, rest = name.split(".", 1)
            if kind == "gradient":
                parameter = model.get_parameter(rest)
                parameter.grad = _like(parameter, tensor)
            else:
                place, key = rest.rsplit(".", 1)
                parameter = model.get_parameter(place)
                if tensor.dtype != torch.float32 or tensor.shape not in ((), parameter.shape):
                    raise UserError("{name} has another kind or shape than its parameter.", name=name)
                # A copy of scalars too: torch keeps Adam's `step` as it gets it and counts it up in place, and the
                # checkpoint may yet be saved again.
                state.setdefault(places[place], {})[key] = _like(parameter, tensor) if tensor.dim() else tensor.clone()
        if state and (
            len(state) < len(places) or any(values.keys() != _moments(optimizer) for values in state.values())
        ):
            raise UserError("Some of the optimizer's tensors are missing, or too many.")
        known = optimizer.state_dict()
        groups, state = known["param_groups"], state or known["state"]  # Adagrad has a state before its first step
        if "optimizer" in kept.state:
            groups = [_filled(group, _tuples(own)) for group, own in zip(groups, kept.state["optimizer"], strict=True)]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        for values in optimizer.state.values():
            # torch moves them to the device, and would wait for it at each step to read them.
            scalars = {key: value for key, value in values.items() if isinstance(value, Tensor) and not value.dim()}
            values.update({key: value.cpu() for key, value in scalars.items()})
        if "scheduler" in kept.state:
            scheduled = copy.deepcopy(kept.state["scheduler"])  # torch pops from it
            learner.scheduler.load_state_dict(_filled(learner.scheduler.state_dict(), scheduled))
        learner.scaler.load_state_dict(kept.state["scaler"])
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError("The checkpoint does not fit the run it belongs to: its files are damaged.") from error


def _like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A tensor on the parameter's device, lying in memory as it does: where they differ, each step takes longer."""
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _moments(optimizer: torch.optim.Optimizer) -> set[str]:
    """The names of the tensors that this kind of optimizer keeps for a parameter once it has taken a step."""
    probe = torch.nn.Parameter(torch.zeros(1))
    probe.grad = torch.zeros(1)
    taken = {name: optimizer.param_groups[0][name] for name in optimizer.defaults}
    stepped = type(optimizer)([{"params": [probe], **taken}])
    stepped.step()
    return {name for name, value in stepped.state[probe].items() if isinstance(value, Tensor)}


def _bytes(tensors: dict[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """What JSON keeps of a scheduler's state; the rest (a Counter, functions, infinity) its config rebuilds."""
    kept = {key: value for key, value in state.items() if _is_plain(value)}
    if "_schedulers" in state:
        kept["_schedulers"] = [_plain(part) for part in state["_schedulers"]]
    return kept


def _is_plain(value: Any) -> bool:
    if type(value) is list:
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))


def _filled(known: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """The kept entries over the known ones; KeyError or TypeError for an entry that nobody here would have written."""
    if "_schedulers" in kept:
        parts = zip(known["_schedulers"], kept["_schedulers"], strict=True)
        kept = {**kept, "_schedulers": [_filled(*part) for part in parts]}
    for name, value in kept.items():
        if _kind(value) is not _kind(known[name]):
            raise TypeError(name)
    return {**known, **kept}


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _tuples(group: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in group.items()}
