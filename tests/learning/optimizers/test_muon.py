"""Muon equals torch's Muon on matrices and torch's AdamW on everything else."""

import pytest
import torch
from torch import nn

from trainer.learning.optimizers.muon import Muon


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def train(optimizer, parameters, steps=4):
    """Takes steps by random gradients; returns the parameters."""
    for step in range(steps):
        for index, parameter in enumerate(parameters):
            parameter.grad = random(*parameter.shape, seed=100 * step + index)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


SETTINGS = [
    {},
    {"lr": 0.02, "momentum": 0.8, "weight_decay": 0.1},
    {"nesterov": False, "ns_steps": 3},
    {"adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.05},
]


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (6, 6)], ids=str)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_matrices_are_trained_as_by_torchs_muon(settings, shape, monkeypatch):
    """In float32, which torch rounds to bfloat16 unless it is stopped from doing so."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    ours, theirs, output = (nn.Parameter(random(*shape)) for _ in range(3))
    (result, _) = train(Muon([ours, output], **{"lr": 0.01, **settings}), [ours, output])
    (expected,) = train(torch.optim.Muon([theirs], **{"lr": 0.01, "weight_decay": 0.0, **settings}), [theirs])
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
    assert (result - random(*shape)).abs().max() > 0.01


def test_torchs_bfloat16_gives_the_same_but_for_its_rounding():
    """Its three digits."""
    ours, theirs, output = (nn.Parameter(random(16, 40)) for _ in range(3))
    (result, _) = train(Muon([ours, output], lr=0.02), [ours, output], steps=1)
    (expected,) = train(torch.optim.Muon([theirs], lr=0.02, weight_decay=0.0), [theirs], steps=1)
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-4)


def test_filters_are_trained_as_matrices():
    """A convolution's filters, of any memory layout, are flattened to out × in·height·width."""
    filters = nn.Parameter(random(8, 3, 5, 5).to(memory_format=torch.channels_last))
    matrix, output, last = (nn.Parameter(random(8, 75)) for _ in range(3))
    with torch.no_grad():
        matrix.copy_(filters.flatten(1))
    for parameters, optimizer in (
        ([filters, output], Muon([filters, output], lr=0.01)),
        ([matrix, last], Muon([matrix, last], lr=0.01)),
    ):
        gradient = random(8, 3, 5, 5, seed=1)
        for parameter in parameters:
            parameter.grad = gradient.reshape(parameter.shape)
        optimizer.step()
    torch.testing.assert_close(filters.detach().flatten(1), matrix.detach())


def test_vectors_and_the_last_layer_are_trained_as_by_torchs_adamw():
    """With adamw_lr, and torch's default betas."""
    hidden, bias, output, last = shapes = [(4, 6), (4,), (3, 4), (3,)]
    ours = [nn.Parameter(random(*shape)) for shape in shapes]
    theirs = [nn.Parameter(random(*shape)) for shape in shapes]
    results = train(Muon(ours, lr=0.01, adamw_lr=0.02, weight_decay=0.1), ours)
    expected = train(torch.optim.AdamW(theirs, lr=0.02, weight_decay=0.1), theirs)
    for result, other in list(zip(results, expected, strict=True))[1:]:
        torch.testing.assert_close(result, other)
    assert not torch.allclose(results[0], expected[0])
    assert (hidden, bias, output, last) == tuple(parameter.shape for parameter in ours)


def test_the_update_has_singular_values_about_one():
    """The defining property: all directions of a layer move by about the same amount."""
    hidden, output = nn.Parameter(torch.zeros(16, 48)), nn.Parameter(torch.zeros(2, 2))
    hidden.grad = random(16, 4) @ random(4, 48, seed=1) + 0.3 * random(16, 48, seed=2)  # far from equal
    Muon([hidden, output], lr=1.0, momentum=0.0, nesterov=False).step()
    values = torch.linalg.svdvals(hidden.detach())
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_a_schedule_changes_both_learning_rates_in_proportion():
    """Half the lr halves AdamW's too."""
    steps = []
    for factor in (1.0, 0.5):
        bias = nn.Parameter(torch.zeros(3))
        optimizer = Muon([bias], lr=0.01, adamw_lr=0.004)
        for group in optimizer.param_groups:
            group["lr"] *= factor
        bias.grad = torch.ones(3)
        optimizer.step()
        steps.append(bias[0].item())
    assert steps == pytest.approx([-0.004, -0.002])
