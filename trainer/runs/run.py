"""Run: the curves, status and progress of a training, folded from its events. Standard library only."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from trainer.errors import Message, UserError
from trainer.runs.events import (
    REASONS,
    EpochEnded,
    EvaluationLogged,
    Event,
    Finished,
    GpuTime,
    LayersMeasured,
    StepLogged,
)
from trainer.settings.config import TrainConfig

# An image's evaluation takes about a third of the time of training on it. If evaluating all test images would take more
# than half the time, all but the last epoch are evaluated on a part that takes a quarter. The untrained network is
# evaluated on the fewest, because it only guesses.
_TESTS_PER_IMAGE, FEWEST_TESTED = 3, 1000

STATUSES = ("training", *REASONS)

LONGEST_NAME = 60  # characters

_MOST_POINTS = 800  # a plot has no pixels for more
_SMOOTHING = 0.96
_SECONDS_TO_WARM_UP = 0.5
_MOST_NAMED = 12  # classes in a sentence


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
    name: str = ""  # what its owner calls it, as `checked_name` returns it; the runs of a race have the same
    history: list[EpochEnded] = field(default_factory=list)
    status: str = "training"
    advice: str = ""  # the last event's advice: what usually helps, or ""
    warning: str = ""  # a sentence for the user, such as that the disk is full; "" if there is none
    notice: str = ""  # a sentence for the user on how a resume differs from an uninterrupted run; "" if it does not
    curve: Curve = field(default_factory=Curve)
    layers: list[LayersMeasured] = field(default_factory=list)  # [] in a run that was read from its folder
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
            case LayersMeasured():
                self.layers.append(event)
            case EvaluationLogged():
                self.evaluated = event.fraction
            case EpochEnded():
                if self.history:  # so that a run that is resumed after its last epoch equals a longer one
                    self.history[-1] = replace(self.history[-1], class_accuracy=None)
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
        whole_test = self.history[0].seconds / self.history[0].test_share if self.history else 0.0
        if self.epoch:
            last_row = self.history[-1]
            whole_test = min(whole_test, last_row.seconds / last_row.test_share)
            training = last_row.seconds - last_row.test_share * whole_test
        elif (first := self.early_step) and (last := self.last_step) and last.epoch_seconds > first.epoch_seconds + 1:
            fraction = self._epoch_fraction(last) - self._epoch_fraction(first)
            training = (last.epoch_seconds - first.epoch_seconds) / fraction
        else:
            return None
        to_train, to_test = self.config.epochs - self.epochs_passed, self.config.epochs - self.epoch
        if to_test <= 0:
            return 0.0
        tests = 1 - self.evaluated if to_test == 1 else 1 + (to_test - 1 - self.evaluated) * self._test_share
        return to_train * training + tests * whole_test

    @property
    def _test_share(self) -> float:
        """The part of the test images that is evaluated after each epoch but the last, 0–1."""
        if self.epoch or self.last_step is None:
            return min((row.test_share for row in self.history[1:]), default=1.0)
        num_test_images = FEWEST_TESTED / self.history[0].test_share if self.history else 0.0
        in_batch = self.config.batch_size or self.config.num_images  # 0: of an unknown number
        images_per_epoch = self.last_step.num_steps / self.config.epochs * in_batch
        return num_tested(round(num_test_images), round(images_per_epoch)) / max(1, round(num_test_images))

    def _measure_from(self, step: StepLogged) -> None:
        """Keeps the first batch of an epoch after the slow ones with which a device starts."""
        if self.early_step is None or self.early_step.epoch != step.epoch:
            self.early_step = step if step.epoch_seconds > _SECONDS_TO_WARM_UP else None

    def _epoch_fraction(self, step: StepLogged) -> float:
        per_epoch = step.num_steps / self.config.epochs
        return min(1.0, (step.step - (step.epoch - 1) * per_epoch) / per_epoch)


def checked_name(name: Any) -> str:
    """Returns a name for a run, with single spaces, "" for none.

    Raises UserError if it has more than LONGEST_NAME characters, or any that are not visible, such as those that change
    the direction of writing.
    """
    text = " ".join(name[: 2 * LONGEST_NAME].split()) if isinstance(name, str) else "\0"
    if len(text) > LONGEST_NAME or not text.isprintable():
        raise UserError("A run's name has up to {most} visible characters.", most=LONGEST_NAME)
    return text


def by_class(ended: EpochEnded) -> str:
    """Returns a sentence on the test accuracy of each class, or of the lowest ones; "" after an epoch without it."""
    shares = [(name, share) for name, share in (ended.class_accuracy or {}).items() if share is not None]
    if not shares:
        return ""
    if len(shares) <= _MOST_NAMED:
        return Message("Accuracy of each class: {classes}.", classes=_listed(shares))
    lowest = sorted(shares, key=lambda named: named[1])[:_MOST_NAMED]
    return Message("Accuracy of the weakest classes: {classes}.", classes=_listed(lowest))


def _listed(shares: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares)


def is_training(runs: Iterable[Run]) -> bool:
    """Whether any of the runs, such as those of a race, is still training."""
    return any(run.status == "training" for run in runs)


def num_tested(num_test_images: int, images_per_epoch: int) -> int:
    """Returns the number of test images that are evaluated after each epoch but the last, which is on all of them."""
    chosen = max(images_per_epoch, FEWEST_TESTED)
    return num_test_images if num_test_images <= max(_TESTS_PER_IMAGE * images_per_epoch, chosen) else chosen
