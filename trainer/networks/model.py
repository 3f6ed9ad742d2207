"""OptimizerLabModel: a network with its class names and its preprocessing."""

import inspect
import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from trainer.errors import UserError
from trainer.images.class_names import check_class_names
from trainer.images.picture import RESIZES
from trainer.networks.architectures import ARCHITECTURES, Mirrored, memory_format
from trainer.networks.download import download
from trainer.networks.files import CONFIG_FILE, LARGEST_CONFIG, WEIGHTS_FILE, largest_file, load_weights, read_json
from trainer.settings.config import ACTIVATIONS

TAG = "optimizer-lab"
"""The tag by which the Hub lists this app's checkpoints and Spaces."""


class OptimizerLabModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="pytorch",
    license="apache-2.0",
    pipeline_tag="image-classification",
    tags=[TAG],
):
    """A network with its class names and its preprocessing, as config.json and model.safetensors store it.

    The arguments are the entries of config.json. `architecture` is one of ARCHITECTURES, `activation` one of
    ACTIVATIONS. `mean` and `std` are per channel, for pixels from 0 to 1. `image_size` is a
    multiple of 8 from 8 to 128; `resize` is one of RESIZES. `softmax` appends a Softmax layer: the network then returns
    probabilities, and `probabilities` applies no second softmax. `mirror`: the network, in evaluation mode, returns the
    mean of its outputs for a picture and its mirror image; None, as in files of earlier versions, means that only
    `fast` does. Raises UserError for any other value, because
    config.json may come from a stranger.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        architecture: str = "quick",
        activation: str = "relu",
        softmax: bool = False,
        image_size: int = 32,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        resize: str = "crop",
        mirror: bool | None = None,
    ):
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise UserError(
                "The checkpoint has an unknown network; this app has {names}.", names=", ".join(ARCHITECTURES)
            )
        if activation not in ACTIVATIONS or not isinstance(softmax, bool) or resize not in RESIZES:
            raise UserError("The checkpoint has an unknown activation, softmax or resize rule.")
        if not isinstance(mirror, bool | None):
            raise UserError("The checkpoint's mirror must be true or false.")
        if type(image_size) is not int or image_size % 8 or not 8 <= image_size <= 128:
            raise UserError("The checkpoint's image size must be a multiple of 8 from 8 to 128.")
        self.class_names = check_class_names(class_names)
        self.image_size, self.resize, self.softmax = image_size, resize, softmax
        # Buffers, so that they move to the device with the weights; config.json holds their values.
        self.register_buffer("mean", _per_channel(mean, low=0.0), persistent=False)
        self.register_buffer("std", _per_channel(std, low=1e-4), persistent=False)
        self.network = ARCHITECTURES[architecture](len(self.class_names), image_size, activation)
        if mirror or (mirror is None and architecture == "fast"):
            self.network = Mirrored(OrderedDict(self.network.named_children()))
        if softmax:
            self.network.append(nn.Softmax(dim=1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's annotations

    def forward(self, images: Tensor) -> Tensor:
        """Maps uint8 images [n, 3, image_size, image_size], 0–255, to the network's outputs, float [n, classes].

        Other dtypes with the same range are accepted too. The images are not changed.
        """
        # Always a copy: an image that already has this dtype and layout would otherwise be normalised in place.
        pixels = images.to(dtype=torch.float32, memory_format=memory_format(images.device), copy=True)
        return self.network(pixels.div_(255).sub_(self.mean).div_(self.std))

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """Maps uint8 images [n, 3, image_size, image_size] to class probabilities, float32 [n, classes].

        The model must be in evaluation mode.
        """
        outputs = self(images).float()
        return outputs if self.softmax else outputs.softmax(dim=1)

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.json: the arguments that build this network again."""
        assert isinstance(self._hub_mixin_config, dict)
        return dict(self._hub_mixin_config)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, map_location: str | torch.device = "cpu", **hub: Any
    ) -> "OptimizerLabModel":
        """Returns the network of a checkpoint folder, or of `repo_id` on the Hub (`revision="epoch-0007"`: an epoch).

        `hub` holds the mixin's arguments for a repo: revision, token, cache_dir, force_download, local_files_only. The
        downloaded files are checked against the Hub's hashes. Raises UserError if the folder or the repo is not a valid
        checkpoint of this app, and `huggingface_hub.errors` if the Hub cannot be reached.
        """
        # The mixin's own method would fall back to a pickle, accept other tensors and print.
        folder, repo_id = Path(pretrained_model_name_or_path), None
        if not folder.is_dir():
            repo_id = str(pretrained_model_name_or_path)
            config, hub["revision"] = download(repo_id, CONFIG_FILE, at_most=LARGEST_CONFIG, **hub)
            folder = config.parent
        model = cls._from_config(folder / CONFIG_FILE)
        if repo_id:
            download(repo_id, WEIGHTS_FILE, at_most=largest_file(model), **hub)
        load_weights(model, folder / WEIGHTS_FILE)
        return model.to(map_location).eval()

    @classmethod
    def _from_config(cls, path: Path) -> "OptimizerLabModel":
        content = read_json(path, at_most=LARGEST_CONFIG)
        known = inspect.signature(cls.__init__).parameters
        try:
            return cls(**{name: value for name, value in content.items() if name in known})
        except TypeError:
            raise UserError("{file} lacks class_names, or has an entry of the wrong kind.", file=CONFIG_FILE) from None


def _per_channel(values: Sequence[float], *, low: float) -> Tensor:
    sound = isinstance(values, Sequence) and len(values) == 3
    if not sound or not all(type(v) in (int, float) and low <= v <= 1 and math.isfinite(v) for v in values):
        raise UserError(
            "The checkpoint's mean and std must be three numbers each, from {low} to 1.",
            low=f"{low:g}",
        )
    return torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1)
