"""Checkpoint, the state that a run resumes from, and functions that save and restore a learner's state."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from trainer.errors import Message, UserError
from trainer.learning.learner import Learner
from trainer.learning.optimizers.state import COUNTS_IN_GROUPS, groups_of, is_plain, kind_of, tensors_of
from trainer.learning.optimizers.state import restore as restore_optimizer
from trainer.learning.schedulers import spans_run, steps_between
from trainer.networks.model import OptimizerLabModel
from trainer.runs.events import CheckpointReady, EpochEnded, LayersMeasured
from trainer.runs.run import Curve, Run
from trainer.settings.config import TrainConfig

# What a step changes in the state of a torch scheduler.
_CHANGED_BY_STEPS = {
    "last_epoch", "_step_count", "_last_lr", "_is_initial", "_get_lr_called_within_step",
    "best", "num_bad_epochs", "cooldown_counter", "_schedulers",
}  # fmt: skip


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
    keeps_all: bool = False  # whether the run keeps the weights of all its epochs
    layers: tuple[LayersMeasured, ...] = ()  # up to the end of the last epoch
    name: str = ""  # what the run's owner calls it

    @property
    def epoch(self) -> int:
        """The number of epochs that have ended."""
        return self.history[-1].epoch

    @property
    def schedule_from(self) -> int:
        """The epoch after which the schedule starts: 0, unless a continuation changed settings later."""
        return self.state["schedule_from"]

    @property
    def threads(self) -> int | None:
        """The number of threads that the last epoch was computed with; None if it is not known, or on a GPU."""
        return self.state.get("threads")

    @property
    def continued_with(self) -> dict[str, Any] | None:
        """The settings changed by a continuation in which no epoch has ended yet; None if there is none."""
        return self.state.get("continued_with")


def thread_notice(before: int | None, now: int | None) -> str:
    """Returns a sentence for a run that continues with another number of threads; "" if it is the same, or unknown."""
    if before is None or now is None or before == now:
        return ""
    return Message(
        "This run was trained with {before} threads before and goes on with {now}: its results may differ, from the "
        "last digits on, from those of an uninterrupted run.",
        before=before,
        now=now,
    )


class SpentScheduleError(UserError):
    """A run cannot go on with its schedule, which covers exactly the epochs that it has trained."""


def resumed(checkpoint: Checkpoint) -> Run:
    """Returns a new Run that continues from a checkpoint, with its settings, history, curve and layers so far."""
    curve = replace(checkpoint.curve, points=list(checkpoint.curve.points))
    return Run(
        config=checkpoint.config,
        name=checkpoint.name,
        history=list(checkpoint.history),
        curve=curve,
        layers=list(checkpoint.layers),
    )


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
    # Some optimizers count their progress in the parameter groups, which new settings replace: they start afresh.
    keeps_state = config.optimizer not in COUNTS_IN_GROUPS and _state_kind(config) == _state_kind(checkpoint.config)
    usable = {"gradient", "optimizer"} if keeps_state else {"gradient"}
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
    tensors = {f"optimizer.{name}": tensor for name, tensor in tensors_of(learner.optimizer, learner.model).items()}
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
            "optimizer": groups_of(learner.optimizer),
            "scheduler": _json_part(copy.deepcopy(learner.scheduler.state_dict())),
            "scaler": learner.scaler.state_dict(),
            "threads": torch.get_num_threads() if learner.model.mean.device.type == "cpu" else None,
        },
    )


def restore(learner: Learner, checkpoint: Checkpoint, *, batches_per_epoch: int) -> None:
    """Copies the checkpoint's state into a new learner; training it leaves the checkpoint unchanged.

    Raises UserError if the state does not fit the learner: the files it was read from are not trusted.
    """
    steps = steps_between(
        checkpoint.config, checkpoint.schedule_from, checkpoint.epoch, batches_per_epoch=batches_per_epoch
    )
    try:
        learner.model.load_state_dict(checkpoint.weights)
        tensors = {
            name.removeprefix("optimizer."): tensor
            for name, tensor in checkpoint.tensors.items()
            if name.startswith("optimizer.")
        }
        restore_optimizer(learner.optimizer, learner.model, tensors, checkpoint.state.get("optimizer"))
        _restore_gradients(learner.model, checkpoint.tensors)
        if "scheduler" in checkpoint.state:
            saved = copy.deepcopy(checkpoint.state["scheduler"])  # torch removes entries from it
            learner.scheduler.load_state_dict(_merged(learner.scheduler.state_dict(), saved, steps))
        learner.scaler.load_state_dict(checkpoint.state["scaler"])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # each optimizer refuses a foreign state in its own way
        raise UserError("training.json or training.safetensors is damaged: its state does not fit the run.") from error


def _restore_gradients(model: OptimizerLabModel, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        kind, parameter_name = name.split(".", 1)
        if kind == "gradient":
            parameter = model.get_parameter(parameter_name)
            # In another memory format each step would take longer.
            parameter.grad = torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _to_bytes(tensors: dict[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _json_part(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the entries of a scheduler's state that JSON can hold; build_scheduler creates the others again."""
    part = {key: value for key, value in state.items() if is_plain(value)}
    if "_schedulers" in state:
        part["_schedulers"] = [_json_part(inner) for inner in state["_schedulers"]]
    return part


def _merged(current: dict[str, Any], saved: dict[str, Any], steps: int) -> dict[str, Any]:
    """Returns the current entries of a scheduler that has taken no step, replaced by the saved ones after `steps`.

    Raises KeyError for a saved entry that is not among the current ones, TypeError for one of another type, ValueError
    for one that differs although no step changes it, or if the saved scheduler has not taken that many steps.
    """
    if "_schedulers" in saved:
        (warmup, main), (saved_warmup, saved_main) = current["_schedulers"], saved["_schedulers"]
        (num_warmup,) = current["_milestones"]
        inner = [
            _merged(warmup, saved_warmup, min(steps, num_warmup - 1)),
            _merged(main, saved_main, max(steps - num_warmup, -1)),
        ]
        saved = {**saved, "_schedulers": inner}
    for name, value in saved.items():
        if kind_of(value) is not kind_of(current[name]):
            raise TypeError(name)
        # JSON has lists for tuples.
        if name not in _CHANGED_BY_STEPS and _json_part({name: value}) != _json_part({name: current[name]}):
            raise ValueError(name)
    if saved["last_epoch"] != steps:
        raise ValueError(steps)
    return {**current, **saved}
