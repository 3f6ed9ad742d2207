"""layers.json: the statistics of a run's layers over time. What is read is checked."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.networks.files import parse_json, read_json
from trainer.runs.events import LayersMeasured

LAYERS_FILE = "layers.json"
LARGEST_LAYERS = 2 << 20  # bytes; a run of this app takes a tenth of it

FIGURES = ("weight_norm", "grad_norm", "update_ratio", "inactive")
"""The fields of a LayersMeasured with a value for each layer."""

_FORMAT = 1
_LONGEST_NAME = 100


def as_file(measured: Sequence[LayersMeasured]) -> bytes:
    """Returns the bytes of layers.json."""
    return json.dumps(to_content(measured), allow_nan=False).encode()


def to_content(measured: Sequence[LayersMeasured]) -> dict[str, Any]:
    """Returns the JSON object in layers.json; its figures are rounded to five digits, more than a plot can show."""
    samples = [
        {
            "epoch": each.epoch,
            "step": each.step,
            "epochs_passed": _rounded(each.epochs_passed),
            **{name: [_rounded(value) for value in getattr(each, name)] for name in FIGURES},
        }
        for each in measured
    ]
    return {"format": _FORMAT, "layers": list(measured[0].layers) if measured else [], "samples": samples}


def read_layers(folder: Path, epoch: int | None = None) -> list[LayersMeasured]:
    """Returns what was measured in a run, up to the end of `epoch`; [] if the folder has no layers.json.

    Raises UserError if the file is damaged.
    """
    path = folder / LAYERS_FILE
    if not path.exists():
        return []
    measured = from_content(read_json(path, at_most=LARGEST_LAYERS))
    return until(measured, epoch) if epoch is not None else measured


def parse_layers(data: bytes) -> list[LayersMeasured]:
    """Returns what was measured in a run, from the content of its layers.json. Raises UserError if it is damaged."""
    return from_content(parse_json(data, LAYERS_FILE))


def until(measured: Sequence[LayersMeasured], epoch: int) -> list[LayersMeasured]:
    """Returns what was measured up to the end of `epoch`."""
    return [each for each in measured if each.epoch <= epoch]


def from_content(content: dict[str, Any]) -> list[LayersMeasured]:
    """Returns what the JSON object in a layers.json says. Raises UserError if it is damaged."""
    names, samples = content.get("layers"), content.get("samples")
    if (
        content.get("format") != _FORMAT
        or not isinstance(names, list)
        or not isinstance(samples, list)
        or not all(isinstance(name, str) and len(name) <= _LONGEST_NAME for name in names)
        or not all(isinstance(sample, dict) and _is_valid(sample, len(names)) for sample in samples)
    ):
        raise UserError("{file} is damaged: it does not hold the statistics of layers.", file=LAYERS_FILE)
    return [
        LayersMeasured(
            epoch=sample["epoch"],
            step=sample["step"],
            epochs_passed=float(sample["epochs_passed"]),
            layers=tuple(names),
            **{name: tuple(sample[name]) for name in FIGURES},
        )
        for sample in samples
    ]


def _is_valid(sample: dict[str, Any], num_layers: int) -> bool:
    return (
        type(sample.get("epoch")) is int
        and type(sample.get("step")) is int
        and _is_figure(sample.get("epochs_passed"))
        and all(isinstance(sample.get(name), list) and len(sample[name]) == num_layers for name in FIGURES)
        and all(value is None or _is_figure(value) for name in FIGURES for value in sample[name])
    )


def _is_figure(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
