"""Measures the layers of a network in some of its updates: weights, gradients, the update itself and its ReLUs."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer.learning.distributed import World

# A measured batch takes up to a third longer, so one in fifty costs less than a hundredth of the training's time.
_FEWEST_UPDATES, _MOST_MEASURED = 50, 200


def is_measured(step: int, num_steps: int, zero_grad_every: int) -> bool:
    """Whether to measure the layers in a step, counted from 1, of a run of `num_steps`.

    Measured are some of the steps that update the weights: about _MOST_MEASURED of a long run, evenly spaced, and
    before the first of these the updates 1, 2, 4, 8 and so on, because a network changes most at the start.
    """
    every = max(1, zero_grad_every)
    update, batches_since = divmod(step, every)
    if batches_since or not update:
        return False
    interval = max(_FEWEST_UPDATES, math.ceil(num_steps / every / _MOST_MEASURED))
    return update % interval == 0 or (update < interval and update.bit_count() == 1)


class Layer(NamedTuple):
    """A convolution or a linear layer: its name, and the ReLU that follows it, if any."""

    name: str
    module: nn.Conv2d | nn.Linear
    relu: nn.ReLU | None


def layers_of(network: nn.Module) -> list[Layer]:
    """Returns the convolutions and linear layers of a sequential network, in its order."""
    layers: list[Layer] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            layers.append(Layer(name, module, None))
        elif isinstance(module, nn.ReLU) and layers:
            layers[-1] = layers[-1]._replace(relu=module)
    return layers


class LayerProbe:
    """Measures the layers of a network around one update.

    The forward pass runs inside `watching_relus`, `before_update` comes after the gradients, `after_update` after the
    update, and `figures` last.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = layers_of(network)
        self._weights = [layer.module.weight for layer in self._layers]
        device = self._weights[0].device
        self._is_active = [torch.zeros(len(weight), device=device) for weight in self._weights]

    @contextmanager
    def watching_relus(self) -> Iterator[None]:
        """Notes which filters and neurons are active for any picture of a batch that passes through the network."""
        relus = [(index, layer.relu) for index, layer in enumerate(self._layers) if layer.relu]
        hooks = [relu.register_forward_hook(self._note(index)) for index, relu in relus]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, index: int) -> Callable[[nn.Module, object, Tensor], None]:
        def note(_relu: nn.Module, _inputs: object, output: Tensor) -> None:
            others = [dim for dim in range(output.dim()) if dim != 1]
            self._is_active[index] = (output.detach().amax(others) > 0).float()

        return note

    @torch.no_grad()
    def before_update(self, scale: Tensor | float = 1.0) -> None:
        """Measures the gradients, which are `scale` times too large, and keeps the weights."""
        zero = torch.zeros_like(self._is_active[0][0])
        gradients = [weight.grad for weight in self._weights]
        self._gradient_norms = [zero if each is None else torch.linalg.vector_norm(each) / scale for each in gradients]
        self._before = [weight.clone() for weight in self._weights]

    @torch.no_grad()
    def after_update(self) -> None:
        """Measures the weights before the update, and how far it moved them."""
        self._weight_norms = [torch.linalg.vector_norm(before) for before in self._before]
        moves = zip(self._weights, self._before, strict=True)
        self._update_norms = [torch.linalg.vector_norm(weight - before) for weight, before in moves]

    def figures(self, world: World) -> Tensor:
        """Returns the columns of a LayersMeasured, float32 [4, layers], on the device.

        With several ranks a ReLU is active if it is on any of them.
        """
        world.average(self._is_active)
        inactive = [
            (active == 0).float().mean() if layer.relu else torch.full_like(active[0], math.nan)
            for layer, active in zip(self._layers, self._is_active, strict=True)
        ]
        weights, updates = torch.stack(self._weight_norms), torch.stack(self._update_norms)
        return torch.stack([weights, torch.stack(self._gradient_norms), updates / weights, torch.stack(inactive)])
