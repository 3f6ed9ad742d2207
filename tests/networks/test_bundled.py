"""The checkpoints that come with the app."""

import re

import pytest

from trainer import OptimizerLabModel, evaluate
from ui.lab import BUNDLED, bundled

# What each must be good for, of the 10,000 test pictures of CIFAR-10 (JPEG).
WANTED = {"quick": 0.75, "fast": 0.90}


def exhausted(generator):
    """What a generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


def test_every_bundled_checkpoint_loads():
    """Each has class names and weights; together they are small enough for git."""
    assert "quick" in bundled()
    for name in bundled():
        model = OptimizerLabModel.from_pretrained(BUNDLED / name)
        assert len(model.class_names) == 10
        assert model.config["architecture"] == name
    assert sum(path.stat().st_size for path in BUNDLED.glob("*/model.safetensors")) < 10_000_000


@pytest.mark.parametrize("name", bundled())
def test_it_is_as_good_as_its_card_says(name, real_images):
    """Measured again on the real test pictures; the weights may have been rounded after the card was written."""
    _, accuracy = exhausted(evaluate(OptimizerLabModel.from_pretrained(BUNDLED / name), real_images.test))
    told = re.search(r"it had ([\d.]+)% of the test pictures", (BUNDLED / name / "README.md").read_text())
    assert accuracy == pytest.approx(float(told[1]) / 100, abs=5e-4)
    assert accuracy >= WANTED[name]
