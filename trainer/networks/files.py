"""The files of a checkpoint, read without trusting who wrote them: a JSON object, and tensors that are not pickled."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trainer.errors import UserError

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
LARGEST_CONFIG = 1 << 20  # bytes

_WEIGHT_TYPES = (torch.float32, torch.float16, torch.bfloat16)


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


def largest_file(model: nn.Module) -> int:
    """Bytes that a safetensors file of the model's weights has at most, whatever else its header says."""
    return sum(tensor.nbytes for tensor in model.state_dict().values()) + LARGEST_CONFIG
