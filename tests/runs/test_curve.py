"""The card's picture shows the run's numbers."""

import torch
from torchvision.io import decode_png

from tests.runs.test_model_card import TRAINED, UNTRAINED
from trainer.runs.curve import draw
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig


def test_the_picture_is_the_runs():
    """A PNG wide enough to read, the same for the same run and another for another."""
    run = Run(config=TrainConfig(), history=[UNTRAINED, TRAINED])
    picture = draw(run)
    pixels = decode_png(torch.frombuffer(bytearray(picture), dtype=torch.uint8))
    assert pixels.shape[1] > 400
    assert pixels.shape[2] > 1200
    assert len(pixels.flatten(1).unique(dim=1)[0]) > 3
    assert draw(run) == picture
    assert draw(Run(config=TrainConfig(), history=[UNTRAINED])) != picture
