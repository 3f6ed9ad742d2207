"""Run: what is known of a training so far, folded from its events. Standard library only."""

from dataclasses import dataclass, field
from typing import NamedTuple

from trainer.config import TrainConfig
from trainer.events import EpochEnded, EvaluationLogged, Event, Finished, StepLogged

# `interrupted` is what a run reads as when its process went away without a last word.
STATUSES = ("training", "completed", "stopped", "diverged", "out_of_time", "interrupted")

_MOST_POINTS = 800  # more than a plot has pixels for
_SMOOTHING = 0.96


class Point(NamedTuple):
    """A batch as a plot within the epochs shows it."""

    epochs: float  # passed, counting the part of the one in progress
    loss: float
    smoothed: float
    lr: float


@dataclass(kw_only=True)
class Run:
    """Curves, status and progress of one run. `apply` is the only thing that changes it, and reads no clock."""

    config: TrainConfig
    history: list[EpochEnded] = field(default_factory=list)
    status: str = "training"
    advice: str = ""
    warning: str = ""  # what the user should know now, such as a disk that takes no checkpoint
    steps: list[Point] = field(default_factory=list)  # within the epochs; thinned evenly where there are many
    last_step: StepLogged | None = None
    evaluated: float = 0.0  # 0–1: how far the evaluation at the end of the epoch in progress has come
    _smoothed: tuple[float, float] = (0.0, 0.0)
    _stride: int = 1

    def apply(self, event: Event) -> None:
        """Takes one event in. A CheckpointReady changes nothing: it is about files."""
        match event:
            case StepLogged():
                self._add_step(event)
            case EvaluationLogged():
                self.evaluated = event.fraction
            case EpochEnded():
                self.history.append(event)
                self.evaluated = 0.0
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
    def seconds_left(self) -> float | None:
        """Seconds until the last epoch ends, from the last epoch's pace; None while there is no pace yet."""
        trained = [row for row in self.history if row.epoch > 0]
        if trained:
            pace = trained[-1].seconds
        elif self.last_step is not None and self.last_step.epoch_seconds > 0.5:
            pace = self.last_step.epoch_seconds / self._part_of_epoch(self.last_step)
        else:
            return None
        return max(0.0, self.config.epochs - self.epochs_passed) * pace

    def _part_of_epoch(self, step: StepLogged) -> float:
        per_epoch = step.num_steps / self.config.epochs
        return min(1.0, (step.step - (step.epoch - 1) * per_epoch) / per_epoch)

    def _add_step(self, step: StepLogged) -> None:
        self.last_step = step
        # An exponential mean without its bias towards 0 (Kingma & Ba 2015, §3).
        total, weight = self._smoothed
        total = _SMOOTHING * total + (1 - _SMOOTHING) * step.loss
        weight = _SMOOTHING * weight + (1 - _SMOOTHING)
        self._smoothed = (total, weight)
        if step.step % self._stride == 0 or not self.steps:
            passed = step.epoch - 1 + self._part_of_epoch(step)
            self.steps.append(Point(passed, step.loss, total / weight, step.lr))
        if len(self.steps) > _MOST_POINTS:
            self.steps = self.steps[::2]
            self._stride *= 2
