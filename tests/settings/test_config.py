"""TrainConfig: the checks of its settings, their defaults, and its conversions to and from plain data and text."""

import json
import math
from dataclasses import FrozenInstanceError

import pytest
from cases import ROWS

from trainer.errors import UserError
from trainer.settings.config import ROW_SETTINGS, SETTINGS, TrainConfig, parse
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.schedulers import SCHEDULERS


def assert_sentence(error) -> str:
    """One line with a full stop."""
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert len(text) < 300
    return text


HUGE = 10**400

BAD = [
    *[{"lr": value} for value in (0, -1, math.nan, math.inf, "x", "0.1", HUGE, HUGE**20, True, [0.1], {})],
    *[{"epochs": value} for value in (0, -1, 1001, 1e9, 2.5, True, "3", math.nan, math.inf, HUGE, HUGE**20, [3])],
    *[{"batch_size": value} for value in (-1, 50_001, 1.5, False)],
    *[{"momentum": value} for value in (1.5, 1, -0.1, "0.9", math.nan)],
    *[{"label_smoothing": value} for value in (1, -0.1, True, None)],
    *[{"seed": value} for value in (-1, 2**31, 0.5)],
    *[{"augment": value} for value in (1, "true", None)],
    {"pretrained": "frozen", "activation": "none"},
    {"pretrained": "finetuned", "normalize": False},
    *[{"shift": value} for value in (-1, 9, True, 0.5)],
    *[{"num_images": value} for value in (-1, 1.5)],
    *[{"zero_grad_every": value} for value in (-1, 10_001, True)],
    *[{"num_warmup_steps": value} for value in (-1, 0.5)],
    *[{"shuffle": value} for value in (0, 1, "true", None)],
    *[{"softmax": value} for value in (1, "false", None)],
    *[{"model": value} for value in ("resnet", None, 3, ["quick"])],
    *[{"activation": value} for value in ("gelu", None)],
    *[{"optimizer": value} for value in ("SGD", "sgd ", None, 1, ["sgd"])],
    *[{"scheduler": value} for value in ("none", 3, {})],
    *[{"precision": value} for value in ("float64", None)],
    *[{"train_split": value} for value in ("validation", None)],
    *[{"scheduler_unit": value} for value in ("step", 1)],
    *[{"scheduler": "step", "step_size": value} for value in (0, -1, 2.5, "5", True)],
    *[{"scheduler": "step", "gamma": value} for value in (0, 1.1, -0.1)],
    *[{"optimizer": "adam", "betas": value} for value in (0.9, (), (0.9,), (0.9, 0.99, 0.999), (0.9, 1), (0.9, "x"))],
    *[{"optimizer": "adam", "betas": value} for value in ("0.9", b"ab", {0.9: 1, 0.99: 2}, {0.9, 0.99}, (0.9, True))],
    {"optimizer": "adam", "decoupled_weight_decay": True},
    {"cycle_momentum": True, "max_momentum": 0.5},
    *[{"scheduler": "multistep", "milestones": value} for value in ((), (3, 2), (3, 3), (0,), (1.5,), 5, (1,) * 101)],
    *[{"scheduler": "onecycle", "pct_start": value} for value in (0, 1, 1.5)],
    {"scheduler": "onecycle", "anneal_strategy": "cosine"},
    {"scheduler": "onecycle", "div_factor": 0.5},
    {"scheduler": "cyclic", "mode": "square"},
    {"scheduler": "cyclic", "mode": "triangular", "gamma": 0.9},
    {"scheduler": "cyclic", "lr": 0.1, "base_lr": 0.2},
    {"scheduler": "cosine", "lr": 0.1, "eta_min": 0.2},
    {"scheduler": "plateau", "lr": 0.1, "min_lr": 0.2},
    {"scheduler": "plateau", "factor": 1},
    {"scheduler": "plateau", "threshold_mode": "relative"},
    {"scheduler": "plateau", "num_warmup_steps": 1},
    {"scheduler": "plateau", "scheduler_unit": "batch"},
    {"nesterov": True, "momentum": 0},
    {"nesterov": True, "dampening": 0.1},
    {"precision": "float16", "zero_grad_every": 0},
    {"dampening": 0.1, "momentum": 0},
    {"base_momentum": 0.8},
    {"cycle_momentum": True, "base_momentum": 0.9, "max_momentum": 0.8},
    {"optimizer": "adagrad", "cycle_momentum": True},
    *[{"optimizer": f"{name}_schedulefree", "scheduler": "cosine"} for name in ("sgd", "adamw")],
    {"optimizer": "sgd_schedulefree", "momentum": 0.0},
    {"optimizer": "adamw_schedulefree", "betas": (0.0, 0.9)},
    {"optimizer": "prodigy", "eps": 0.0},
    *[{"optimizer": name, "zero_grad_every": every} for name in ("sam", "sam_adamw") for every in (0, 4)],
    {"optimizer": "sam", "precision": "float16"},
    {"optimizer": "muon", "adamw_lr": 0.0},
    *[{"optimizer": "muon", "ns_steps": value} for value in (0, 21, 2.5)],
    {"optimizer": "muon", "adjust_lr_fn": "spectral"},
    {"optimizer": "adafactor", "beta2_decay": 0.1},
    {"optimizer": "adafactor", "d": 0.5},
    # Settings that the chosen optimizer or scheduler does not have.
    {"optimizer": "adam", "momentum": 0.9},
    {"optimizer": "sgd", "betas": (0.9, 0.999)},
    {"optimizer": "adadelta", "alpha": 0.9},
    {"scheduler": "onecycle", "step_size": 5},
    {"scheduler": "step", "T_max": 10},
    {"scheduler": "constant", "gamma": 0.1},
]


@pytest.mark.parametrize("settings", BAD, ids=lambda settings: "-".join(settings))
def test_bad_settings_are_refused_with_a_sentence(settings):
    """Values out of range or of another type, settings of another row, and contradictions: the error names one."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 - assert_sentence checks it
        TrainConfig.from_settings(settings)
    text = assert_sentence(error)
    assert any(name in text for name in settings)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("learning_rate", ""), ("momentun", "momentum"), ("epoch", "epochs"), ("batchsize", "batch_size"), ("x" * 99, "")],
)
def test_an_unknown_setting_is_refused_with_a_suggestion(name, suggestion):
    """The most similar setting, if there is one; a long name is cut."""
    with pytest.raises(ValueError, match="There is no setting") as error:
        TrainConfig.from_settings({name: 1})
    text = assert_sentence(error) if not suggestion else str(error.value)
    assert (f"Did you mean {suggestion}?" in text) if suggestion else ("Did you mean" not in text)


@pytest.mark.parametrize("settings", [None, [], "adam", 3, [("lr", 1)]])
def test_settings_must_be_an_object(settings):
    """A client of the API can send any JSON."""
    with pytest.raises(ValueError, match="must be an object"):
        TrainConfig.from_settings(settings)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_unset_is_the_default(name):
    """None means unset, such as an empty field of the page."""
    assert TrainConfig(optimizer=name, lr=None) == TrainConfig(optimizer=name)


@pytest.mark.parametrize(("optimizer", "scheduler"), ROWS)
def test_plain_data_makes_the_same_config(optimizer, scheduler):
    """settings(), JSON and from_settings restore the config, for each optimizer and scheduler with its defaults."""
    config = TrainConfig(optimizer=optimizer, scheduler=scheduler, seed=7)
    again = TrainConfig.from_settings(json.loads(json.dumps(config.settings(), allow_nan=False)))
    assert again == config
    assert again.settings() == config.settings()
    assert config.row_settings == {
        "optimizer": dict(OPTIMIZERS[optimizer].defaults),
        "scheduler": dict(SCHEDULERS[scheduler].defaults),
    }
    assert config.scheduler_unit == SCHEDULERS[scheduler].unit
    assert OPTIMIZERS[optimizer].scheduler != scheduler or TrainConfig(optimizer=optimizer, seed=7) == config
    others = ROW_SETTINGS - OPTIMIZERS[optimizer].defaults.keys() - SCHEDULERS[scheduler].defaults.keys()
    assert all(getattr(config, name) is None for name in others)


@pytest.mark.parametrize(("part", "rows"), [("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS)])
def test_each_row_refuses_the_settings_of_others(part, rows):
    """They are never ignored."""
    values = {name: value for row in rows.values() for name, value in row.defaults.items() if value is not None}
    refused = 0
    for row in rows.values():
        for name in values.keys() - row.defaults.keys():
            with pytest.raises(ValueError, match=f"{name} is not a setting of the {part} {row.name}"):
                TrainConfig(**{part: row.name, name: values[name]})
            refused += 1
    assert refused > 30


def test_every_row_setting_is_declared_once():
    """Each setting of a row is a field with a help; each row is stored under its own name."""
    assert SETTINGS.keys() >= ROW_SETTINGS
    assert all(setting.help.endswith(".") for setting in SETTINGS.values())
    assert all(row.name == name for rows in (OPTIMIZERS, SCHEDULERS) for name, row in rows.items())


def test_values_are_converted_to_the_type_of_their_setting():
    """An int becomes a float, a whole float an int and a list a tuple, so that equal configs compare equal."""
    config = TrainConfig(lr=1, epochs=3.0, optimizer="adam", betas=[0, 0.5])
    assert (type(config.lr), type(config.epochs), config.betas) == (float, int, (0.0, 0.5))
    assert hash(config) == hash(TrainConfig(lr=1.0, epochs=3, optimizer="adam", betas=(0.0, 0.5)))


def test_configs_do_not_change():
    """They are frozen."""
    with pytest.raises(FrozenInstanceError):
        TrainConfig().lr = 1.0


def test_changed_optimizer_brings_its_own_defaults():
    """SGD's lr and momentum are dropped; settings that belong to no optimizer stay."""
    config = TrainConfig(optimizer="sgd", lr=0.5, momentum=0.5, epochs=3, batch_size=8)
    changed = config.changed({"optimizer": "adam"})
    assert changed.lr == OPTIMIZERS["adam"].defaults["lr"]
    assert changed.momentum is None
    assert (changed.epochs, changed.batch_size) == (3, 8)
    assert config.changed({"optimizer": "adam", "lr": 0.25}).lr == 0.25


def test_changed_keeps_all_other_settings():
    """If optimizer and scheduler stay the same; None restores the default."""
    config = TrainConfig(optimizer="sgd", lr=0.5, scheduler="step", step_size=3, scheduler_unit="batch")
    assert config.changed({"optimizer": "sgd", "epochs": 20}) == TrainConfig(
        lr=0.5, scheduler="step", step_size=3, scheduler_unit="batch", epochs=20
    )
    assert config.changed({"lr": None}).lr == OPTIMIZERS["sgd"].defaults["lr"]


def test_changed_scheduler_brings_its_own_unit_and_keeps_lr():
    """The unit belongs to the scheduler, lr to the optimizer."""
    config = TrainConfig(lr=0.5, scheduler="onecycle", pct_start=0.2)
    changed = config.changed({"scheduler": "step"})
    assert (changed.scheduler_unit, changed.pct_start, changed.lr) == ("epoch", None, 0.5)


def test_changed_checks_like_a_new_config():
    """Ranges, names and choices."""
    with pytest.raises(ValueError, match="lr must be"):
        TrainConfig().changed({"lr": -1})
    with pytest.raises(ValueError, match="Did you mean"):
        TrainConfig().changed({"epoch": 1})
    with pytest.raises(ValueError, match="optimizer must be"):
        TrainConfig().changed({"optimizer": "bogus"})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lr", "0.1", 0.1),
        ("lr", "1e-3", 1e-3),
        ("epochs", "3", 3),
        ("optimizer", "adam", "adam"),
        ("nesterov", "true", True),
        ("shuffle", "False", False),
        ("betas", "0.9, 0.99", (0.9, 0.99)),
        ("betas", "0.9 0.99", (0.9, 0.99)),
        ("milestones", "3,6, 9", (3, 6, 9)),
        ("milestones", "3", (3,)),
    ],
)
def test_parse(name, text, value):
    """The text of an option or a field becomes a value of the setting's type."""
    assert parse(name, text) == value
    assert type(parse(name, text)) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lr", "x"),
        ("lr", ""),
        ("epochs", "2.5"),
        ("epochs", "1e3"),
        ("epochs", "9" * 5000),
        ("shuffle", "yes"),
        ("betas", "0.9;0.99"),
        ("milestones", "3,x"),
    ],
)
def test_parse_refuses_with_a_sentence(name, text):
    """A text that is no value, however long, raises an error with one sentence that names the setting."""
    with pytest.raises(ValueError, match=name) as error:
        parse(name, text)
    assert_sentence(error)


@pytest.mark.parametrize(("name", "text"), [("lr", "nan"), ("lr", "inf"), ("lr", "1e999"), ("betas", "0.9")])
def test_parsed_values_are_checked(name, text):
    """TrainConfig refuses NaN, infinity and a list that is too short, which parse accepts."""
    with pytest.raises(ValueError, match=name):
        TrainConfig.from_settings({"optimizer": "adam", name: parse(name, text)})


@pytest.mark.parametrize(("name", "value"), [("lr", 1e40), ("weight_decay", 1e308)])
def test_a_number_beyond_float32_is_refused(name, value):
    """torch would refuse it in the middle of a training, with an error of its own."""
    with pytest.raises(UserError, match=rf"^{name} is too large: 32-bit numbers end at 3\.4e\+38\.$"):
        TrainConfig.from_settings({name: value})
    assert TrainConfig(lr=3.4e38).lr == 3.4e38


def test_augment_of_earlier_versions():
    """Files and links of earlier versions have `augment`: true is flip with a shift of 2, false is neither.

    A new name in the same settings takes precedence.
    """
    on, off = (TrainConfig.from_settings({"augment": value}) for value in (True, False))
    assert (on.flip, on.shift, off.flip, off.shift) == (True, 2, False, 0)
    assert TrainConfig().changed({"augment": False}) == off
    mixed = TrainConfig.from_settings({"augment": False, "shift": 1})
    assert (mixed.flip, mixed.shift) == (False, 1)
    assert parse("augment", "false") is False
    with pytest.raises(UserError, match=r"^augment is either true or false, not 'on'\.$"):
        parse("augment", "on")
