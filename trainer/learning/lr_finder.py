"""The learning-rate range test: which lr suits the other settings."""

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
from trainer.learning.learner import Learner, train_batch
from trainer.learning.loop import prepare
from trainer.runs.events import json_fields
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS

_DECADES = 3  # above and below the lr that suits the optimizer's default run
_NUM_IMAGES = 25_600  # that the ramp takes, where that makes neither too few steps nor too many
_FEWEST_STEPS, _MOST_STEPS = 100, 3200
_MEMORY = 0.1  # of the ramp: what the smoothed loss is a mean of, and what its start is measured on
_CLEAR = 4.0  # times the uncertainty of the start's mean: a fall that is no accident
_LEAST_FALL = 0.004  # of the loss of the start: less is no learning but how often each class occurs
_EXPLODED = 1.5  # times the untrained network's loss, or that of guessing
_MARGIN = 3.0  # between the suggestion and where divergence begins
_SECONDS_BETWEEN_YIELDS = 0.4


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One batch of the ramp. `step` counts batches from 1; `loss` is the batch's mean, as it went in."""

    step: int
    num_steps: int  # of the whole ramp, which ends sooner where the loss explodes
    lr: float
    loss: float
    smoothed: float  # the mean over about the last tenth of the ramp


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What the trials come to: an lr to take, or None where nothing can be suggested, and why, in one sentence."""

    suggestion: float | None
    diverges_at: float | None  # the lr from which on the loss does not come back; None where it always did
    reason: str


def find_lr(config: TrainConfig, data: ImageData, *, device: str | torch.device = "cpu") -> Iterator[Trial | Finding]:
    """The range test on a network of its own; yields each Trial, at least about once a second, and at last a Finding.

    It trains as `config` says, with `train`'s own work of a batch, but for the schedule: lr rises from a thousandth of
    the optimizer's default to a thousand times that, by the same factor at each optimizer step, until the smoothed loss
    is half as high again as at the start, or no number. Smith (2015, arXiv:1506.01186, section 3.3) raises it by the
    same amount; the factor, and to stop early, is fastai's. The smoothed loss is an exponential mean without its bias
    towards 0 (Kingma & Ba 2015, arXiv:1412.6980, section 3).

    The suggestion is the lr at which the smoothed loss has fallen half of the way from its start (or from guessing, ln
    of the number of classes, if that is lower) to its lowest: about where it falls fastest. That level is crossed on a
    slope, so that it hardly moves with the seed, where the steepest point and the lowest, which others take, are flat
    or noisy. Divergence begins where the loss rises above the same level for good, and the suggestion is at most a
    third of that. It is for a constant lr, and as well for the peak of a schedule. Nothing is suggested where the fall
    is no clearer than chance or below 0.4 %, or where gradients are never cleared.

    No prints, no files, no environment, no global random state. Raises ValueError at once, before the first trial is
    asked for, where the config does not fit the data or the device.
    """
    constant = config.unscheduled()
    split, learner = prepare(constant, data, device=torch.device(device), resume=None)
    return _find(constant, learner, split, len(data.class_names))


def num_trials(config: TrainConfig) -> int:
    """The batches of the whole ramp, which ends sooner where the loss explodes."""
    together = _together(config)
    return together * min(max(_NUM_IMAGES // (config.batch_size * together), _FEWEST_STEPS), _MOST_STEPS)


def row(fact: Trial | Finding) -> dict[str, Any]:
    """The trial or finding as a row of the public stream; numbers that are not finite become None."""
    return {"event": "trial" if isinstance(fact, Trial) else "suggestion", **json_fields(fact)}


def suggest(config: TrainConfig, trials: Sequence[Trial], num_classes: int) -> Finding:
    """What the trials of a ramp, one or more, come to, as `find_lr` tells it."""
    begun = round(trials[0].num_steps * _MEMORY)  # trials at an lr too low to change anything
    untouched = [trial.loss for trial in trials[:begun] if math.isfinite(trial.loss)]
    start = min(statistics.fmean(untouched or [math.inf]), math.log(num_classes))
    uncertainty = statistics.stdev(untouched) / math.sqrt(len(untouched)) if len(untouched) > 1 else math.inf
    smoothed = [trial.smoothed if math.isfinite(trial.smoothed) else math.inf for trial in trials]
    lowest = min(range(min(begun, len(trials) - 1), len(trials)), key=smoothed.__getitem__)
    has_learned = start - smoothed[lowest] > max(_CLEAR * uncertainty, _LEAST_FALL * start)
    level = (start + smoothed[lowest]) / 2 if has_learned else _ceiling(trials, num_classes)
    half = next((place + 1 for place in reversed(range(lowest)) if smoothed[place] > level), 0)
    lost = next((place + 1 for place in reversed(range(len(trials))) if smoothed[place] <= level), 0)
    diverges_at = _rounded(trials[lost].lr) if lost < len(trials) else None

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
        suggestion = _rounded(trials[half].lr)
        fell = {"start": f"{start:.2f}", "lowest": f"{smoothed[lowest]:.2f}", "suggestion": f"{suggestion:g}"}
        if diverges_at is None:
            reason = Message(
                "The loss fell from {start} to {lowest} and was half-way at {suggestion}; it never diverged.", **fell
            )
        elif suggestion <= diverges_at / _MARGIN:
            reason = Message(
                "The loss fell from {start} to {lowest} and was half-way at {suggestion}, well below {diverges_at}, "
                "from which on it diverges.",
                **fell,
                diverges_at=f"{diverges_at:g}",
            )
        else:
            suggestion = _rounded(diverges_at / _MARGIN)
            reason = Message(
                "The loss fell from {start} to {lowest} and was half-way at {suggestion}; as it diverges from "
                "{diverges_at} on, a third of that is the safer choice.",
                **fell,
                diverges_at=f"{diverges_at:g}",
            )
    return Finding(suggestion=suggestion, diverges_at=diverges_at, reason=reason)


def _find(config: TrainConfig, learner: Learner, split: Split, num_classes: int) -> Iterator[Trial | Finding]:
    num_steps, together = num_trials(config), _together(config)
    raises = num_steps // together
    keep = 1 - 1 / (_MEMORY * num_steps)
    trials: list[Trial] = []
    unread: list[tuple[float, Tensor]] = []
    total = weight = 0.0
    last_yield = time.perf_counter()
    learner.model.train()
    for step, (images, labels) in enumerate(islice(passes(split, config), num_steps), 1):
        lr = OPTIMIZERS[config.optimizer].defaults["lr"] * 10 ** _exponent((step - 1) // together / (raises - 1))
        for group in learner.optimizer.param_groups:
            group["lr"] = lr
        loss, _ = train_batch(config, learner, images, labels, step)
        unread.append((lr, loss))
        if time.perf_counter() - last_yield < _SECONDS_BETWEEN_YIELDS and step < num_steps:
            continue
        # The only point at which the host waits for the device.
        read = torch.stack([loss for _, loss in unread]).tolist()
        for (its_lr, _), its_loss in zip(unread, read, strict=True):
            total, weight = keep * total + (1 - keep) * its_loss, keep * weight + (1 - keep)
            trial = Trial(step=len(trials) + 1, num_steps=num_steps, lr=its_lr, loss=its_loss, smoothed=total / weight)
            trials.append(trial)
            yield trial
            if not trial.smoothed <= _ceiling(trials, num_classes):
                yield suggest(config, trials, num_classes)
                return
        unread.clear()
        last_yield = time.perf_counter()
    yield suggest(config, trials, num_classes)


def _together(config: TrainConfig) -> int:
    """Batches that share an lr."""
    return max(1, config.zero_grad_every)


def _ceiling(trials: Sequence[Trial], num_classes: int) -> float:
    """The smoothed loss above which there is no way back."""
    return _EXPLODED * max(trials[0].loss, math.log(num_classes))


def _exponent(fraction: float) -> float:
    return _DECADES * (2 * fraction - 1)


def _rounded(lr: float) -> float:
    return float(f"{lr:.1e}")
