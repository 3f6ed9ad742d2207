"""The networks, and the one class that carries a network with all it needs to meet a picture."""

import inspect
import json
import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trainer.errors import UserError
from trainer.hub.download import download
from trainer.images.class_names import check_class_names
from trainer.images.picture import RESIZES
from trainer.learning.device import memory_format
from trainer.settings.config import ACTIVATIONS

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"

TAG = "optimizer-lab"
"""By it the Hub lists this app's checkpoints and Spaces."""

LARGEST_CONFIG = 1 << 20  # bytes
FAST_LAYERS = ((32, False), (64, True), (64, False), (128, True), (128, False), (256, True), (256, False))
"""The convolutions of `fast`: how many filters each has, and whether the picture is halved after it."""

_WEIGHT_TYPES = (torch.float32, torch.float16, torch.bfloat16)


def quick(num_classes: int, image_size: int, activation: str) -> nn.Sequential:
    """The tutorial's network, known in the field as Caffe's cifar10_quick; 145,578 parameters for ten classes of 32×32.

    Takes float [n, 3, image_size, image_size] and gives logits [n, num_classes].
    """
    act = {"none": nn.Identity, "relu": nn.ReLU}[activation]
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 32, 5, padding=2),
            act1=act(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 32, 5, padding=2),
            act2=act(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(32, 64, 5, padding=2),
            act3=act(),
            pool3=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            linear1=nn.Linear(64 * (image_size // 8) ** 2, 64),
            act4=act(),
            linear2=nn.Linear(64, num_classes),
        )
    )


class Mirrored(nn.Sequential):
    """Layers that see a picture in evaluation twice, as it is and in a mirror, and give the mean of both outputs."""

    def forward(self, pixels: Tensor) -> Tensor:
        """float [n, 3, size, size] to what the last layer gives."""
        outputs = super().forward(pixels)
        return outputs if self.training else (outputs + super().forward(pixels.flip(-1))) / 2


def fast(num_classes: int, image_size: int, activation: str) -> Mirrored:
    """A network in the line of the CIFAR-10 speed runs, for many times quick's work per picture; 1,166,506 parameters.

    Seven 3×3 convolutions, each with batch normalisation, and one linear layer: 86 million multiplications for 32×32.
    A block's first convolution is pooled before it is normalised, as in Jordan (2024, arXiv:2404.00498). Where he
    whitens the pictures by their covariance, the first layer begins here as a cosine transform, which knows no data;
    it learns like every other. As in his evaluation, a picture is also judged by its mirror image. Takes float
    [n, 3, image_size, image_size] and gives logits [n, num_classes].
    """
    act = {"none": nn.Identity, "relu": nn.ReLU}[activation]
    layers, width = OrderedDict(), 3
    for number, (wider, pool) in enumerate(FAST_LAYERS, 1):
        layers[f"conv{number}"] = nn.Conv2d(width, wider, 3, padding=1, bias=False)
        if pool:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        layers |= {f"norm{number}": nn.BatchNorm2d(wider), f"act{number}": act()}
        width = wider
    layers |= {"pool": nn.MaxPool2d(image_size // 8), "flatten": nn.Flatten(), "linear": nn.Linear(width, num_classes)}
    with torch.no_grad():
        layers["conv1"].weight.copy_(cosine_filters())
    return Mirrored(layers)


def cosine_filters() -> Tensor:
    """Filters, float32 [32, 3, 3, 3], each of length 1, that take apart what goes together in pictures.

    They are products of the cosines of the DCT-II (Ahmed, Natarajan & Rao, 1974), close to the principal components of
    natural pictures, with grey and two differences of colours: all of grey but the finest, the four coarsest of each
    difference. Then all again with the sign turned, because ReLU lets but one sign through.
    """
    cosines = torch.cos(torch.pi / 3 * torch.outer(torch.arange(3), torch.arange(3) + 0.5))
    waves = torch.einsum("uh,vw->uvhw", cosines, cosines)
    coarse = waves[:2, :2].flatten(0, 1)
    parts = (((1, 1, 1), waves.flatten(0, 1)[:8]), ((1, 0, -1), coarse), ((1, -2, 1), coarse))
    filters = torch.cat([torch.einsum("c,nhw->nchw", torch.tensor(colours).float(), some) for colours, some in parts])
    filters /= torch.linalg.vector_norm(filters, dim=(1, 2, 3), keepdim=True)
    return torch.cat([filters, -filters])


ARCHITECTURES = {"quick": quick, "fast": fast}


class OptimizerLabModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="pytorch",
    license="apache-2.0",
    pipeline_tag="image-classification",
    tags=[TAG],
):
    """A network with its class names and preprocessing: what config.json and model.safetensors hold together.

    Its arguments are config.json, checked like a stranger's; ValueError says in one sentence what is wrong with them.
    `mean` and `std` are per channel, in units where a pixel goes from 0 to 1. `softmax` puts a Softmax layer at the
    end: the network then gives probabilities, and `probabilities` applies no second one.
    """

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
    ):
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise UserError(
                "This app knows the networks {names}; the checkpoint has another.", names=", ".join(ARCHITECTURES)
            )
        if activation not in ACTIVATIONS or not isinstance(softmax, bool) or resize not in RESIZES:
            raise UserError("The checkpoint's activation, softmax or resize rule is not one this app knows.")
        if type(image_size) is not int or image_size % 8 or not 8 <= image_size <= 128:
            raise UserError("The checkpoint's image size must be a multiple of 8 from 8 to 128.")
        self.class_names = check_class_names(class_names)
        self.image_size, self.resize, self.softmax = image_size, resize, softmax
        # Not weights: they travel in config.json and only ride along to the device.
        self.register_buffer("mean", _per_channel(mean, low=0.0), persistent=False)
        self.register_buffer("std", _per_channel(std, low=1e-4), persistent=False)
        self.network = ARCHITECTURES[architecture](len(self.class_names), image_size, activation)
        if softmax:
            self.network.append(nn.Softmax(dim=1))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images [n, 3, image_size, image_size], 0–255, to the network's outputs, float [n, classes].

        Images of another dtype, in the same range, are accepted too. None are changed.
        """
        # A copy in every case: what has this dtype and layout already would otherwise be normalised in the caller's
        # memory.
        pixels = images.to(dtype=torch.float32, memory_format=memory_format(images.device), copy=True)
        return self.network(pixels.div_(255).sub_(self.mean).div_(self.std))

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """uint8 images [n, 3, image_size, image_size] to class probabilities, float32 [n, classes]; rows add to 1."""
        outputs = self(images).float()
        return outputs if self.softmax else outputs.softmax(dim=1)

    @property
    def config(self) -> dict:
        """What config.json says: the arguments that build this network again."""
        return dict(self._hub_mixin_config)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *, map_location="cpu", **hub) -> "OptimizerLabModel":
        """The network of a checkpoint folder or of `repo_id` on the Hub (`revision=` chooses an epoch).

        `hub` takes the mixin's arguments for a repo: revision, token, cache_dir, force_download, local_files_only. What
        is downloaded is checked against the Hub's hashes. Raises ValueError where the folder or the repo is not a sound
        checkpoint of this app; the Hub's own errors (`huggingface_hub.errors`) where it cannot be reached.
        """
        # The mixin's own would fall back to a pickle, load loosely and print.
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


def largest_file(model: nn.Module) -> int:
    """Bytes that a safetensors file of the model's weights has at most, whatever else its header says."""
    return sum(tensor.nbytes for tensor in model.state_dict().values()) + LARGEST_CONFIG


def load_weights(model: nn.Module, path: Path) -> None:
    """Fills `model` from a safetensors file; ValueError unless it holds exactly the model's tensors, all finite.

    float16 and bfloat16 files are accepted and widened.
    """
    wanted = model.state_dict()
    tensors = read_tensors(path, at_most=sum(tensor.nbytes for tensor in wanted.values()))
    if tensors.keys() != wanted.keys():
        raise UserError("{file} does not hold the weights of this network.", file=path.name)
    for name, tensor in tensors.items():
        types = _WEIGHT_TYPES if wanted[name].is_floating_point() else (wanted[name].dtype,)
        if tensor.shape != wanted[name].shape or tensor.dtype not in types:
            raise UserError(
                "{file} does not hold the weights of this network: {name} has another shape.",
                file=path.name,
                name=name,
            )
        if not tensor.isfinite().all():
            raise UserError("{file} is damaged: some weights in {name} are not finite.", file=path.name, name=name)
        if name.endswith("running_var") and (tensor < 0).any():
            raise UserError("{file} is damaged: a variance in {name} is below 0.", file=path.name, name=name)
    model.load_state_dict(tensors)


def read_tensors(path: Path, *, at_most: int) -> dict[str, Tensor]:
    """All tensors of a safetensors file; ValueError if it is missing, damaged or holds over `at_most` bytes of them."""
    try:
        if path.stat().st_size > at_most + LARGEST_CONFIG:
            raise UserError("{file} is larger than what it should hold.", file=path.name)
        with safe_open(_regular(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise UserError("{file} is missing.", file=path.name) from None
    except (OSError, SafetensorError):
        raise UserError("{file} is damaged or not a safetensors file.", file=path.name) from None


def read_json(path: Path, *, at_most: int) -> dict:
    """The JSON object in a file; ValueError if it is missing, damaged or larger than `at_most` bytes."""
    try:
        if path.stat().st_size > at_most:
            raise UserError("{file} is larger than what it should hold.", file=path.name)
        content = json.loads(_regular(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("{file} is missing.", file=path.name) from None
    except (OSError, RecursionError, json.JSONDecodeError, UnicodeDecodeError):
        raise UserError("{file} is damaged: it cannot be read as JSON.", file=path.name) from None
    if not isinstance(content, dict):
        raise UserError("{file} is damaged: it does not hold an object.", file=path.name)
    return content


def _regular(path: Path) -> Path:
    """The path of a file that ends: a pipe or a device in a stranger's folder could be read forever."""
    if not path.is_file():
        raise FileNotFoundError(path)
    return path


def _per_channel(values: Sequence[float], *, low: float) -> Tensor:
    sound = isinstance(values, Sequence) and len(values) == 3
    if not sound or not all(type(v) in (int, float) and low <= v <= 1 and math.isfinite(v) for v in values):
        raise UserError(
            "The checkpoint's mean and std must be three numbers each, from {low} to 1.",
            low=f"{low:g}",
        )
    return torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1)
