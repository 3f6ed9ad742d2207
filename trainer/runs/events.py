"""The events of a training, small and picklable, and their rows in the public stream. Standard library only."""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class StepLogged:
    """One batch. `step` counts batches from 1 over the whole run; `loss` is the batch's mean before its step."""

    epoch: int
    step: int
    num_steps: int  # of the whole run
    loss: float
    lr: float
    grad_norm: float  # the L2 norm of all gradients together, before the batch's step
    epoch_seconds: float  # since the epoch began


@dataclass(frozen=True, kw_only=True, slots=True)
class LayersMeasured:
    """Statistics of the layers in the update of one step, each with a value for each layer in the network's order.

    A value is None if it is not finite, or if the layer has no ReLU. The event has no row in the public stream.
    """

    epoch: int
    step: int  # counted as in StepLogged
    epochs_passed: float  # after the step, such as 2.25
    layers: tuple[str, ...]  # their names
    weight_norm: tuple[float | None, ...]  # the L2 norm before the update
    grad_norm: tuple[float | None, ...]  # the L2 norm of the gradient that the update was made from
    update_ratio: tuple[float | None, ...]  # the L2 norm of the update divided by that of the weights
    inactive: tuple[float | None, ...]  # 0–1: the share of ReLUs that no picture of the batch made active


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationLogged:
    """Progress of the evaluation at an epoch's end: the `fraction` done, 0–1. It has no row in the public stream."""

    epoch: int
    fraction: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochEnded:
    """One row of the history. Epoch 0 is the untrained network, for which the figures of training are None."""

    epoch: int
    train_loss: float | None  # mean over the batches, each before its step
    train_loss_sum: float | None  # sum over the batches, which the tutorial prints
    test_loss: float
    test_accuracy: float  # 0–1
    lr: float | None  # of the epoch's last step
    grad_norm: float | None  # mean over the batches with a finite one
    seconds: float  # of the epoch with its evaluation
    images_per_second: float | None  # of the training without its evaluation
    continued_with: dict[str, Any] | None = None  # settings that a resume changed before this epoch
    holdout_loss: float | None = None  # on the training images that are kept aside; None without any
    holdout_accuracy: float | None = None  # 0–1
    test_share: float = 1.0  # above 0, up to 1: the part of the test images that was evaluated
    # 0–1, by class, after the run's last epoch; None for a class without test images, and after other epochs
    class_accuracy: dict[str, float | None] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointReady:
    """All that resuming after `epoch` needs, as bytes and plain data; nothing is written to disk yet."""

    epoch: int
    model_config: dict[str, Any]  # config.json
    model: bytes  # model.safetensors
    training: bytes  # training.safetensors
    state: dict[str, Any]  # `schedule_from`, `threads`, and optimizer, scheduler and scaler without their tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The last event. `reason` is one of REASONS; `advice` is a sentence on what usually helps, or empty."""

    reason: str
    advice: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuTime:
    """Seconds of a borrowed GPU: used so far, and estimated for the rest of the run or race.

    It has no row in the public stream.
    """

    used_seconds: float
    left_seconds: float


# `interrupted`: the process that trained ended before the run did.
REASONS = ("completed", "stopped", "diverged", "out_of_time", "interrupted")

Event = StepLogged | LayersMeasured | EvaluationLogged | EpochEnded | CheckpointReady | GpuTime | Finished


def json_fields(instance: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass instance for strict JSON: NaN and infinities become None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(instance).items()
    }


def row(event: Event, checkpoint: str | None) -> dict[str, Any] | None:
    """Returns the event as a row of the public stream (`--json`, `/train`), or None if the stream leaves it out.

    `checkpoint` is where a reader of the stream finds the run: its folder on the command line, its key in the API, None
    if nothing could be saved.
    """
    match event:
        case StepLogged():
            return {"event": "step", **json_fields(event)}
        case EpochEnded():
            return {"event": "epoch", **json_fields(event)}
        case CheckpointReady():
            return {"event": "checkpoint", "epoch": event.epoch, "checkpoint": checkpoint}
        case Finished():
            return {"event": "finished", **json_fields(event), "checkpoint": checkpoint}
    return None
