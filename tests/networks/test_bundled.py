"""The checkpoints that come with the app."""

import re

import pytest
from cases import finish

from trainer import OptimizerLabModel, evaluate
from trainer.networks.pretrained import BUNDLED
from ui.stored_runs import bundled

# The least accuracy of each on the 10,000 test pictures of CIFAR-10 (JPEG).
LEAST_ACCURACY = {"quick": 0.81, "fast": 0.90}


def test_every_bundled_checkpoint_loads():
    """Each has class names and weights, and all together are small enough for git."""
    assert "quick" in bundled()
    for name in bundled():
        model = OptimizerLabModel.from_pretrained(BUNDLED / name)
        assert len(model.class_names) == 10
        assert model.config["architecture"] == name
    assert sum(path.stat().st_size for path in BUNDLED.glob("*/model.safetensors")) < 10_000_000


@pytest.mark.parametrize("name", bundled())
def test_the_accuracy_on_the_card_is_true(name, real_images):
    """Measured on the real test pictures; the weights may have been rounded after the card was written."""
    results = finish(evaluate(OptimizerLabModel.from_pretrained(BUNDLED / name), real_images.test))
    claim = re.search(
        r"classified ([\d.]+)% of the test pictures", (BUNDLED / name / "README.md").read_text(encoding="utf-8")
    )
    assert results.accuracy == pytest.approx(float(claim[1]) / 100, abs=5e-4)
    assert results.accuracy >= LEAST_ACCURACY[name]
