"""The optimizers that come from packages follow their papers' formulas, written out here in float64."""

import math

import pytest
import torch
from torch import nn

from trainer.learning.optimizers import build_optimizer
from trainer.settings.config import TrainConfig

STEPS = 6
START = [[0.5, -1.0], [2.0, 0.25]]  # a matrix: MARS trains vectors by AdamW


def gradient(weight):
    """The gradient of a function whose curvature is not the same in all directions."""
    return 4 * weight**3 - weight.flip(0) + 0.1


def by_package(name, **settings):
    """Returns the weights after each step by the optimizer that the config builds."""
    weight = nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = build_optimizer(TrainConfig(optimizer=name, **settings), [weight])
    if hasattr(optimizer, "train"):
        optimizer.train()
    path = []
    for _ in range(STEPS):
        weight.grad = gradient(weight.detach())
        optimizer.step()
        path.append(weight.detach().clone())
    if hasattr(optimizer, "eval"):
        optimizer.eval()
        path.append(weight.detach().clone())
    return path


def lion(w, *, lr, b1, b2, decay):
    """Chen et al. 2023, program 1."""
    m = torch.zeros_like(w)
    for _ in range(STEPS):
        g = gradient(w)
        w = w - lr * (torch.sign(b1 * m + (1 - b1) * g) + decay * w)
        m = b2 * m + (1 - b2) * g
        yield w


def adan(w, *, lr, b1, b2, b3, eps, decay):
    """Xie et al. 2023, algorithm 1 (their betas are 1 minus ours), with the bias corrections of their code."""
    m, v, n, previous = torch.zeros_like(w), torch.zeros_like(w), torch.zeros_like(w), gradient(w)
    for k in range(1, STEPS + 1):
        g = gradient(w)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (g - previous)
        n = b3 * n + (1 - b3) * (g + b2 * (g - previous)) ** 2
        step = lr / ((n / (1 - b3**k)).sqrt() + eps)
        w = (w - step * (m / (1 - b1**k) + b2 * v / (1 - b2**k))) / (1 + decay * lr)
        previous = g
        yield w


def mars(w, *, lr, b1, b2, gamma, eps, decay):
    """Yuan et al. 2024, algorithm 2 (MARS-AdamW) with the previous batch's gradient; no change at the first step."""
    m, v, previous = torch.zeros_like(w), torch.zeros_like(w), gradient(w)
    for k in range(1, STEPS + 1):
        g = gradient(w)
        c = g + gamma * b1 / (1 - b1) * (g - previous)
        c = c / max(1.0, c.norm().item())
        m = b1 * m + (1 - b1) * c
        v = b2 * v + (1 - b2) * c**2
        w = w - lr * ((m / (1 - b1**k)) / ((v / (1 - b2**k)).sqrt() + eps) + decay * w)
        previous = g
        yield w


def adopt(w, *, lr, b1, b2, eps):
    """Taniguchi et al. 2024, algorithm 2, with their code's clipping of the normalised gradient at k**0.333."""
    m, v = torch.zeros_like(w), gradient(w) ** 2
    yield w
    for k in range(1, STEPS):
        g = gradient(w)
        normal = g / torch.clamp(v.sqrt(), min=eps)
        normal = normal.clamp(-(k**0.333), k**0.333)
        m = b1 * m + (1 - b1) * normal
        w = w - lr * m
        v = b2 * v + (1 - b2) * g**2
        yield w


def schedule_free_sgd(w, *, lr, beta):
    """Defazio et al. 2024, equations 2 to 4: gradients at y, steps of z, and x, their mean, last."""
    x = z = w
    for k in range(1, STEPS + 1):
        z = z - lr * gradient((1 - beta) * z + beta * x)
        x = (1 - 1 / k) * x + z / k
        yield (1 - beta) * z + beta * x
    yield x


def schedule_free_adamw(w, *, lr, beta, b2, eps, decay):
    """Defazio et al. 2024, algorithm 1, with their code's bias correction."""
    x = z = y = w
    v = torch.zeros_like(w)
    for k in range(1, STEPS + 1):
        g = gradient(y)
        v = b2 * v + (1 - b2) * g**2
        z = z - lr * (g / ((v / (1 - b2**k)).sqrt() + eps) + decay * y)
        x = (1 - 1 / k) * x + z / k
        y = (1 - beta) * z + beta * x
        yield y
    yield x


def prodigy(w, *, b1, b2, eps, decay):
    """Mishchenko & Defazio 2024, algorithm 4, with lr 1; their code's sums are divided by d0, which cancels."""
    start, d, b3 = w, 1e-6, math.sqrt(b2)
    m, v, s, r = torch.zeros_like(w), torch.zeros_like(w), torch.zeros_like(w), 0.0
    largest = d
    for _ in range(STEPS):
        g = gradient(w)
        r = b3 * r + d * d * (g * (start - w)).sum().item()
        s = b3 * s + d * d * g
        m = b1 * m + (1 - b1) * d * g
        v = b2 * v + (1 - b2) * (d * g) ** 2
        estimate = r / s.abs().sum().item()
        used = d  # the step of their code is as large as d was before
        if d == 1e-6:
            d = max(d, estimate)
        largest = max(largest, estimate)
        d = largest
        w = w - used * decay * w
        w = w - used * m / (v.sqrt() + d * eps)
        yield w


CASES = [
    (
        "lion",
        {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.1},
        lion,
        {"lr": 0.01, "b1": 0.8, "b2": 0.9, "decay": 0.1},
    ),
    (
        "adan",
        {"lr": 0.05, "betas": (0.9, 0.8), "beta3": 0.7, "eps": 1e-6, "weight_decay": 0.1},
        adan,
        {"lr": 0.05, "b1": 0.9, "b2": 0.8, "b3": 0.7, "eps": 1e-6, "decay": 0.1},
    ),
    (
        "mars",
        {"lr": 0.05, "betas": (0.9, 0.8), "mars_gamma": 0.5, "eps": 1e-6, "weight_decay": 0.1},
        mars,
        {"lr": 0.05, "b1": 0.9, "b2": 0.8, "gamma": 0.5, "eps": 1e-6, "decay": 0.1},
    ),
    ("adopt", {"lr": 0.05, "betas": (0.9, 0.8), "eps": 1e-6}, adopt, {"lr": 0.05, "b1": 0.9, "b2": 0.8, "eps": 1e-6}),
    (
        "sgd_schedulefree",
        {"lr": 0.01, "momentum": 0.8, "weight_decay": 0.0},
        schedule_free_sgd,
        {"lr": 0.01, "beta": 0.8},
    ),
    (
        "adamw_schedulefree",
        {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1},
        schedule_free_adamw,
        {"lr": 0.05, "beta": 0.8, "b2": 0.9, "eps": 1e-6, "decay": 0.1},
    ),
    (
        "prodigy",
        {"betas": (0.8, 0.9), "eps": 1e-8, "weight_decay": 0.1},
        prodigy,
        {"b1": 0.8, "b2": 0.9, "eps": 1e-8, "decay": 0.1},
    ),
]


@pytest.mark.parametrize(("name", "settings", "formula", "values"), CASES, ids=[case[0] for case in CASES])
def test_a_package_follows_the_paper(name, settings, formula, values):
    """Each step of a small example, and for the schedule-free ones the weights to evaluate."""
    path = by_package(name, **settings)
    expected = list(formula(torch.tensor(START, dtype=torch.float64), **values))
    assert len(path) == len(expected)
    for weight, other in zip(path, expected, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-6, atol=1e-12)
    assert not torch.equal(path[-1], torch.tensor(START, dtype=torch.float64))


def test_prodigy_says_nothing(capfd):
    """Its package prints a line for a weight_decay, which a training must not do."""
    build_optimizer(TrainConfig(optimizer="prodigy", weight_decay=0.1), [nn.Parameter(torch.ones(2))])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["sgd_schedulefree", "adamw_schedulefree"])
def test_gradients_that_are_never_cleared_stay_gradients(name):
    """schedulefree overwrites them, which would turn zero_grad's lesson into another mistake."""
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = build_optimizer(TrainConfig(optimizer=name, zero_grad_every=0), [weight])
    optimizer.train()
    weight.grad = torch.tensor([3.0, -4.0])
    optimizer.step()
    assert weight.grad.tolist() == [3.0, -4.0]
    assert weight.tolist() != [1.0, 2.0]
