"""The widgets of the settings: every setting has one, and training uses the values that they show."""

import pytest
from cases import ROWS

from trainer.settings.config import SETTINGS, TrainConfig
from ui.parts import fields


def page_values(optimizer="sgd", scheduler="onecycle", **changed):
    """Returns the values of all widgets as the page sends them: the defaults of the rows, except those in `changed`."""
    values = {name: fields.default(name, optimizer, scheduler) for name in SETTINGS}
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
    """The label is the setting's name, which is torch's, and the info its help."""
    for name, declared in SETTINGS.items():
        widget = fields.build(name)
        assert (widget.label, widget.info.key) == (name, declared.help)
