"""What training says while it runs: small picklable facts. Standard library only."""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class StepLogged:
    """One batch. `step` counts batches from 1 over the whole run; `loss` is the batch's mean, as it went in."""

    epoch: int
    step: int
    num_steps: int  # of the whole run
    loss: float
    lr: float
    grad_norm: float
    epoch_seconds: float  # since this epoch began


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationLogged:
    """How far the evaluation at an epoch's end has come, 0–1. Only a sign of life: it is no row of any history."""

    epoch: int
    fraction: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochEnded:
    """One row of the history. Epoch 0 is the untrained network, where training has nothing to say."""

    epoch: int
    train_loss: float | None  # mean over batches, as training went
    train_loss_sum: float | None  # sum over batches, what the tutorial prints
    test_loss: float
    test_accuracy: float  # 0–1
    lr: float | None  # of the epoch's last step
    grad_norm: float | None  # mean over the batches where it is finite
    seconds: float  # the whole epoch, evaluation included
    images_per_second: float | None  # training alone
    continued_with: dict[str, Any] | None = None  # settings chosen anew where a resumed run's epochs begin


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointReady:
    """Everything a resume needs at the end of `epoch`, as bytes and plain data; nothing is written yet."""

    epoch: int
    model_config: dict[str, Any]  # config.json
    model: bytes  # model.safetensors
    training: bytes  # training.safetensors
    state: dict[str, Any]  # what of the optimizer, the scheduler and the scaler are not tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The last event. `reason` is one of REASONS; `advice` says in plain words what usually helps, if anything."""

    reason: str
    advice: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuTime:
    """Seconds of a GPU that is lent by the second: used so far, and those that are to come, as estimated. No row."""

    used_seconds: float
    left_seconds: float


REASONS = ("completed", "stopped", "diverged", "out_of_time")

Event = StepLogged | EvaluationLogged | EpochEnded | CheckpointReady | GpuTime | Finished


def plain(fact) -> dict[str, Any]:
    """The fields of an event as JSON takes them: numbers that are not finite become None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(fact).items()
    }


def row(event: Event, checkpoint: str | None) -> dict[str, Any] | None:
    """The event as a row of the public stream (`--json`, `/train`); None for what the stream leaves out.

    `checkpoint` is where the caller's reader finds the run: a folder on the command line, a run's key in the API; None
    where nothing could be saved.
    """
    match event:
        case StepLogged():
            return {"event": "step", **plain(event)}
        case EpochEnded():
            return {"event": "epoch", **plain(event)}
        case CheckpointReady():
            return {"event": "checkpoint", "epoch": event.epoch, "checkpoint": checkpoint}
        case Finished():
            return {"event": "finished", **plain(event), "checkpoint": checkpoint}
    return None
