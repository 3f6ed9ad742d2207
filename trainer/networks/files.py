"""Reads the files of a checkpoint, JSON and safetensors, without trusting their content."""

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trainer.errors import UserError

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
LARGEST_CONFIG = 1 << 20  # bytes

_DEEPEST = 50  # levels of a JSON file
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # perhaps half a character, which no file could hold as UTF-8
_WEIGHT_TYPES = (torch.float32, torch.float16, torch.bfloat16)


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads weights from a safetensors file into `model`; float16 and bfloat16 are converted to the model's dtype.

    Raises UserError unless the file holds exactly the model's tensors, in their shapes and all finite.
    """
    expected = model.state_dict()
    tensors = read_tensors(path, at_most=sum(tensor.nbytes for tensor in expected.values()))
    if tensors.keys() != expected.keys():
        raise UserError("{file} does not contain the weights of this network.", file=path.name)
    for name, tensor in tensors.items():
        types = _WEIGHT_TYPES if expected[name].is_floating_point() else (expected[name].dtype,)
        if tensor.shape != expected[name].shape or tensor.dtype not in types:
            raise UserError(
                "{file} does not contain the weights of this network: {name} has another shape.",
                file=path.name,
                name=name,
            )
        if not tensor.isfinite().all():
            raise UserError("{file} is damaged: some weights in {name} are not finite.", file=path.name, name=name)
        if name.endswith("running_var") and (tensor < 0).any():
            raise UserError("{file} is damaged: a variance in {name} is below 0.", file=path.name, name=name)
    model.load_state_dict(tensors)


def read_tensors(path: Path, *, at_most: int) -> dict[str, Tensor]:
    """Returns all tensors of a safetensors file.

    Raises UserError if it is missing, damaged or holds more than `at_most` bytes of tensors.
    """
    try:
        if path.stat().st_size > at_most + LARGEST_CONFIG:
            raise UserError("{file} is larger than expected.", file=path.name)
        with safe_open(_regular(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise UserError("{file} is missing.", file=path.name) from None
    except (OSError, SafetensorError):
        raise UserError("{file} is damaged or not a safetensors file.", file=path.name) from None


def read_json(path: Path, *, at_most: int) -> dict[str, Any]:
    """Returns the JSON object in a file. Raises UserError if it is missing, damaged or larger than `at_most` bytes."""
    try:
        if path.stat().st_size > at_most:
            raise UserError("{file} is larger than expected.", file=path.name)
        data = _regular(path).read_bytes()
    except FileNotFoundError:
        raise UserError("{file} is missing.", file=path.name) from None
    except OSError:
        raise UserError("{file} is damaged: it cannot be read as JSON.", file=path.name) from None
    return parse_json(data, path.name)


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """Returns the JSON object in the content of the file `name`. Raises UserError if it is damaged."""
    try:
        content = json.loads(data.decode(), parse_int=_whole, parse_float=_finite, parse_constant=_finite)
        _check_depth(content)
        if _SURROGATE.search(data):
            json.dumps(content, ensure_ascii=False).encode()
    except (RecursionError, ValueError):  # no UTF-8, no JSON, or numbers, text or a depth that no file of this app has
        raise UserError("{file} is damaged: it cannot be read as JSON.", file=name) from None
    if not isinstance(content, dict):
        raise UserError("{file} is damaged: it is not a JSON object.", file=name)
    return content


def _check_depth(content: Any) -> None:
    """Raises RecursionError if lists and objects are nested deeper than in any file of this app."""
    level = [content]
    for _ in range(_DEEPEST):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise RecursionError


def _whole(text: str) -> int:
    """Returns the whole number of a text. Raises ValueError if it needs more than 64 bits, as no number here does."""
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError(text)
    return number


def _finite(text: str) -> float:
    """Returns the number of a text. Raises ValueError if it is infinite or NaN, which is not JSON."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _regular(path: Path) -> Path:
    """Returns `path`. Raises FileNotFoundError unless it is a regular file: reading a pipe may never end."""
    if not path.is_file():
        raise FileNotFoundError(path)
    return path


def largest_file(model: nn.Module) -> int:
    """Returns the most bytes that a safetensors file of the model's weights may have, with its metadata."""
    return sum(tensor.nbytes for tensor in model.state_dict().values()) + LARGEST_CONFIG
