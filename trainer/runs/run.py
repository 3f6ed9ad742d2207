"""Run: the curves, status and progress of a training, folded from its events. Standard library only."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from trainer.runs.events import REASONS, EpochEnded, EvaluationLogged, Event, Finished, GpuTime, StepLogged
from trainer.settings.config import TrainConfig

STATUSES = ("training", *REASONS)

_MOST_POINTS = 800  # a plot has no pixels for more
_SMOOTHING = 0.96
_SECONDS_TO_WARM_UP = 0.5


class Point(NamedTuple):
    """One batch in the plot of batches."""

    epochs: float  # that had passed after the batch, such as 2.25
    loss: float
    smoothed: float
    lr: float
    grad_norm: float


@dataclass(kw_only=True)
class Curve:
    """The batches in the plot of batches: every `stride`-th one, so that there are at most _MOST_POINTS."""

    points: list[Point] = field(default_factory=list)
    stride: int = 1  # doubles whenever there are too many points
    total: float = 0.0  # the weighted sum of the losses so far, for the smoothed loss
    weight: float = 0.0  # the sum of their weights

    def add(self, step: StepLogged, epochs: float) -> None:
        """Adds a batch; `epochs` is the number of epochs that have passed after it."""
        # An exponential moving average, corrected for its bias towards 0 (Kingma & Ba 2015, §3).
        self.total = _SMOOTHING * self.total + (1 - _SMOOTHING) * step.loss
        self.weight = _SMOOTHING * self.weight + (1 - _SMOOTHING)
        # The batch at which the loss diverged must be visible, whatever the stride.
        if step.step % self.stride == 0 or not self.points or not math.isfinite(step.loss):
            self.points.append(Point(epochs, step.loss, self.total / self.weight, step.lr, step.grad_norm))
        if len(self.points) > _MOST_POINTS:
            self.points = self.points[::2]
            self.stride *= 2


@dataclass(kw_only=True)
class Run:
    """Curves, status and progress of one run. Only `apply` changes it; it reads no clock."""

    config: TrainConfig
    history: list[EpochEnded] = field(default_factory=list)
    status: str = "training"
    advice: str = ""  # the last event's advice: what usually helps, or ""
    warning: str = ""  # a sentence for the user, such as that the disk is full; "" if there is none
    curve: Curve = field(default_factory=Curve)
    last_step: StepLogged | None = None
    early_step: StepLogged | None = None  # of the same epoch, from which the pace is measured
    evaluated: float = 0.0  # 0–1, of the evaluation at the end of the current epoch
    gpu_time: GpuTime | None = None  # of a GPU that is borrowed by the second

    def apply(self, event: Event) -> None:
        """Updates the run from an event. A CheckpointReady, which concerns files, changes nothing."""
        match event:
            case StepLogged():
                self._measure_from(event)
                self.curve.add(event, event.epoch - 1 + self._epoch_fraction(event))
                self.last_step = event
            case EvaluationLogged():
                self.evaluated = event.fraction
            case EpochEnded():
                self.history.append(event)
                self.evaluated = 0.0
            case GpuTime():
                self.gpu_time = event
            case Finished():
                self.status, self.advice = event.reason, event.advice

    @property
    def epoch(self) -> int:
        """The number of the last epoch that ended; 0 is the untrained network."""
        return self.history[-1].epoch if self.history else 0

    @property
    def best(self) -> EpochEnded | None:
        """The epoch with the highest test accuracy; of equal ones, the earliest. None before epoch 0 ends."""
        return max(self.history, key=lambda row: row.test_accuracy, default=None)

    @property
    def epochs_passed(self) -> float:
        """The number of epochs that have passed, with the trained fraction of the current one, such as 2.25."""
        if self.last_step is None or self.last_step.epoch <= self.epoch:
            return float(self.epoch)
        return self.epoch + self._epoch_fraction(self.last_step)

    @property
    def diverged_at(self) -> float | None:
        """Epochs passed when the loss became NaN or infinite; None if the run did not diverge."""
        if self.status != "diverged":
            return None
        return max([float(self.epoch), *(point.epochs for point in self.curve.points[-1:])])

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last epoch and its evaluation end, at the latest pace; None before a pace is known."""
        # Epoch 0 is an evaluation only, on a part of the images, but it may also wait for a GPU to wake.
        testing = self.history[0].seconds / self.history[0].test_share if self.history else 0.0
        if self.epoch:
            testing = min(testing, self.history[-1].seconds)
            training = max(0.0, self.history[-1].seconds - testing)
        elif (first := self.early_step) and (last := self.last_step) and last.epoch_seconds > first.epoch_seconds + 1:
            fraction = self._epoch_fraction(last) - self._epoch_fraction(first)
            training = (last.epoch_seconds - first.epoch_seconds) / fraction
        else:
            return None
        to_train, to_test = self.config.epochs - self.epochs_passed, self.config.epochs - self.epoch - self.evaluated
        return max(0.0, to_train) * training + max(0.0, to_test) * testing

    def _measure_from(self, step: StepLogged) -> None:
        """Keeps the first batch of an epoch after the slow ones with which a device starts."""
        if self.early_step is None or self.early_step.epoch != step.epoch:
            self.early_step = step if step.epoch_seconds > _SECONDS_TO_WARM_UP else None

    def _epoch_fraction(self, step: StepLogged) -> float:
        per_epoch = step.num_steps / self.config.epochs
        return min(1.0, (step.step - (step.epoch - 1) * per_epoch) / per_epoch)


def is_training(runs: Iterable[Run]) -> bool:
    """Whether any of the runs, such as those of a race, is still training."""
    return any(run.status == "training" for run in runs)
