"""The convolutions of the networks that come with the app, for a training to start from."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from trainer.errors import UserError
from trainer.networks.model import OptimizerLabModel

BUNDLED = Path(__file__).parents[2] / "checkpoints"
"""The folder of the networks that come with the app, each in a folder with the name of its architecture."""

_HEAD = "linear"  # the name of a network's last layers begins so

_networks: dict[str, OptimizerLabModel] = {}  # those that this process has used or received, by architecture


def bundled_network(architecture: str) -> OptimizerLabModel:
    """Returns the network of an architecture that comes with the app, trained on CIFAR-10. It is not to be changed.

    Raises UserError if there is none.
    """
    if architecture not in _networks:
        folder = BUNDLED / architecture
        if not folder.is_dir():
            raise UserError(
                "No trained {architecture} comes with this copy of Optimizer Lab: set pretrained to none.",
                architecture=architecture,
            )
        _networks[architecture] = OptimizerLabModel.from_pretrained(folder)
    return _networks[architecture]


def receive_networks(networks: Mapping[str, OptimizerLabModel]) -> None:
    """Makes networks, by architecture, those of `bundled_network`: this process may have only the library."""
    _networks.update(networks)


def copy_convolutions(network: nn.Module, trained: nn.Module, *, frozen: bool) -> None:
    """Copies the convolutions of a trained network, with their batch normalisation, into one of its architecture.

    With `frozen` they get no gradients.
    """
    for (name, layer), (_, other) in zip(network.named_children(), trained.named_children(), strict=False):
        if not name.startswith(_HEAD):
            layer.load_state_dict(other.state_dict())
            layer.requires_grad_(not frozen)
