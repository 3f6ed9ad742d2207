"""Builds the torch scheduler that a config chooses, and previews its learning rates."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from trainer.errors import Message, UserError
from trainer.images.image_data import ImageData
from trainer.learning.optimizers import arguments
from trainer.learning.training_set import batches_per_epoch
from trainer.settings.config import TrainConfig

CLASSES = {
    "constant": lr_scheduler.ConstantLR,
    "step": lr_scheduler.StepLR,
    "multistep": lr_scheduler.MultiStepLR,
    "exponential": lr_scheduler.ExponentialLR,
    "cosine": lr_scheduler.CosineAnnealingLR,
    "onecycle": lr_scheduler.OneCycleLR,
    "cyclic": lr_scheduler.CyclicLR,
    "linear": lr_scheduler.LinearLR,
    "plateau": lr_scheduler.ReduceLROnPlateau,
}

WARMUP_START = 0.01
"""The fraction of lr that a warm-up starts from."""

_MOST_DRAWN = 400  # points of a schedule; a chart has about as many pixels
MOST_BATCHES = 100_000  # of a run whose schedule is computed: more would take seconds


class _Groups(Optimizer):
    """What a scheduler changes of an optimizer, its settings, without one that could take a step.

    The first real optimizer makes torch import its compiler, which takes seconds and 0.1 GB.
    """

    def __init__(self, config: TrainConfig):
        super().__init__([torch.zeros(1)], arguments(config))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group without torch's checks of its tensors, for which it imports the compiler."""
        self.param_groups.append({**self.defaults, **param_group})


def spans_run(config: TrainConfig) -> bool:
    """Whether the schedule covers exactly the run, so that it cannot simply continue afterwards."""
    return (
        config.scheduler == "onecycle"
        or (config.scheduler == "cosine" and config.T_max is None)
        or (config.scheduler == "linear" and config.total_iters is None)
    )


def steps_between(config: TrainConfig, first: int, last: int, *, batches_per_epoch: int) -> int:
    """Returns how many scheduler steps a run takes after epoch `first`, up to the end of epoch `last`."""
    every = _batches_per_step(config, batches_per_epoch)
    return last * batches_per_epoch // every - first * batches_per_epoch // every


def _batches_per_step(config: TrainConfig, batches_per_epoch: int) -> int:
    return batches_per_epoch if config.scheduler_unit == "epoch" else config.zero_grad_every or 1


def build_scheduler(
    config: TrainConfig, optimizer: Optimizer, *, batches_per_epoch: int, after_epoch: int = 0
) -> LRScheduler:
    """Returns the torch scheduler that `config` chooses, with its warm-up, for the epochs after `after_epoch`.

    Call its step() after each `config.scheduler_unit`: each optimizer step ("batch") or each epoch; plateau's takes the
    test loss. Sets the optimizer's lr to that of the first step. Raises UserError if the run is too short for its
    warm-up or its cycle.
    """
    first, last = after_epoch * batches_per_epoch, config.epochs * batches_per_epoch
    batches_per_update = config.zero_grad_every or 1
    if last // batches_per_update == first // batches_per_update:
        raise UserError("zero_grad_every must not be above the number of batches: the run would take no step at all.")
    all_steps = steps_between(config, after_epoch, config.epochs, batches_per_epoch=batches_per_epoch)
    num_steps = all_steps - config.num_warmup_steps
    if num_steps < 1:
        raise UserError("num_warmup_steps must be below the run's {steps} scheduler steps.", steps=all_steps)
    own = dict(config.row_settings["scheduler"])
    match config.scheduler:
        case "constant":
            own = {"factor": 1.0, "total_iters": 0}
        case "cosine":
            own["T_max"] = own["T_max"] or num_steps
        case "linear":
            own["total_iters"] = own["total_iters"] or num_steps
        case "onecycle":
            own.update(max_lr=config.lr, total_steps=num_steps)
            _check_onecycle(config, num_steps)
        case "cyclic":
            assert config.lr is not None  # every optimizer has one
            own["base_lr"] = config.lr / 4 if own["base_lr"] is None else own["base_lr"]
            steps_per_epoch = batches_per_epoch / _batches_per_step(config, batches_per_epoch)
            own["step_size_up"] = own["step_size_up"] or max(1, round(2 * steps_per_epoch))
            own["max_lr"] = config.lr
            if config.mode == "triangular2":
                # torch's 1 / 2 ** (cycle - 1) overflows after a thousand cycles; this becomes 0.
                own.update(scale_fn=lambda cycle: 0.5 ** (cycle - 1), scale_mode="cycle")
            # SequentialLR starts every schedule from the optimizer's initial lr; this one starts at its lowest.
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] = own["base_lr"]
    own = {name: value for name, value in own.items() if value is not None}
    if config.num_warmup_steps:
        warmup = lr_scheduler.LinearLR(optimizer, start_factor=WARMUP_START, total_iters=config.num_warmup_steps)
        main = CLASSES[config.scheduler](optimizer, **own)
        scheduler = lr_scheduler.SequentialLR(optimizer, [warmup, main], milestones=[config.num_warmup_steps])
    else:
        scheduler = CLASSES[config.scheduler](optimizer, **own)
    # The scheduler warns if it steps before the optimizer, but the optimizer's first step can come after the first
    # epoch (zero_grad_every) or never (a gradient scaler that found infinity). An empty step() would do as well, but
    # Adam's initializes CUDA, which the main process of a ZeroGPU Space must not do.
    optimizer._opt_called = True  # type: ignore[attr-defined]
    return scheduler


def _check_onecycle(config: TrainConfig, num_steps: int) -> None:
    # Each phase of torch's OneCycleLR is a step shorter than its share of the run; a phase of 0 steps divides by 0.
    assert config.pct_start is not None
    rise = config.pct_start * num_steps
    if not 1 < rise < num_steps:
        remedy = "a smaller batch_size" if config.scheduler_unit == "batch" else "scheduler_unit batch"
        raise UserError(
            "onecycle cannot rise and fall in {steps} scheduler steps with a pct_start of {share}; more epochs or "
            "{remedy} give it more steps.",
            steps=num_steps,
            share=f"{config.pct_start:g}",
            remedy=Message(remedy),
        )
    if config.three_phase and 2 * rise - 2 >= num_steps - 1:
        raise UserError("With three_phase, pct_start must be below 0.5: the fall takes as long as the rise.")


def preview(config: TrainConfig, *, batches_per_epoch: int) -> Iterator[tuple[int, float]]:
    """Yields (step, lr) for each batch of a run, counted from 1, with the scheduler that training uses.

    Plateau depends on losses that are not known yet: its preview is the lr it starts with. Raises UserError as
    `build_scheduler` does.
    """
    optimizer = _Groups(config)
    scheduler = build_scheduler(config, optimizer, batches_per_epoch=batches_per_epoch)
    every = config.zero_grad_every or 1
    for step in range(1, config.epochs * batches_per_epoch + 1):
        yield step, optimizer.param_groups[0]["lr"]
        if config.scheduler == "plateau":
            continue
        due = step % every == 0 if config.scheduler_unit == "batch" else step % batches_per_epoch == 0
        if due:
            scheduler.step()


def planned_lrs(config: TrainConfig, images: ImageData | None) -> list[tuple[float, float]]:
    """The schedule as (epochs passed, lr), with a point per epoch if lr changes once an epoch, else one per batch.

    Empty for a run of more than MOST_BATCHES batches. Without images, which may still be loading, it is the schedule on
    CIFAR-10.
    """
    per_epoch = batches_per_epoch(config, images)
    if config.scheduler_unit == "epoch":
        points = [(step - 1, lr) for step, lr in preview(replace(config, zero_grad_every=1), batches_per_epoch=1)]
        return [*points, (config.epochs, points[-1][1])]
    if config.epochs * per_epoch > MOST_BATCHES:
        return []
    return [((step - 1) / per_epoch, lr) for step, lr in preview(config, batches_per_epoch=per_epoch)]


def thinned(planned: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns at most as many points of a schedule as a chart has room for, evenly chosen."""
    return list(planned[:: math.ceil(len(planned) / _MOST_DRAWN) or 1])
