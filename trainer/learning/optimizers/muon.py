"""Muon, for all parameters of a network in one optimizer."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class Muon(torch.optim.Optimizer):
    """Steps of equal size in all directions for the hidden layers, and AdamW for everything else.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a weight
    matrix by the nearest one whose singular values are all about 1. It is used for matrices and for
    convolution filters, flattened to out × in·height·width. The last matrix, which belongs to the
    output layer, and all vectors are trained by AdamW, whose learning rate is `adamw_lr` where Muon's is
    `lr`: a schedule changes both in proportion.

    torch.optim.Muon takes the same settings, but accepts matrices only. It computes in bfloat16; float32
    costs little for a small network, and its rounding does not make a training on two processes differ from
    one on a single process.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 0.01,
        adamw_lr: float = 0.003,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        ns_steps: int = 5,
        adjust_lr_fn: str = "original",
    ):
        params = list(params)
        hidden = [p for p in params if p.ndim > 1][:-1]
        hidden_ids = set(map(id, hidden))
        others = [p for p in params if id(p) not in hidden_ids]
        defaults = {
            "lr": lr,
            "adamw_lr_ratio": adamw_lr / lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        groups = [{"params": hidden, "is_hidden": True}, {"params": others, "is_hidden": False}]
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            update = _muon if group["is_hidden"] else _adamw
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, parameter.grad, self.state[parameter], group)


def _muon(weight: torch.Tensor, grad: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state["momentum_buffer"] = torch.zeros_like(weight)
    momentum = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
    direction = grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
    matrix = direction.flatten(1)
    rows, columns = matrix.shape
    # torch's names for Jordan's factor, and for that of Liu et al. (2025, arXiv:2502.16982), with which steps
    # are as large as AdamW's.
    factors = {
        "original": math.sqrt(max(1, rows / columns)),
        "match_rms_adamw": 0.2 * math.sqrt(max(rows, columns)),
    }
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    step = _orthogonalized(matrix, group["ns_steps"]).view(weight.shape)
    weight.add_(step, alpha=-group["lr"] * factors[group["adjust_lr_fn"]])


def _orthogonalized(matrix: torch.Tensor, steps: int) -> torch.Tensor:
    """Returns a matrix with the singular vectors of `matrix` and singular values of about 1.

    By the Newton–Schulz iteration of Jordan et al., whose coefficients bring small singular values up fast.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    result = matrix.T if is_tall else matrix
    result = result / result.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = result @ result.T
        result = 3.4445 * result + (-4.7750 * gram + 2.0315 * gram @ gram) @ result
    return result.T if is_tall else result


def _adamw(weight: torch.Tensor, grad: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """Updates a weight as torch.optim.AdamW does, with its default betas and eps."""
    if not state:
        state.update(step=0, exp_avg=torch.zeros_like(weight), exp_avg_sq=torch.zeros_like(weight))
    beta1, beta2, eps, lr = 0.9, 0.999, 1e-8, group["lr"] * group["adamw_lr_ratio"]
    state["step"] += 1
    mean = state["exp_avg"].lerp_(grad, 1 - beta1)
    square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    denominator = (square.sqrt() / math.sqrt(1 - beta2 ** state["step"])).add_(eps)
    weight.mul_(1 - lr * group["weight_decay"])
    weight.addcdiv_(mean, denominator, value=-lr / (1 - beta1 ** state["step"]))
