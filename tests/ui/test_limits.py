"""What a Space limits, and that nothing is limited elsewhere."""

import math
from dataclasses import fields

import pytest

from trainer.settings.config import TrainConfig
from ui.limits import Limits, find_limits


def test_only_a_space_limits_unasked():
    """At home everything is allowed; on a Space every limit is a number."""
    home, space = find_limits({}), find_limits({"SPACE_ID": "owner/lab"})
    assert home == Limits()
    assert home.epochs == home.seconds == home.runs == home.days == home.disk_gb == math.inf
    assert all(0 < getattr(space, part.name) < math.inf for part in fields(Limits))


@pytest.mark.parametrize("name", [part.name for part in fields(Limits)])
def test_the_environment_overrides_each(name):
    """Anywhere; inf lifts a Space's own; an empty variable is none."""
    variable = f"OPTIMIZER_LAB_MAX_{name.upper()}"
    assert getattr(find_limits({variable: "7"}), name) == 7
    assert getattr(find_limits({variable: "inf", "SPACE_ID": "owner/lab"}), name) == math.inf
    assert find_limits({variable: "", "SPACE_ID": "owner/lab"}) == find_limits({"SPACE_ID": "owner/lab"})


@pytest.mark.parametrize("text", ["0", "-3", "many", "nan"])
def test_what_is_no_limit_is_told(text):
    """With the variable's name."""
    with pytest.raises(ValueError, match=r"OPTIMIZER_LAB_MAX_EPOCHS must be a number above 0"):
        find_limits({"OPTIMIZER_LAB_MAX_EPOCHS": text})


def test_too_many_epochs_are_told():
    """The limit itself is allowed; of several runs, each counts."""
    limits = Limits(epochs=5)
    limits.check([TrainConfig(epochs=5)])
    with pytest.raises(ValueError, match="up to 5 epochs"):
        limits.check([TrainConfig(epochs=1), TrainConfig(epochs=6)])
