"""The widgets of the settings: every setting has one, and training uses the values that they show."""

import random
import re
from contextlib import suppress
from urllib.parse import parse_qsl

import gradio as gr
import pytest
from cases import ROWS

from trainer.errors import UserError
from trainer.settings.config import SETTINGS, TrainConfig, parse
from trainer.settings.presets import FIRST
from ui.parts.form import fields
from ui.tabs.train.setup import permalink


def page_values(optimizer="sgd", scheduler="onecycle", **changed):
    """Returns the values of all widgets as the page sends them: the defaults of the rows, except those in `changed`."""
    config = TrainConfig(optimizer=optimizer, scheduler=scheduler)
    values = {name: fields.value_of(name, config) for name in SETTINGS}
    return {**values, "optimizer": optimizer, "scheduler": scheduler, **changed}


@pytest.mark.parametrize(("optimizer", "scheduler"), ROWS)
def test_untouched_widgets_are_the_defaults(optimizer, scheduler):
    """For each optimizer and scheduler, the initial values of the widgets give the default config."""
    config = fields.read_config(page_values(optimizer, scheduler))
    assert config == TrainConfig(optimizer=optimizer, scheduler=scheduler)


def test_hidden_widgets_are_ignored():
    """SGD's momentum, which is hidden while Adam is chosen, is not used as a setting of Adam."""
    assert fields.read_config(page_values("adam", momentum=0.9, gamma=0.1)).momentum is None


def test_an_unset_setting_and_a_list_are_read_from_text():
    """Numbers that may be unset, and lists, have text boxes."""
    config = fields.read_config(page_values("adam", "cosine", T_max="7", betas="0.8 0.9"))
    assert (config.T_max, config.betas) == (7, (0.8, 0.9))
    assert fields.read_config(page_values("adam", "cosine", T_max="")).T_max is None


@pytest.mark.parametrize(
    "wrong",
    [
        *({"optimizer": None}, {"optimizer": []}, {"T_max": "x"}, {"betas": "1"}, {"epochs": 0}, {"batch_size": 2.5}),
        *({"lr": None}, {"betas": ""}),  # empty: training with the default would differ from what the page shows
    ],
)
def test_invalid_values_are_explained(wrong):
    """Each raises an error whose message is a sentence."""
    with pytest.raises(ValueError, match=r"\.$"):
        fields.read_config({**page_values("adam", "cosine"), **wrong})


def test_every_widget_has_the_name_and_the_help_of_its_setting():
    """The label contains torch's name, with other words if these say more, and the info is its help."""
    for name, declared in SETTINGS.items():
        widget = fields.build(name)
        assert widget.info.key == declared.help
        assert re.sub(" ", "_", widget.label.key.lower()).endswith(name.lower())


def random_config(chance: random.Random) -> TrainConfig:
    """Returns a valid config whose numbers have as many digits as they can."""
    while True:
        optimizer, scheduler = chance.choice(ROWS)
        settings = {"optimizer": optimizer, "scheduler": scheduler}
        own = TrainConfig(**settings).settings()
        for name in chance.sample(sorted(own.keys() - {"optimizer", "scheduler"}), 6):
            settings[name] = random_value(SETTINGS[name], own[name], chance)
        with suppress(UserError):  # a combination that is refused
            return TrainConfig(**settings)


def random_value(setting, value, chance):
    if setting.kind is bool:
        return chance.random() < 0.5
    if setting.kind is str:
        return chance.choice(setting.choices)
    if setting.kind is int:
        return value if setting.count != 1 else round(chance.uniform(max(setting.low, 1), min(setting.high, 1e6)))
    numbers = [chance.uniform(max(setting.low, 0), min(setting.high, 1)) for _ in range(setting.count)]
    return tuple(numbers) if setting.count != 1 else numbers[0]


def test_numbers_keep_every_digit():
    """What a link or the API says is what the page shows, trains, and links again."""
    chance = random.Random(20)
    widgets, about = {name: fields.build(name) for name in SETTINGS}, gr.Markdown()
    panel = fields.Panel(
        widgets=widgets, powers={}, moved=[], abouts={"optimizer": about, "scheduler": about}, paper=about
    )
    for _ in range(300):
        config = random_config(chance)
        shown = panel.show(config)
        values = {name: shown[widget]["value"] for name, widget in widgets.items()}
        assert fields.read_config(values) == config
        link = permalink.read(dict(parse_qsl(permalink.write(config))))
        assert (link.config if link else FIRST) == config


@pytest.mark.parametrize(
    "settings",
    [
        {"scheduler": "cosine", "T_max": 1_000_000},
        {"optimizer": "adam", "betas": (0.9999999, 0.123456789)},
        {"scheduler": "cyclic", "base_lr": 0.00123456789},
    ],
)
def test_numbers_that_once_lost_their_digits(settings):
    config = TrainConfig(**settings)
    name, value = list(settings.items())[-1]
    assert parse(name, str(fields.value_of(name, config))) == value
