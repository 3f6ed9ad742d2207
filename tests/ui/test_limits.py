"""The limits of a Space; elsewhere there are none by default."""

import math
from dataclasses import fields

import pytest

from trainer.settings.config import TrainConfig
from ui.limits import Limits, find_limits


def test_only_a_space_has_limits_by_default():
    """Elsewhere everything is allowed; on a Space every limit is finite."""
    home, space = find_limits({}), find_limits({"SPACE_ID": "owner/lab"})
    assert home == Limits()
    assert home.epochs == home.seconds == home.runs == home.days == home.disk_gb == math.inf
    assert all(0 < getattr(space, part.name) < math.inf for part in fields(Limits))


@pytest.mark.parametrize("name", [part.name for part in fields(Limits)])
def test_the_environment_overrides_each_limit(name):
    """On a Space and elsewhere; inf removes a Space's limit; an empty variable counts as unset."""
    variable = f"OPTIMIZER_LAB_MAX_{name.upper()}"
    assert getattr(find_limits({variable: "7"}), name) == 7
    assert getattr(find_limits({variable: "inf", "SPACE_ID": "owner/lab"}), name) == math.inf
    assert find_limits({variable: "", "SPACE_ID": "owner/lab"}) == find_limits({"SPACE_ID": "owner/lab"})


@pytest.mark.parametrize("text", ["0", "-3", "many", "nan"])
def test_an_invalid_limit_is_refused(text):
    """The error names the variable."""
    with pytest.raises(ValueError, match=r"OPTIMIZER_LAB_MAX_EPOCHS must be a number above 0"):
        find_limits({"OPTIMIZER_LAB_MAX_EPOCHS": text})


def test_a_batch_of_all_pictures_counts_as_that_many():
    """A batch_size of 0 is limited by num_images alone."""
    limits = Limits(batch_size=2048)
    limits.check([TrainConfig(batch_size=0, num_images=2048)])
    for num_images in (0, 2049):
        with pytest.raises(ValueError, match="up to 2048 pictures"):
            limits.check([TrainConfig(batch_size=0, num_images=num_images)])


def test_too_many_epochs_are_refused():
    """The limit itself is allowed; every run is checked."""
    limits = Limits(epochs=5)
    limits.check([TrainConfig(epochs=5)])
    with pytest.raises(ValueError, match="up to 5 epochs"):
        limits.check([TrainConfig(epochs=1), TrainConfig(epochs=6)])
