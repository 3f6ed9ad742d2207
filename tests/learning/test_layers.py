"""The statistics of the layers: what is measured, when, and what they show of the lessons' mistakes."""

import copy
import itertools
import math

import pytest
import torch
from cases import first_is_quick
from torch.nn import functional

from trainer.learning.distributed import ALONE
from trainer.learning.layers import LayerProbe, is_measured, layers_of
from trainer.learning.learner import start_training, train_batch
from trainer.learning.loop import prepare, train
from trainer.runs.events import LayersMeasured
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS

CPU = torch.device("cpu")


def measured(config, data):
    return [event for event in train(config, data) if isinstance(event, LayersMeasured)]


@pytest.mark.parametrize(
    "settings",
    first_is_quick(
        [
            {"optimizer": "sgd", "lr": 0.1},
            {"optimizer": "adamw"},
            {"optimizer": "sam"},
            {"optimizer": "muon"},
            {"optimizer": "sgd_schedulefree"},
            {"model": "fast"},
            {"model": "fast", "precision": "bfloat16"},
            {"zero_grad_every": 2},
        ]
    ),
    ids=str,
)
def test_the_figures_are_those_of_the_update(settings, tiny):
    """Norms of weights, gradient and update equal those computed from copies of the network and from autograd."""
    config = TrainConfig(epochs=2, batch_size=13, scheduler="constant", **settings)
    split, learner = prepare(config, tiny, device=CPU, resume=None)
    start_training(learner)
    images, labels = split.images[:13], split.labels[:13]
    every = config.zero_grad_every
    for step in range(1, every):
        train_batch(config, learner, images, labels, step)
    before = copy.deepcopy(learner.model)
    probe = LayerProbe(learner.model.network)
    train_batch(config, learner, images, labels, every, probe=probe)
    weight_norm, grad_norm, update_ratio, _ = probe.figures(ALONE)

    with torch.autocast("cpu", getattr(torch, config.precision), config.precision != "float32"):
        loss = functional.cross_entropy(before(images), labels)
    weights = [layer.module.weight for layer in layers_of(before.network)]
    after = [layer.module.weight for layer in layers_of(learner.model.network)]
    expected = [w.norm() for w in weights]
    torch.testing.assert_close(weight_norm, torch.stack(expected).detach())
    gradients = torch.autograd.grad(loss, weights)
    torch.testing.assert_close(grad_norm, torch.stack([g.norm() for g in gradients]), rtol=1e-3, atol=1e-6)
    ratios = [(b - a).norm() / a.norm() for a, b in zip(weights, after, strict=True)]
    torch.testing.assert_close(update_ratio, torch.stack(ratios).detach())
    assert (update_ratio > 0).all()


def test_relus_that_are_never_active(tiny):
    """Eight of 32 filters whose bias keeps them below 0 are a quarter; the last layer has no ReLU."""
    config = TrainConfig(epochs=1, batch_size=13, scheduler="constant")
    split, learner = prepare(config, tiny, device=CPU, resume=None)
    start_training(learner)
    with torch.no_grad():
        learner.model.network.conv2.bias[:8] = -1e3
        learner.model.network.conv2.bias[8:] = 1e3
    probe = LayerProbe(learner.model.network)
    train_batch(config, learner, split.images[:13], split.labels[:13], 1, probe=probe)
    inactive = probe.figures(ALONE)[3].tolist()
    assert inactive[1] == 0.25
    assert all(0 <= share <= 1 for share in inactive[:4])
    assert math.isnan(inactive[4])
    assert not any(module._forward_hooks for module in learner.model.modules())


def test_few_steps_are_measured():
    """About one update in fifty and 212 of any run, and the first ones more often."""
    for epochs, batches, every in itertools.product((1, 10, 60), (3, 156, 782), (0, 1, 4)):
        num_steps = epochs * batches
        steps = [step for step in range(1, num_steps + 1) if is_measured(step, num_steps, every)]
        assert len(steps) <= 12 + min(200, num_steps // 50)
        assert all(step % max(1, every) == 0 for step in steps)
    assert [step for step in range(1, 157) if is_measured(step, 156, 1)] == [1, 2, 4, 8, 16, 32, 50, 100, 150]


@pytest.mark.slow
def test_the_frozen_schedule_updates_nothing(images):
    """With a step of the schedule at each batch every layer's updates fall to nothing; at each epoch they do not."""
    lesson = LESSONS["adam-step-per-batch"]
    runs = [measured(config.changed({"epochs": 20}), images) for config in (lesson.config, *lesson.compared)]
    frozen, fixed = (run[-1] for run in runs)
    assert frozen.step == fixed.step >= 50
    assert max(frozen.update_ratio) < 1e-9
    assert min(fixed.update_ratio) > 1e-6


@pytest.mark.slow
def test_a_second_softmax_makes_all_gradients_tiny(images):
    """From the first step on, every layer's gradient is a fraction of what it is without."""
    lesson = LESSONS["softmax-plateau"]
    wrong, right = (measured(config.changed({"epochs": 2}), images) for config in (lesson.config, *lesson.compared))
    for one, other in zip(wrong, right, strict=True):
        assert all(small < 0.2 * large for small, large in zip(one.grad_norm, other.grad_norm, strict=True))


@pytest.mark.slow
def test_gradients_that_are_never_cleared_grow(images):
    """In every layer, from one measured step to the next, to many times those of a run that clears them."""
    lesson = LESSONS["zero-grad-never"]
    wrong, right = (measured(config.changed({"epochs": 11}), images) for config in (lesson.config, *lesson.compared))
    assert wrong[0].grad_norm == right[0].grad_norm
    for layer in range(5):
        norms = [each.grad_norm[layer] for each in wrong if each.grad_norm[layer] is not None]
        assert len(norms) >= 4
        assert norms == sorted(norms)
        assert norms[-1] > 5 * max(each.grad_norm[layer] for each in right)
