"""The settings' widgets: every setting has one, and what they show is what is trained."""

import pytest

from trainer.settings.config import SETTINGS, TrainConfig
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.schedulers import SCHEDULERS
from ui.parts import fields


def shown(optimizer="sgd", scheduler="onecycle", **changed):
    """The values of all widgets, with a row's defaults in sight, as the page would send them."""
    values = {name: fields.default(name, optimizer, scheduler) for name in SETTINGS}
    return {**values, "optimizer": optimizer, "scheduler": scheduler, **changed}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_untouched_widgets_are_the_defaults(optimizer, scheduler):
    """For each pair of rows, what stands in the widgets gives the config of the rows' own defaults."""
    config = fields.read_config(shown(optimizer, scheduler))
    assert config == TrainConfig(optimizer=optimizer, scheduler=scheduler)


def test_what_stays_in_hidden_widgets_does_not_count():
    """SGD's momentum, out of sight behind Adam, is not taken for a setting of Adam."""
    assert fields.read_config(shown("adam", momentum=0.9, gamma=0.1)).momentum is None


def test_an_unset_setting_and_a_list_are_read_from_text():
    """A number that may be unset and a list stand in text boxes."""
    config = fields.read_config(shown("adam", "cosine", T_max="7", betas="0.8 0.9"))
    assert (config.T_max, config.betas) == (7, (0.8, 0.9))
    assert fields.read_config(shown("adam", "cosine", T_max="")).T_max is None


@pytest.mark.parametrize(
    "wrong",
    [
        *({"optimizer": None}, {"optimizer": []}, {"T_max": "x"}, {"betas": "1"}, {"epochs": 0}, {"batch_size": 2.5}),
        *({"lr": None}, {"betas": ""}),  # emptied: they would be trained with another value than the page shows
    ],
)
def test_wrong_values_are_told(wrong):
    """Each gives ValueError with a sentence, as a mistake on the page does."""
    with pytest.raises(ValueError, match=r"\.$"):
        fields.read_config({**shown("adam", "cosine"), **wrong})


def test_every_setting_has_its_help_beside_it():
    """The widget says what the setting does, under torch's own name."""
    for name, declared in SETTINGS.items():
        widget = fields.build(name)
        assert (widget.label, widget.info.key) == (name, declared.help)
