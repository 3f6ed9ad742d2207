"""The checkpoint that comes with the app."""

import pytest

from trainer import OptimizerLabModel, evaluate
from ui.lab import BUNDLED, bundled


def exhausted(generator):
    """What a generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


def test_every_bundled_checkpoint_loads():
    """Each has class names and weights, and is small enough for git."""
    assert bundled() == ["quick"]
    for name in bundled():
        model = OptimizerLabModel.from_pretrained(BUNDLED / name)
        assert len(model.class_names) == 10
        assert (BUNDLED / name / "model.safetensors").stat().st_size < 5_000_000


def test_quick_is_as_good_as_its_card_says(real_images):
    """Measured again on the real test pictures."""
    _, accuracy = exhausted(evaluate(OptimizerLabModel.from_pretrained(BUNDLED / "quick"), real_images.test))
    assert f"{accuracy:.2%} of the test pictures" in (BUNDLED / "quick" / "README.md").read_text().replace("\\", "")
    assert accuracy == pytest.approx(0.7834, abs=1e-4)
