"""Run: what is known of a training so far, folded from its events. Standard library only."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from trainer.runs.events import REASONS, EpochEnded, EvaluationLogged, Event, Finished, GpuTime, StepLogged
from trainer.settings.config import TrainConfig

# `interrupted` is what a run reads as when its process went away without a last word.
STATUSES = ("training", *REASONS, "interrupted")

_MOST_POINTS = 800  # more than a plot has pixels for
_SMOOTHING = 0.96


class Point(NamedTuple):
    """A batch as a plot within the epochs shows it."""

    epochs: float  # passed, counting the part of the one in progress
    loss: float
    smoothed: float
    lr: float
    grad_norm: float


@dataclass(kw_only=True)
class Curve:
    """The batches as a plot within the epochs shows them, thinned evenly where there are many."""

    points: list[Point] = field(default_factory=list)
    stride: int = 1  # every so manyth batch is a point
    total: float = 0.0  # of the smoothed loss: the weighted sum of the losses so far
    weight: float = 0.0  # and the sum of their weights

    def add(self, step: StepLogged, epochs: float) -> None:
        """Takes a batch in, after which `epochs` have passed."""
        # An exponential mean without its bias towards 0 (Kingma & Ba 2015, §3).
        self.total = _SMOOTHING * self.total + (1 - _SMOOTHING) * step.loss
        self.weight = _SMOOTHING * self.weight + (1 - _SMOOTHING)
        # The batch that broke the network is the one to see, wherever it falls.
        if step.step % self.stride == 0 or not self.points or not math.isfinite(step.loss):
            self.points.append(Point(epochs, step.loss, self.total / self.weight, step.lr, step.grad_norm))
        if len(self.points) > _MOST_POINTS:
            self.points = self.points[::2]
            self.stride *= 2


@dataclass(kw_only=True)
class Run:
    """Curves, status and progress of one run. `apply` is the only thing that changes it, and reads no clock."""

    config: TrainConfig
    history: list[EpochEnded] = field(default_factory=list)
    status: str = "training"
    advice: str = ""
    warning: str = ""  # what the user should know now, such as a disk that takes no checkpoint
    curve: Curve = field(default_factory=Curve)
    last_step: StepLogged | None = None
    evaluated: float = 0.0  # 0–1: how far the evaluation at the end of the epoch in progress has come
    gpu_time: GpuTime | None = None  # where the GPU is lent by the second

    def apply(self, event: Event) -> None:
        """Takes one event in. A CheckpointReady changes nothing: it is about files."""
        match event:
            case StepLogged():
                self.last_step = event
                self.curve.add(event, event.epoch - 1 + self._part_of_epoch(event))
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
        """Epochs ended; 0 where only the untrained network is known."""
        return self.history[-1].epoch if self.history else 0

    @property
    def best(self) -> EpochEnded | None:
        """The epoch with the highest test accuracy, the earliest of equals."""
        return max(self.history, key=lambda row: row.test_accuracy, default=None)

    @property
    def epochs_passed(self) -> float:
        """Epochs ended and the part done of the one in progress, as the progress bar shows them."""
        if self.last_step is None or self.last_step.epoch <= self.epoch:
            return float(self.epoch)
        return self.epoch + self._part_of_epoch(self.last_step)

    @property
    def diverged_at(self) -> float | None:
        """Epochs passed when the loss was no number any more; None where it always was one."""
        if self.status != "diverged":
            return None
        return max([float(self.epoch), *(point.epochs for point in self.curve.points[-1:])])

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last epoch ends and is tested, at the latest pace; None while there is no pace yet."""
        # All that is done in epoch 0; which also waits for a GPU to wake.
        testing = min(self.history[0].seconds, self.history[-1].seconds) if self.history else 0.0
        if self.epoch:
            training = max(0.0, self.history[-1].seconds - testing)
        elif self.last_step is not None and self.last_step.epoch_seconds > 0.5:
            training = self.last_step.epoch_seconds / self._part_of_epoch(self.last_step)
        else:
            return None
        to_train, to_test = self.config.epochs - self.epochs_passed, self.config.epochs - self.epoch - self.evaluated
        return max(0.0, to_train) * training + max(0.0, to_test) * testing

    def _part_of_epoch(self, step: StepLogged) -> float:
        per_epoch = step.num_steps / self.config.epochs
        return min(1.0, (step.step - (step.epoch - 1) * per_epoch) / per_epoch)


def is_training(runs: Iterable[Run]) -> bool:
    """Whether any of some runs, such as a race's, goes on."""
    return any(run.status == "training" for run in runs)
