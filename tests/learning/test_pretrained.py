"""Trainings that start from the convolutions of a bundled network."""

import pytest
import torch
from image_sets import draw_arrows
from safetensors.torch import load

from trainer.errors import UserError
from trainer.images.image_data import from_pictures
from trainer.images.readers import Pictures
from trainer.learning.learner import build_model
from trainer.learning.loop import train
from trainer.networks import pretrained
from trainer.networks.pretrained import bundled_network
from trainer.runs.events import CheckpointReady, EpochEnded
from trainer.settings.config import MODELS, TrainConfig
from trainer.settings.presets import FIRST

SHORT = {"epochs": 1, "batch_size": 8, "scheduler": "constant"}


def first_and_last(config, data):
    """Returns the weights before and after the training."""
    ready = [event for event in train(config, data) if isinstance(event, CheckpointReady)]
    return load(ready[0].model), load(ready[-1].model)


def differing(one, other):
    """Returns the layers that differ."""
    return {name.split(".")[1] for name in one if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize("model", MODELS)
def test_only_the_layers_after_frozen_convolutions_are_trained(model, tiny):
    """Also with weight decay; batch normalisation keeps its means."""
    config = TrainConfig(model=model, pretrained="frozen", optimizer="adamw", weight_decay=0.1, **SHORT)
    first, last = first_and_last(config, tiny)
    assert differing(first, last) == ({"linear1", "linear2"} if model == "quick" else {"linear"})
    bundled = bundled_network(model).state_dict()
    convolutions = [name for name in first if "linear" not in name]
    assert len(convolutions) >= 6
    assert all(torch.equal(first[name], bundled[name]) for name in convolutions)


@pytest.mark.parametrize("model", MODELS)
def test_finetuned_convolutions_are_trained_too(model, tiny):
    """All layers change, and the first weights of the last layers are those of a network that is not pretrained."""
    config = TrainConfig(model=model, pretrained="finetuned", lr=0.001, **SHORT)
    first, last = first_and_last(config, tiny)
    assert differing(first, last) == {name.split(".")[1] for name in first}
    random = build_model(config.changed({"pretrained": "none"}), tiny, tiny.train).state_dict()
    assert all(torch.equal(first[name], random[name]) for name in first if "linear" in name)


def test_pixels_are_normalised_as_in_the_bundled_training(tiny, monkeypatch):
    """The convolutions expect its mean and deviation, and torch's global random state stays as it was."""
    monkeypatch.setattr(pretrained, "_networks", {})
    state = torch.get_rng_state()
    model = build_model(TrainConfig(pretrained="frozen"), tiny, tiny.train)
    assert torch.equal(state, torch.get_rng_state())
    assert [model.config[name] for name in ("mean", "std")] == [
        bundled_network("quick").config[name] for name in ("mean", "std")
    ]


def test_a_copy_without_bundled_networks_refuses(tiny, tmp_path, monkeypatch):
    """In one sentence, on the call."""
    monkeypatch.setattr(pretrained, "BUNDLED", tmp_path)
    monkeypatch.setattr(pretrained, "_networks", {})
    with pytest.raises(UserError, match="set pretrained to none"):
        train(TrainConfig(pretrained="frozen", batch_size=8), tiny)


@pytest.mark.slow
def test_few_pictures_are_enough():
    """Two classes of 50 drawn pictures, with the settings that the page suggests: new ones are recognised."""
    splits = (draw_arrows(num, seed=num) for num in (100, 60))
    data = from_pictures(Pictures("arrows", ("left", "right"), *splits), source="arrows", revision=None)
    config = FIRST.changed({"pretrained": "frozen", "flip": False, "batch_size": 16, "epochs": 30})
    *_, last = (event for event in train(config, data) if isinstance(event, EpochEnded))
    assert last.test_accuracy > 0.95
