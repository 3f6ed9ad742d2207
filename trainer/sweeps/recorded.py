"""A recorded sweep: its plan and the epochs of its runs in one small file, to draw without its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.networks.files import read_json
from trainer.runs import training_json
from trainer.runs.events import EpochEnded, json_fields
from trainer.runs.run import Run
from trainer.sweeps import folder
from trainer.sweeps.axes import Axis, Cell
from trainer.sweeps.folder import Sweep

_MOST_BYTES = 2_000_000
_DIGITS = 5  # of the figures, more than a chart can show


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A sweep that has ended, the runs of its cells without their curves, and the command that trained them."""

    axes: tuple[Axis, ...]
    data: Mapping[str, Any]  # name and digest of the images
    command: str
    runs: Mapping[Cell, Run]


def write_recording(path: Path, sweep: Sweep, runs: Mapping[Cell, Run], command: str) -> None:
    """Writes the runs to a JSON file, with the name of their images and the command that trained them."""
    content = {
        **folder.plan_entries(sweep),
        "data": {name: sweep.data[name] for name in ("name", "digest")},
        "command": command,
        "cells": [
            {"number": cell.number, "status": run.status, "history": [_rounded(row) for row in run.history]}
            for cell, run in sorted(runs.items(), key=lambda pair: pair[0].number)
        ],
    }
    path.write_bytes(training_json.as_json(content))


def read_recording(path: Path) -> Recording:
    """Returns the sweep in a file. Raises UserError if the file is missing or damaged."""
    content = read_json(path, at_most=_MOST_BYTES)
    sweep = folder.plan_of(content, path)
    command, cells = content.get("command"), content.get("cells")
    by_number = {cell.number: cell for cell in sweep.grid.cells}
    if (
        not isinstance(sweep.data.get("name"), str)
        or not isinstance(command, str)
        or not isinstance(cells, list)
        or not all(isinstance(cell, dict) and cell.get("number") in list(by_number) for cell in cells)
    ):
        raise UserError("{file} is damaged.", file=path.name)
    runs = {}
    for entry in cells:
        cell = by_number[entry["number"]]
        runs[cell] = training_json.to_run({**entry, "config": cell.config.settings()})
    return Recording(axes=sweep.axes, data=sweep.data, command=command, runs=runs)


def _rounded(row: EpochEnded) -> dict[str, Any]:
    return {
        name: float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
        for name, value in json_fields(row).items()
    }
