"""SAM steps by the gradient at the worst point nearby, and by nothing else."""

import pytest
import torch
from torch import nn

from trainer.learning.optimizers.sam import SAM, SAMAdamW

BASES = [(SAM, torch.optim.SGD, {"momentum": 0.9}), (SAMAdamW, torch.optim.AdamW, {"weight_decay": 0.1})]


def loss(weight):
    return (weight**4).sum() + weight.prod()


@pytest.mark.parametrize(("sam", "base", "settings"), BASES)
def test_a_step_is_the_formulas(sam, base, settings):
    """w + rho·g/|g| gives the gradient, and w takes the base's step by it (Foret et al. 2021, algorithm 1)."""
    ours, theirs = (nn.Parameter(torch.tensor([1.0, -2.0, 0.5])) for _ in range(2))
    optimizer, other = sam([ours], lr=0.01, rho=0.1, **settings), base([theirs], lr=0.01, **settings)

    def again():
        optimizer.zero_grad()
        loss(ours).backward()

    for _ in range(3):
        again()
        optimizer.step(again)

        (gradient,) = torch.autograd.grad(loss(theirs), theirs)
        worst = (theirs + 0.1 * gradient / gradient.norm()).detach().requires_grad_()
        (theirs.grad,) = torch.autograd.grad(loss(worst), worst)
        other.step()
    torch.testing.assert_close(ours, theirs)


def test_without_a_gradient_nothing_moves():
    """At a stationary point there is no direction of ascent, and no division by 0."""
    weight = nn.Parameter(torch.zeros(3))
    optimizer = SAM([weight], lr=0.1, momentum=0.0)
    weight.grad = torch.zeros(3)
    optimizer.step(lambda: None)
    assert weight.tolist() == [0.0, 0.0, 0.0]


def test_weights_return_exactly():
    """The perturbation is undone bit for bit, so that a base that does not step leaves the weights."""
    weight = nn.Parameter(torch.randn(1000, generator=torch.Generator().manual_seed(0)))
    before = weight.detach().clone()
    optimizer = SAM([weight], lr=0.0, rho=0.37)
    weight.grad = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    seen = []
    optimizer.step(lambda: seen.append(weight.detach().clone()))
    assert torch.equal(weight, before)
    assert (seen[0] - before).norm().item() == pytest.approx(0.37, rel=1e-4)
