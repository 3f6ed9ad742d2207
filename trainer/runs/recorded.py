"""A recorded race: the curves of several runs in one small file, to draw without their networks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.networks.files import read_json
from trainer.runs import layers, training_json
from trainer.runs.run import Run

_MOST_BYTES = 1_000_000
_MOST_POINTS = 200  # of each curve


def write_race(path: Path, runs: Sequence[Run], data: Mapping[str, Any], command: str) -> None:
    """Writes the runs to a JSON file, with the name of their images and the command that trained them."""
    recorded = []
    for run in runs:
        stride = -(-len(run.curve.points) // _MOST_POINTS)
        thinned = replace(run.curve, points=run.curve.points[::stride], stride=run.curve.stride * stride)
        content = training_json.from_run(replace(run, curve=thinned), data, state={}, files={})
        kept = {name: content[name] for name in ("config", "status", "history", "curve")}
        recorded.append({**kept, "layers": layers.to_content(run.layers)})
    race = {"command": command, "data": {"name": data["name"], "digest": data["digest"]}, "runs": recorded}
    path.write_bytes(training_json.as_json(race))


def read_race(path: Path) -> list[Run]:
    """Returns the runs of a recorded race. Raises UserError if the file is missing or damaged."""
    runs = training_json.entry(read_json(path, at_most=_MOST_BYTES), "runs", list)
    if not all(isinstance(run, dict) for run in runs):
        raise UserError("{file} is damaged: a run is not a JSON object.", file=path.name)
    return [_to_run(run) for run in runs]


def _to_run(recorded: dict[str, Any]) -> Run:
    measured = layers.from_content(recorded["layers"]) if isinstance(recorded.get("layers"), dict) else []
    return replace(training_json.to_run(recorded), layers=measured)
