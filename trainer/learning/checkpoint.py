"""Checkpoint: what a run resumes from, in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from trainer.errors import UserError
from trainer.learning.schedulers import spans_run
from trainer.runs.events import EpochEnded
from trainer.runs.run import Curve, Run
from trainer.settings.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state at the end of an epoch, as `train(resume=…)` takes it up."""

    config: TrainConfig
    data: Mapping[str, Any]  # name, source, revision and digest of the images
    history: tuple[EpochEnded, ...]
    weights: Mapping[str, torch.Tensor]
    tensors: Mapping[str, torch.Tensor]  # "optimizer.<parameter>.<name>" and "gradient.<parameter>"
    state: Mapping[str, Any]  # see CheckpointReady; "continued_with" only until the first epoch with it has ended
    curve: Curve  # within the epochs that have ended

    @property
    def epoch(self) -> int:
        """Epochs ended."""
        return self.history[-1].epoch

    @property
    def schedule_from(self) -> int:
        """The epoch after which the schedule began; 0 unless a continuation chose a new one."""
        return self.state["schedule_from"]

    @property
    def continued_with(self) -> Mapping[str, Any] | None:
        """Settings chosen anew with which no epoch has ended yet; None where there are none."""
        return self.state.get("continued_with")


def resumed(checkpoint: Checkpoint) -> Run:
    """The run as it goes on from a checkpoint: its settings, its history and its curves so far."""
    curve = replace(checkpoint.curve, points=list(checkpoint.curve.points))
    return Run(config=checkpoint.config, history=list(checkpoint.history), curve=curve)


def continued(checkpoint: Checkpoint, *, epochs: int | None, changes: Mapping[str, Any]) -> Checkpoint:
    """Returns the checkpoint to resume a run from, with `changes` to its settings and trained up to `epochs` in total.

    `epochs` None keeps the run's own number. Without changes the run continues exactly as if it had never stopped. With
    changes, also with those of an earlier continuation that has not ended an epoch yet, the schedule starts anew and
    covers the remaining epochs.

    Raises UserError if no epochs remain, or if more epochs are wanted from a schedule that covered the whole run
    and is finished.
    """
    config, done = checkpoint.config, checkpoint.epoch
    total = config.epochs if epochs is None else epochs
    config = replace(config, epochs=total)
    if total <= done:
        raise UserError(
            "This run has trained {done} epochs already; ask for more than that to go on.",
            done=done,
        )
    if not changes and not checkpoint.continued_with:
        if spans_run(checkpoint.config) and total != checkpoint.config.epochs:
            raise UserError(
                "The {scheduler} schedule of this run was as long as the run, and is spent; choose the "
                "scheduler to go on with, for example constant and a small lr.",
                scheduler=config.scheduler,
            )
        return replace(checkpoint, config=config)
    config = checkpoint.config.changed({**changes, "epochs": total})
    kept = {"gradient"} | ({"optimizer"} if _kind_of_state(config) == _kind_of_state(checkpoint.config) else set())
    settings = config.settings()
    chosen = {name: settings[name] for name in {**(checkpoint.continued_with or {}), **changes} if name in settings}
    return replace(
        checkpoint,
        config=config,
        tensors={name: tensor for name, tensor in checkpoint.tensors.items() if name.split(".")[0] in kept},
        state={"schedule_from": done, "scaler": checkpoint.state.get("scaler", {}), "continued_with": chosen},
    )


def _kind_of_state(config: TrainConfig) -> tuple[str, bool, bool, bool]:
    """The optimizer, and what makes it keep a tensor more, which it would look for in vain in a state without."""
    has_momentum = config.momentum is not None and bool(config.momentum or config.cycle_momentum)
    return config.optimizer, has_momentum, bool(config.amsgrad), bool(config.centered)
