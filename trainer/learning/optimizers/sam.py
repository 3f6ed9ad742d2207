"""Sharpness-aware minimization (SAM) over SGD and over AdamW."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class SharpnessAware(torch.optim.Optimizer):
    """Makes an optimizer step by the gradient at the worst point near the weights.

    The worst point is, to first order, the one at a distance of `rho` along the gradient (Foret et al.
    2021, arXiv:2010.01412). A step needs a second pass over the batch, and so takes about twice the time.
    """

    def __init__(self, params: Iterable[nn.Parameter], rho: float = 0.05, **settings: Any):
        super().__init__(params, **settings)
        for group in self.param_groups:
            group["rho"] = rho

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> None:  # type: ignore[override]
        """Updates the weights.

        `closure` clears the gradients and computes them anew, at the weights of that moment.
        """
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        weights = [p.clone() for p in parameters]
        norm = nn.utils.get_total_norm([p.grad for p in parameters]) + 1e-12  # a gradient of 0 stays 0
        for p in parameters:
            p.addcdiv_(p.grad, norm, value=self.param_groups[0]["rho"])
        with torch.enable_grad():
            closure()
        for p, weight in zip(parameters, weights, strict=True):
            p.copy_(weight)
        super().step()


class SAM(SharpnessAware, torch.optim.SGD):  # type: ignore[misc]  # its step needs the closure
    """SAM over torch's SGD, whose settings it takes besides `rho`."""


class SAMAdamW(SharpnessAware, torch.optim.AdamW):  # type: ignore[misc]
    """SAM over torch's AdamW, whose settings it takes besides `rho`."""
