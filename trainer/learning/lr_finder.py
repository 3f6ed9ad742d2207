"""The learning-rate range test, which suggests an lr for the other settings."""

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from trainer.errors import Message
from trainer.images.batches import passes
from trainer.images.image_data import ImageData, Split
from trainer.learning.learner import Learner, start_training, train_batch
from trainer.learning.loop import SECONDS_BETWEEN_YIELDS, prepare
from trainer.runs.events import json_fields
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS

_DECADES = 3  # that the ramp covers above and below the optimizer's default lr
_NUM_IMAGES = 25_600  # in the whole ramp, within the limits on its steps
_FEWEST_STEPS, _MOST_STEPS = 100, 3200
_MEMORY = 0.1  # the part of the ramp that the smoothed loss averages over, and that the initial loss is measured on
_CLEAR = 4.0  # standard errors of the start's mean: a smaller fall may be chance
_LEAST_FALL = 0.004  # of the initial loss: a smaller fall only reflects how often each class occurs
_EXPLODED = 1.5  # times the loss of the untrained network or of guessing, whichever is larger
_MARGIN = 3.0  # the ratio of the lr where divergence starts to the suggestion, at least


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One batch of the ramp. `step` counts batches from 1; `loss` is the batch's mean before the update."""

    step: int
    num_steps: int  # of the whole ramp, which ends early if the loss explodes
    lr: float
    loss: float
    smoothed: float  # the mean over about the last tenth of the ramp


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The result of the trials: the suggested lr, None if there is none, and the reason in one sentence."""

    suggestion: float | None
    diverges_at: float | None  # the lr where the loss starts to rise for good; None if it never does
    reason: str


def find_lr(config: TrainConfig, data: ImageData, *, device: str | torch.device = "cpu") -> Iterator[Trial | Finding]:
    """Runs the range test on a new network; yields each Trial, at least about once a second, and finally a Finding.

    The network is trained with the settings of `config`, as `train` does it, except for the schedule: lr rises from a
    thousandth of the optimizer's default to a thousand times the default, by the same factor at each optimizer step.
    The test ends early when the smoothed loss becomes NaN, or exceeds 1.5 times the larger of the first loss and the
    loss of guessing. Smith (2015,
    arXiv:1506.01186, section 3.3) raises lr by the same amount at each step; the factor and the early end are fastai's.
    The smoothed loss is an exponential moving average with bias correction (Kingma & Ba 2015, arXiv:1412.6980,
    section 3).

    The suggestion is the lr at which the smoothed loss has fallen halfway from its start (or from ln of the number of
    classes, the loss of guessing, if that is lower) to its minimum: about where it falls fastest. The loss crosses that
    level on a slope, so that the suggestion hardly depends on the seed; at the steepest point or the minimum, which
    others use, the curve is noisy or flat. Divergence starts where the loss rises above the same level for good, and
    the suggestion is at most a third of that lr. It suits a constant lr as well as the peak of a schedule. There is no
    suggestion if the fall may be chance or is below 0.4 %, or if gradients are never cleared; and no trial for Prodigy,
    which finds its own lr.

    Nothing is printed or written, and neither the environment nor any global random state is used. Raises UserError on
    the call, before the first trial, if the config does not fit the data or the device.
    """
    if config.optimizer == "prodigy":
        reason = Message("prodigy finds its own lr while it trains: leave lr at 1.")
        return iter([Finding(suggestion=None, diverges_at=None, reason=reason)])
    constant = config.unscheduled()
    split, learner = prepare(constant, data, device=torch.device(device), resume=None)
    return _find(constant, learner, split, len(data.class_names))


def num_trials(config: TrainConfig) -> int:
    """Returns the number of batches in the whole ramp, which ends early if the loss explodes."""
    batches_per_lr = _batches_per_lr(config)
    # Whatever the number of images is, a batch of all of them (batch_size 0) makes the fewest steps.
    images_per_lr = (config.batch_size or _NUM_IMAGES) * batches_per_lr
    num_lrs = min(max(_NUM_IMAGES // images_per_lr, _FEWEST_STEPS), _MOST_STEPS)
    return batches_per_lr * num_lrs


def row(event: Trial | Finding) -> dict[str, Any]:
    """Returns the trial or finding as a row of the public stream; numbers that are not finite become None."""
    return {"event": "trial" if isinstance(event, Trial) else "suggestion", **json_fields(event)}


def suggest(config: TrainConfig, trials: Sequence[Trial], num_classes: int) -> Finding:
    """Returns the Finding of a ramp's trials, of which there is at least one, by the rules of `find_lr`."""
    num_early = round(trials[0].num_steps * _MEMORY)  # trials at an lr too low to change anything
    initial = [trial.loss for trial in trials[:num_early] if math.isfinite(trial.loss)]
    start = min(statistics.fmean(initial or [math.inf]), math.log(num_classes))
    uncertainty = statistics.stdev(initial) / math.sqrt(len(initial)) if len(initial) > 1 else math.inf
    smoothed = [trial.smoothed if math.isfinite(trial.smoothed) else math.inf for trial in trials]
    lowest = min(range(min(num_early, len(trials) - 1), len(trials)), key=smoothed.__getitem__)
    has_learned = start - smoothed[lowest] > max(_CLEAR * uncertainty, _LEAST_FALL * start)
    level = (start + smoothed[lowest]) / 2 if has_learned else _ceiling(trials, num_classes)
    half_way = next((index + 1 for index in reversed(range(lowest)) if smoothed[index] > level), 0)
    diverging = next((index + 1 for index in reversed(range(len(trials))) if smoothed[index] <= level), 0)
    diverges_at = _rounded(trials[diverging].lr) if diverging < len(trials) else None

    suggestion = None
    if config.zero_grad_every == 0:
        reason = "Gradients that are never cleared grow until any lr diverges; set zero_grad_every to 1 first."
    elif not has_learned:
        template = (
            "The loss never fell clearly below {start}, from an lr of {first} up to {last}: "
            "there is nothing to suggest."
            if diverges_at is None
            else "The loss never fell clearly below {start}, from an lr of {first} up to {last}, where it diverges: "
            "there is nothing to suggest."
        )
        last = f"{trials[-1].lr:.2g}" if diverges_at is None else f"{diverges_at:g}"
        reason = Message(template, start=f"{start:.2f}", first=f"{trials[0].lr:.2g}", last=last)
    else:
        suggestion = _rounded(trials[half_way].lr)
        values = {"start": f"{start:.2f}", "lowest": f"{smoothed[lowest]:.2f}", "suggestion": f"{suggestion:g}"}
        if diverges_at is None:
            reason = Message(
                "The loss fell from {start} to {lowest} and was halfway down at an lr of {suggestion}; it never "
                "diverged.",
                **values,
            )
        elif suggestion <= diverges_at / _MARGIN:
            reason = Message(
                "The loss fell from {start} to {lowest} and was halfway down at an lr of {suggestion}, well below "
                "{diverges_at}, where it starts to diverge.",
                **values,
                diverges_at=f"{diverges_at:g}",
            )
        else:
            suggestion = _rounded(diverges_at / _MARGIN)
            reason = Message(
                "The loss fell from {start} to {lowest} and was halfway down at an lr of {suggestion}; it starts to "
                "diverge at {diverges_at}, and a third of that is the safer choice.",
                **values,
                diverges_at=f"{diverges_at:g}",
            )
    return Finding(suggestion=suggestion, diverges_at=diverges_at, reason=reason)


def _find(config: TrainConfig, learner: Learner, split: Split, num_classes: int) -> Iterator[Trial | Finding]:
    num_steps, batches_per_lr = num_trials(config), _batches_per_lr(config)
    num_lrs = num_steps // batches_per_lr
    keep = 1 - 1 / (_MEMORY * num_steps)
    trials: list[Trial] = []
    unread: list[tuple[float, Tensor]] = []
    total = weight = 0.0
    last_yield = time.perf_counter()
    start_training(learner)
    for step, (images, labels) in enumerate(islice(passes(split, config), num_steps), 1):
        lr = OPTIMIZERS[config.optimizer].defaults["lr"] * 10 ** _exponent((step - 1) // batches_per_lr / (num_lrs - 1))
        for group in learner.optimizer.param_groups:
            group["lr"] = lr
        loss, _ = train_batch(config, learner, images, labels, step)
        unread.append((lr, loss))
        if time.perf_counter() - last_yield < SECONDS_BETWEEN_YIELDS and step < num_steps:
            continue
        # The host waits for the device only here.
        losses = torch.stack([loss for _, loss in unread]).tolist()
        for (trial_lr, _), trial_loss in zip(unread, losses, strict=True):
            total, weight = keep * total + (1 - keep) * trial_loss, keep * weight + (1 - keep)
            trial = Trial(
                step=len(trials) + 1, num_steps=num_steps, lr=trial_lr, loss=trial_loss, smoothed=total / weight
            )
            trials.append(trial)
            yield trial
            if not trial.smoothed <= _ceiling(trials, num_classes):
                yield suggest(config, trials, num_classes)
                return
        unread.clear()
        last_yield = time.perf_counter()
    yield suggest(config, trials, num_classes)


def _batches_per_lr(config: TrainConfig) -> int:
    return max(1, config.zero_grad_every)


def _ceiling(trials: Sequence[Trial], num_classes: int) -> float:
    """Returns the smoothed loss above which training has diverged."""
    return _EXPLODED * max(trials[0].loss, math.log(num_classes))


def _exponent(fraction: float) -> float:
    return _DECADES * (2 * fraction - 1)


def _rounded(lr: float) -> float:
    return float(f"{lr:.1e}")
