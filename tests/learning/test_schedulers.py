"""Each schedule computed by hand, the preview compared with a run, and runs too short for their schedule."""

import inspect
import itertools
import math
import re
import subprocess
import sys

import pytest
import torch

from trainer.learning.loop import train
from trainer.learning.optimizers import build_optimizer
from trainer.learning.schedulers import CLASSES, build_scheduler, preview, spans_run
from trainer.runs.events import EpochEnded, StepLogged
from trainer.settings.config import TrainConfig
from trainer.settings.schedulers import SCHEDULERS

# Parameters that the run determines, functions, and those that make no sense for a loss.
ALWAYS_LEFT_OUT = {"optimizer", "last_epoch"}
LEFT_OUT = {
    "constant": {"factor", "total_iters"},
    "onecycle": {"max_lr", "total_steps", "epochs", "steps_per_epoch"},
    "cyclic": {"max_lr", "scale_fn", "scale_mode"},
    "plateau": {"mode", "eps"},
}
PREVIEWABLE = [name for name in SCHEDULERS if name != "plateau"]


def half_cosine(step, steps):
    return (1 + math.cos(math.pi * step / steps)) / 2


# torch's defaults, which are not ours.
ONECYCLE = {"scheduler": "onecycle", "pct_start": 0.3, "div_factor": 25, "final_div_factor": 1e4}
WARM_4 = [0.01, 0.2575, 0.505, 0.7525]
WARM_2 = [0.01, 0.505]
BY_HAND = [
    ({"scheduler": "constant", "epochs": 3}, [1, 1, 1]),
    ({"scheduler": "constant", "epochs": 6, "num_warmup_steps": 4}, [*WARM_4, 1, 1]),
    ({"scheduler": "step", "step_size": 2, "gamma": 0.1, "epochs": 5}, [1, 1, 0.1, 0.1, 0.01]),
    ({"scheduler": "step", "step_size": 2, "epochs": 6, "num_warmup_steps": 2}, [*WARM_2, 1, 1, 0.1, 0.1]),
    ({"scheduler": "multistep", "milestones": (1, 3), "gamma": 0.5, "epochs": 5}, [1, 0.5, 0.5, 0.25, 0.25]),
    (
        {"scheduler": "multistep", "milestones": (1, 3), "epochs": 6, "num_warmup_steps": 2},
        [*WARM_2, 1, 0.1, 0.1, 0.01],
    ),
    ({"scheduler": "exponential", "gamma": 0.5, "epochs": 4}, [1, 0.5, 0.25, 0.125]),
    ({"scheduler": "exponential", "gamma": 0.5, "epochs": 4, "num_warmup_steps": 2}, [*WARM_2, 1, 0.5]),
    ({"scheduler": "cosine", "epochs": 4}, [half_cosine(step, 4) for step in range(4)]),
    ({"scheduler": "cosine", "epochs": 4, "T_max": 2, "eta_min": 1.0}, [1, 0.75, 0.5, 0.75]),
    ({"scheduler": "cosine", "epochs": 6, "num_warmup_steps": 2}, WARM_2 + [half_cosine(step, 4) for step in range(4)]),
    (
        {**ONECYCLE, "anneal_strategy": "linear", "epochs": 10},
        [0.04, 0.52, *(1 - (1 - 4e-6) * step / 7 for step in range(8))],
    ),
    (
        {**ONECYCLE, "epochs": 10},  # along cosines: from 0.04 up to 1 in 2 steps, and down to 4e-6 in 7
        [0.04, 0.52, *(4e-6 + (1 - 4e-6) * half_cosine(step, 7) for step in range(8))],
    ),
    (
        {**ONECYCLE, "anneal_strategy": "linear", "epochs": 12, "num_warmup_steps": 2},
        [0.04 * 0.01, 0.04 * 0.505, 0.04, 0.52, *(1 - (1 - 4e-6) * step / 7 for step in range(8))],
    ),
    (
        # Up and down in 3 steps each, then from 0.04 to 4e-6 in the rest of 10.
        {**ONECYCLE, "anneal_strategy": "linear", "three_phase": True, "pct_start": 0.4, "epochs": 10},
        [0.04, 0.36, 0.68, 1, 0.68, 0.36, 0.04, *(0.04 - (0.04 - 4e-6) * step / 3 for step in (1, 2, 3))],
    ),
    ({"scheduler": "cyclic", "epochs": 6}, [0.25, 0.625, 1, 0.625, 0.25, 0.625]),
    (
        {"scheduler": "cyclic", "epochs": 5, "base_lr": 0, "step_size_up": 1, "step_size_down": 3},
        [0, 1, 2 / 3, 1 / 3, 0],
    ),
    ({"scheduler": "cyclic", "epochs": 7, "mode": "triangular2"}, [0.25, 0.625, 1, 0.625, 0.25, 0.4375, 0.625]),
    (
        {"scheduler": "cyclic", "epochs": 3, "mode": "exp_range", "gamma": 0.5, "base_lr": 0},
        [0, 0.5 * 0.5, 1 * 0.25],
    ),
    ({"scheduler": "cyclic", "epochs": 5, "num_warmup_steps": 2}, [0.25 * 0.01, 0.25 * 0.505, 0.25, 0.625, 1]),
    ({"scheduler": "linear", "epochs": 4}, [1, 0.75, 0.5, 0.25]),
    (
        {"scheduler": "linear", "epochs": 5, "start_factor": 0.5, "end_factor": 1, "total_iters": 2},
        [0.5, 0.75, 1, 1, 1],
    ),
    ({"scheduler": "linear", "epochs": 6, "num_warmup_steps": 2}, [*WARM_2, 1, 0.75, 0.5, 0.25]),
    ({"scheduler": "plateau", "epochs": 3}, [1, 1, 1]),
]


@pytest.mark.parametrize(
    ("settings", "factors"),
    BY_HAND,
    ids=["-".join(f"{name[:9]}={value}" for name, value in settings.items()) for settings, _ in BY_HAND],
)
def test_schedules_by_hand(settings, factors):
    """The lr of each step is a known fraction of lr; with one batch an epoch both units give the same schedule."""
    for unit in ("epoch", "batch")[: 1 if settings["scheduler"] == "plateau" else 2]:
        steps = list(preview(TrainConfig(lr=2.0, scheduler_unit=unit, **settings), batches_per_epoch=1))
        assert [step for step, _ in steps] == list(range(1, len(factors) + 1))
        assert [lr / 2 for _, lr in steps] == pytest.approx(factors, rel=1e-6, abs=1e-9)


def test_every_schedule_is_computed_by_hand():
    """A new scheduler needs an entry above."""
    assert {settings["scheduler"] for settings, _ in BY_HAND} == SCHEDULERS.keys() == CLASSES.keys()


@pytest.mark.parametrize(
    ("unit", "every", "lrs"), [("epoch", 1, "aaabbb"), ("batch", 1, "abcdef"), ("batch", 2, "aabbcc")]
)
def test_units(unit, every, lrs):
    """scheduler.step() is called after each epoch, or after each optimizer step: every zero_grad_every batches."""
    config = TrainConfig(
        scheduler="exponential", gamma=0.5, lr=1.0, scheduler_unit=unit, epochs=2, zero_grad_every=every
    )
    values = [lr for _, lr in preview(config, batches_per_epoch=3)]
    assert values == [0.5 ** "abcdef".index(letter) for letter in lrs]


# The times of steps do not depend on the schedule: all ways with one schedule, and two ways with each other one.
WAYS = [
    *itertools.product(["onecycle"], ("epoch", "batch"), (0, 1, 3), (0, 2)),
    *((name, *way) for name in PREVIEWABLE if name != "onecycle" for way in (("epoch", 1, 0), ("batch", 3, 2))),
]


@pytest.mark.parametrize(("scheduler", "unit", "every", "warmup"), WAYS)
def test_the_preview_equals_a_run(scheduler, unit, every, warmup, tiny):
    """The lr of each step is bit for bit the lr that a run with the same config reports."""
    config = TrainConfig(
        scheduler=scheduler,
        scheduler_unit=unit,
        zero_grad_every=every,
        num_warmup_steps=warmup,
        epochs=7 if unit == "epoch" else 5,
        batch_size=8,
        lr=1e-3,
        **({"pct_start": 0.6} if scheduler == "onecycle" else {}),
    )
    logged = [(event.step, event.lr) for event in train(config, tiny) if isinstance(event, StepLogged)]
    assert logged == list(preview(config, batches_per_epoch=4))
    assert len(logged) == config.epochs * 4


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_short_runs_work_or_are_refused_with_a_sentence(scheduler):
    """A schedule of any length is stepped to its end or refused before the run; torch raises no error."""
    refusals, worked = set(), 0
    for epochs, num_batches, every, warmup, unit in itertools.product(
        (1, 2, 3, 5), (1, 2, 3), (0, 1, 2, 5), (0, 1, 3), ("epoch", "batch")
    ):
        if scheduler == "plateau" and (warmup or unit == "batch"):
            continue
        extra = [{}]
        if scheduler == "onecycle":
            extra = [{"pct_start": part, "three_phase": three} for part in (0.1, 0.5, 0.95) for three in (False, True)]
        for more in extra:
            config = TrainConfig(
                scheduler=scheduler,
                scheduler_unit=unit,
                epochs=epochs,
                zero_grad_every=every,
                num_warmup_steps=warmup,
                **more,
            )
            try:
                lrs = [lr for _, lr in preview(config, batches_per_epoch=num_batches)]
            except ValueError as error:
                refusals.add(str(error))
            else:
                assert len(lrs) == epochs * num_batches
                assert all(math.isfinite(lr) and lr >= 0 for lr in lrs)
                worked += 1
    assert worked
    assert refusals or scheduler == "plateau"
    assert all(re.fullmatch(".*(num_warmup_steps|zero_grad_every|pct_start).*[.]", sentence) for sentence in refusals)


def test_steps_are_counted_in_integers():
    """49 epochs of one batch with a step every 49 batches make 1 step; in floats 49 × (1 / 49) is less than 1."""
    config = TrainConfig(scheduler="constant", scheduler_unit="batch", epochs=49, zero_grad_every=49)
    assert len(list(preview(config, batches_per_epoch=1))) == 49


def test_onecycle_after_an_odd_epoch_counts_its_actual_steps():
    """With a step every 3 batches and 4 batches an epoch, epochs 2 and 3 have 3 steps, not 8 // 3."""
    config = TrainConfig(scheduler="onecycle", pct_start=0.5, epochs=3, zero_grad_every=3)
    optimizer = build_optimizer(config, [torch.nn.Parameter(torch.zeros(1))])
    assert build_scheduler(config, optimizer, batches_per_epoch=4, after_epoch=1).total_steps == 3


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"scheduler": "onecycle", "scheduler_unit": "epoch", "epochs": 1}, "onecycle cannot rise and fall"),
        ({"scheduler": "onecycle", "epochs": 1, "three_phase": True, "pct_start": 0.6}, "pct_start must be below 0.5"),
        ({"scheduler": "step", "num_warmup_steps": 5, "epochs": 5}, "num_warmup_steps must be below the run's 5"),
        ({"scheduler": "step", "scheduler_unit": "batch", "epochs": 1, "zero_grad_every": 11}, "zero_grad_every must"),
        ({"scheduler": "step", "scheduler_unit": "epoch", "epochs": 2, "zero_grad_every": 21}, "zero_grad_every must"),
        ({"scheduler": "onecycle", "scheduler_unit": "epoch", "epochs": 2}, "or scheduler_unit batch give it more"),
        ({"scheduler": "onecycle", "epochs": 1, "pct_start": 0.1}, "or a smaller batch_size give it more"),
    ],
)
def test_too_short_runs_are_refused(settings, name):
    """The sentence names the setting that does not fit."""
    with pytest.raises(ValueError, match=name):
        list(preview(TrainConfig(**settings), batches_per_epoch=10))


@pytest.mark.parametrize("unit", ["epoch", "batch"])
def test_one_step_is_enough(unit):
    """The optimizer may take its only step after the last batch of the run."""
    config = TrainConfig(scheduler="step", scheduler_unit=unit, epochs=2, zero_grad_every=20)
    assert len(list(preview(config, batches_per_epoch=10))) == 20


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_rows_agree_with_torch(scheduler):
    """Every setting is a parameter of torch's class; every other parameter is left out deliberately."""
    parameters = inspect.signature(CLASSES[scheduler]).parameters.keys()
    offered = SCHEDULERS[scheduler].defaults.keys()
    assert offered <= parameters
    assert (parameters - offered) - ALWAYS_LEFT_OUT == LEFT_OUT.get(scheduler, set())


OTHER = {
    "step": {"step_size": 3, "gamma": 0.5},
    "multistep": {"milestones": (2, 4), "gamma": 0.5},
    "exponential": {"gamma": 0.5},
    "cosine": {"T_max": 3, "eta_min": 0.01},
    "onecycle": {
        "pct_start": 0.45,
        "anneal_strategy": "linear",
        "cycle_momentum": True,
        "base_momentum": 0.5,
        "max_momentum": 0.99,
        "div_factor": 3,
        "final_div_factor": 7,
        "three_phase": True,
    },
    "cyclic": {
        "base_lr": 0.001,
        "step_size_up": 3,
        "step_size_down": 5,
        "mode": "triangular2",
        "gamma": 0.9,
        "cycle_momentum": True,
        "base_momentum": 0.5,
        "max_momentum": 0.99,
    },
    "linear": {"start_factor": 0.5, "end_factor": 0.5, "total_iters": 3},
    "plateau": {
        "factor": 0.5,
        "patience": 0,
        "threshold": 0.5,
        "threshold_mode": "abs",
        "cooldown": 3,
        "min_lr": 0.02,
    },
}
# Other settings that a setting needs to have an effect.
WITH = {
    ("onecycle", "base_momentum"): {"cycle_momentum": True},
    ("onecycle", "max_momentum"): {"cycle_momentum": True},
    ("cyclic", "base_momentum"): {"cycle_momentum": True},
    ("cyclic", "max_momentum"): {"cycle_momentum": True},
    ("cyclic", "gamma"): {"mode": "exp_range"},
    ("plateau", "min_lr"): {"patience": 0},
    ("plateau", "cooldown"): {"patience": 0},
    ("plateau", "threshold"): {"patience": 1},
    ("plateau", "threshold_mode"): {"threshold": 0.3},
}
PAIRS = [(scheduler, setting) for scheduler, settings in OTHER.items() for setting in settings]


def trace(scheduler, settings):
    """Returns (lr, momentum) at each of 20 scheduler steps; plateau gets a loss that falls and then stays constant."""
    config = TrainConfig(scheduler=scheduler, scheduler_unit=None if scheduler == "plateau" else "batch", **settings)
    optimizer = build_optimizer(config, [torch.nn.Parameter(torch.zeros(1))])
    stepper = build_scheduler(config, optimizer, batches_per_epoch=2)
    seen = []
    for step in range(20):
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["momentum"]))
        stepper.step(*([max(0.3, 0.9 - 0.2 * step)] if scheduler == "plateau" else []))
    return seen


@pytest.mark.parametrize(("scheduler", "setting"), PAIRS, ids=[f"{name}-{setting}" for name, setting in PAIRS])
def test_each_setting_reaches_torch(scheduler, setting):
    """A value other than the default gives other lrs or momenta."""
    needed = WITH.get((scheduler, setting), {})
    assert trace(scheduler, needed) != trace(scheduler, {**needed, setting: OTHER[scheduler][setting]})


def test_other_values_are_complete():
    """The table above has every setting of every scheduler."""
    assert {name: row.defaults.keys() for name, row in SCHEDULERS.items() if row.defaults} == {
        name: settings.keys() for name, settings in OTHER.items()
    }


def test_plateau_lowers_lr_when_the_loss_stalls(tiny):
    """With threshold 0.5 only a halved loss is progress: after `patience` epochs lr falls, down to min_lr."""
    config = TrainConfig(
        scheduler="plateau",
        patience=1,
        factor=0.5,
        threshold=0.5,
        lr=1e-4,
        min_lr=2e-5,
        epochs=9,
        batch_size=26,
    )
    lrs = [event.lr for event in train(config, tiny) if isinstance(event, EpochEnded) and event.epoch]
    assert lrs == pytest.approx([1e-4] * 3 + [5e-5] * 2 + [2.5e-5] * 2 + [2e-5] * 2, rel=1e-9, abs=0)


@pytest.mark.parametrize(
    ("settings", "spans"),
    [
        *[({"scheduler": name}, name in ("onecycle", "cosine", "linear")) for name in SCHEDULERS],
        ({"scheduler": "cosine", "T_max": 5}, False),
        ({"scheduler": "linear", "total_iters": 5}, False),
    ],
)
def test_spans_run(settings, spans):
    """It tells which schedules cover exactly their run."""
    assert spans_run(TrainConfig(**settings)) is spans


@pytest.mark.slow
def test_a_preview_leaves_out_torchs_compiler():
    """An idle app, which previews a schedule, would otherwise hold it in memory."""
    code = (
        "import sys; from trainer.learning.schedulers import preview; from trainer.settings.config import TrainConfig\n"
        "for name in 'sgd', 'adam', 'muon', 'sam': list(preview(TrainConfig(optimizer=name), batches_per_epoch=9))\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
