"""The images that are trained on, and those that are kept aside from them."""

from dataclasses import replace

import pytest
import torch
from cases import finish
from safetensors.torch import load

from trainer.images.image_data import pixel_statistics
from trainer.learning.loop import evaluate, train
from trainer.learning.training_set import (
    batches_per_epoch,
    holdout_split,
    is_held_out,
    num_training_images,
    training_split,
    training_statistics,
)
from trainer.networks.model import OptimizerLabModel
from trainer.runs.events import CheckpointReady, EpochEnded
from trainer.settings.config import TrainConfig

CONFIG = TrainConfig(epochs=2, batch_size=8, scheduler="constant")


def pictures(split):
    return {bytes(image.flatten().tolist()) for image in split.images}


def test_the_two_parts_are_the_whole(images):
    """No image is in both, none is lost, and their order is kept."""
    config = replace(CONFIG, holdout=0.1, num_images=500)
    trained, held_out = training_split(config, images), holdout_split(config, images)
    assert len(trained.labels) + len(held_out.labels) == 500
    assert not pictures(trained) & pictures(held_out)
    assert pictures(trained) | pictures(held_out) == pictures(training_split(replace(config, holdout=0.0), images))
    assert num_training_images(config, images) == len(trained.labels)
    assert batches_per_epoch(config, images) == -(-len(trained.labels) // 8)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.3, 0.5, 1 / 3])
def test_each_class_gives_the_same_share(share):
    """Rounded, whatever the order of the classes."""
    labels = torch.randint(0, 10, (1000,), generator=torch.Generator().manual_seed(0))
    held_out = is_held_out(labels, share)
    for label in range(10):
        count = int((labels == label).sum())
        assert int(held_out[labels == label].sum()) == int(count * share + 0.49)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_class_keeps_its_only_image(share):
    assert not is_held_out(torch.arange(5), share).any()


def test_the_runs_seed_changes_nothing(images):
    """All cells of a sweep keep the same images aside."""
    kept = [pictures(holdout_split(replace(CONFIG, holdout=0.2, seed=seed), images)) for seed in (0, 1)]
    assert kept[0] == kept[1]


def test_what_is_kept_aside_is_never_trained_on(images, monkeypatch):
    """No batch contains any of it, augmented or not, and neither do the pixel statistics."""
    config = replace(CONFIG, holdout=0.2, flip=False, shift=0, num_images=100)
    seen = set()
    from trainer.learning import loop

    original = loop.train_batch

    def spy(given, learner, batch, labels, step, **more):
        seen.update(bytes(image.flatten().tolist()) for image in batch)
        return original(given, learner, batch, labels, step, **more)

    monkeypatch.setattr(loop, "train_batch", spy)
    list(train(config, images))
    assert seen == pictures(training_split(config, images))
    assert not seen & pictures(holdout_split(config, images))
    assert training_statistics(config, images) == pixel_statistics(training_split(config, images))


@pytest.mark.slow
def test_it_is_evaluated_after_each_epoch(images):
    """Loss and accuracy are those of the images kept aside; without a holdout they are None."""
    config = replace(CONFIG, holdout=0.2)
    events = list(train(config, images))
    rows = [event for event in events if isinstance(event, EpochEnded)]
    for row, ready in zip(rows, [event for event in events if isinstance(event, CheckpointReady)], strict=True):
        network = OptimizerLabModel(**ready.model_config)
        network.load_state_dict(load(ready.model))
        results = finish(evaluate(network, holdout_split(config, images)))
        assert (row.holdout_loss, row.holdout_accuracy) == (results.loss, results.accuracy)
    without = [event for event in train(CONFIG, images) if isinstance(event, EpochEnded)]
    assert {(row.holdout_loss, row.holdout_accuracy) for row in without} == {(None, None)}


def test_without_images_the_number_is_that_of_cifar10():
    """For a preview while the images still load."""
    assert num_training_images(replace(CONFIG, holdout=0.1), None) == 45_000
