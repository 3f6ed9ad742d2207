"""Converts a run, its data and the state of its training to training.json and back; everything read is checked."""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from trainer.errors import Message, UserError
from trainer.networks.files import WEIGHTS_FILE
from trainer.runs.events import EpochEnded, json_fields
from trainer.runs.run import STATUSES, Curve, Point, Run, checked_name
from trainer.runs.run_folder import HISTORY_FILE, read_history
from trainer.settings.config import SETTINGS, TrainConfig

FORMAT = 1

# Limits on what is read. A run of this app stays far below them.
_LONGEST_ADVICE = 1000
_MOST_POINTS = 10_000
_MOST_CLASSES = 1000
_LARGEST_STRIDE = 2**31


def from_run(
    run: Run, data: Mapping[str, Any], *, state: Mapping[str, Any], files: Mapping[str, bytes], keeps_all: bool = False
) -> dict[str, Any]:
    """Returns the content of training.json, with the digests of `files`, which belong to the same state.

    `state` is that of a CheckpointReady. `data` holds the name, source, revision and digest of the images. `keeps_all`
    says whether the weights of all epochs are kept.
    """
    return {
        "format": FORMAT,
        **({"name": run.name} if run.name else {}),
        "config": run.config.settings(),
        "data": dict(data),
        **status_entries(run),
        "history": [json_fields(row) for row in run.history],
        "curve": curve_entry(run.curve),
        "state": state,
        "files": digests(files),
        **({"keep_epochs": "all"} if keeps_all else {}),
    }


def status_entries(run: Run) -> dict[str, Any]:
    """Returns the entries for the run's status and advice."""
    return {"status": run.status, **_advice_entries(run.advice)}


def curve_entry(curve: Curve) -> dict[str, Any]:
    """Returns the curve for JSON; the numbers in its points are rounded to six digits, more than a plot can show."""
    points = [[float(f"{value:.6g}") if math.isfinite(value) else None for value in point] for point in curve.points]
    return {**json_fields(replace(curve, points=[])), "points": points}


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """Returns the SHA-256 of each file in hexadecimal digits."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def until(content: Mapping[str, Any], epoch: int, weights: bytes) -> bytes:
    """Returns the bytes of an earlier epoch's training.json, from the content of a later one; it cannot be resumed.

    `weights` is the content of that epoch's safetensors file.
    """
    return as_json(
        {
            **content,
            "status": "interrupted",
            **_advice_entries(""),
            "history": content["history"][: epoch + 1],
            "curve": curve_entry(curve_until(_to_curve(content), epoch)),
            "state": {},
            "files": digests({WEIGHTS_FILE: weights}),
        }
    )


def as_json(content: Any) -> bytes:
    """Returns the bytes of a JSON file."""
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode()


def load(folder: Path) -> dict[str, Any]:
    """Returns the content of the folder's training.json, of which only the format is checked.

    Raises UserError if the file is missing, damaged, too large or of another format.
    """
    content = read_history(folder)
    if content.get("format") != FORMAT:
        raise UserError("{file} was written by another version of this app or by another program.", file=HISTORY_FILE)
    return content


def to_run(content: Mapping[str, Any]) -> Run:
    """Returns the run that the content describes; raises UserError if any of it is invalid."""
    rows = entry(content, "history", list)
    try:
        # Files of earlier versions have no test_share.
        history = [EpochEnded(**{name: row.get(name, _DEFAULTS.get(name)) for name in _COLUMNS}) for row in rows]
    except AttributeError:
        raise UserError("{file} is damaged: an epoch is not a JSON object.", file=HISTORY_FILE) from None
    config = TrainConfig.from_settings(entry(content, "config", dict))
    for number, row in enumerate(history):
        if (
            type(row.epoch) is not int
            or row.epoch != number
            or number > config.epochs
            or not all(_is_valid(name, value) for name, value in asdict(row).items())
        ):
            raise UserError(
                "{file} is damaged: its epochs are out of order or have invalid entries.",
                file=HISTORY_FILE,
            )
    status = content.get("status")
    if status not in STATUSES:
        raise UserError("{file} is damaged: its status is unknown.", file=HISTORY_FILE)
    name, curve = checked_name(content.get("name", "")), _to_curve(content)
    return Run(config=config, name=name, history=history, status=status, advice=_to_advice(content), curve=curve)


def to_data(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the name, source, revision and digest of the images; raises UserError if any of them is invalid."""
    data = entry(content, "data", dict)
    if not all(isinstance(data.get(name), str) for name in ("name", "digest")) or not all(
        value is None or isinstance(value, str) for value in data.values()
    ):
        raise UserError("{file} is damaged: its description of the data is invalid.", file=HISTORY_FILE)
    return data


def to_state(content: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """Returns the state of the training at the end of `epoch`; raises UserError if it is invalid."""
    state = entry(content, "state", dict)
    if type(start := state.get("schedule_from")) is not int or not 0 <= start <= epoch:
        raise UserError("{file} is damaged: the start of its schedule is missing or out of range.", file=HISTORY_FILE)
    if not _is_valid("continued_with", state.get("continued_with")):
        raise UserError("{file} is damaged: it continues with unknown settings.", file=HISTORY_FILE)
    if (threads := state.get("threads")) is not None and (type(threads) is not int or threads < 1):
        raise UserError("{file} is damaged: its number of threads is no such number.", file=HISTORY_FILE)
    return state


def entry(content: Mapping[str, Any], name: str, kind: type) -> Any:
    """Returns an entry of the content; raises UserError if it is missing or not of this type."""
    if not isinstance(content.get(name), kind):
        raise UserError("{file} is damaged: {name} is missing.", file=HISTORY_FILE, name=name)
    return content[name]


def curve_until(curve: Curve, epoch: int) -> Curve:
    """Returns the curve up to the end of `epoch`, for a run that continues from there.

    If a loss was NaN, the moving average starts again from the last finite one.
    """
    points = [point for point in curve.points if point.epochs <= epoch]
    if math.isfinite(curve.total):
        return replace(curve, points=points)
    smoothed = [point.smoothed for point in points if math.isfinite(point.smoothed)]
    return replace(curve, points=points, total=smoothed[-1] if smoothed else 0.0, weight=1.0 if smoothed else 0.0)


def _advice_entries(advice: str) -> dict[str, Any]:
    """Returns the advice as text and, to be translated, as a message."""
    return {"advice": advice, "advice_message": advice.to_json() if isinstance(advice, Message) else None}


def _to_advice(content: Mapping[str, Any]) -> str:
    text = str(content.get("advice", ""))[:_LONGEST_ADVICE]
    try:
        message = Message.from_json(content.get("advice_message"))
    except ValueError:
        return text
    return message if message == text else text


def _to_curve(content: Mapping[str, Any]) -> Curve:
    found = entry({"curve": curve_entry(Curve()), **content}, "curve", dict)
    points, stride, total, weight = (found.get(name) for name in ("points", "stride", "total", "weight"))
    rows = points if isinstance(points, list) and len(points) < _MOST_POINTS else [None]
    if (
        not all(isinstance(row, list) and len(row) == len(Point._fields) for row in rows)
        or not all(value is None or _is_number(value) for value in [*itertools.chain(*rows), total])
        or type(stride) is not int
        or not 1 <= stride < _LARGEST_STRIDE
        or not _is_number(weight)
        or not 0 <= weight <= 1
    ):
        raise UserError("{file} is damaged: its curve has invalid entries.", file=HISTORY_FILE)
    *rows, (total,) = ([math.nan if value is None else value for value in row] for row in [*rows, [total]])
    return Curve(points=[Point(*row) for row in rows], stride=stride, total=total, weight=weight)


_COLUMNS = [column.name for column in fields(EpochEnded)]
_DEFAULTS = {"test_share": 1.0}
_SHARES = ("test_accuracy", "holdout_accuracy", "test_share")


def _is_valid(name: str, value: Any) -> bool:
    """Returns whether a field of EpochEnded may have this value."""
    if name == "continued_with":
        return value is None or (isinstance(value, dict) and value.keys() <= SETTINGS.keys())
    if name == "class_accuracy":
        return value is None or (
            isinstance(value, dict)
            and len(value) <= _MOST_CLASSES
            and all(share is None or (_is_number(share) and 0 <= share <= 1) for share in value.values())
        )
    if value is None:
        return name not in ("epoch", "test_loss", "test_accuracy", "seconds", "test_share")
    return _is_number(value) and (name not in _SHARES or 0 <= value <= 1)


def _is_number(value: Any) -> bool:
    return (type(value) is int and abs(value) < 2**53) or (type(value) is float and math.isfinite(value))
