"""A sweep's folder: sweep.json, which says what varies, the runs, and their results as a table.

The runs are ordinary ones, in runs/. Which of them have ended is read from them alone, so that a sweep that is
interrupted at any instant goes on where it stopped.
"""

import csv
import functools
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.disk import move
from trainer.errors import UserError
from trainer.networks.files import read_json
from trainer.runs import lock, run_folder
from trainer.runs.reader import read_run
from trainer.runs.run import Run
from trainer.settings.fields import text_of
from trainer.sweeps.axes import Axis, Cell, Grid, axis, axis_text, command_line, grid

SWEEP_FILE, RESULTS_FILE, CHART_FILE = "sweep.json", "results.csv", "sweep.svg"
FORMAT = 1
ENDED = ("completed", "diverged")
"""The states of a run that a sweep does not train any further."""


def has_ended(run: Run) -> bool:
    """Whether a sweep does not train this run any further."""
    return run.status in ENDED


def ended(runs: Mapping[Cell, Run]) -> dict[Cell, Run]:
    """Returns the runs that a sweep does not train any further."""
    return {cell: run for cell, run in runs.items() if has_ended(run)}


def unfinished(cells: Iterable[Cell], runs: Mapping[Cell, Run]) -> list[Cell]:
    """Returns the cells that a sweep still has to train, in their order."""
    return [cell for cell in cells if cell not in runs or not has_ended(runs[cell])]


_MOST_BYTES = 10 << 20


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What varies in a sweep, over which settings and images, and the folder that holds it."""

    folder: Path
    settings: Mapping[str, Any]  # those that all runs share
    axes: tuple[Axis, ...]
    data: Mapping[str, Any]  # name, source, revision and digest of the images

    @functools.cached_property
    def grid(self) -> Grid:
        """The runs, and the combinations that the settings refuse."""
        return grid(self.settings, self.axes)

    def folder_of(self, cell: Cell) -> Path:
        """The folder of a run."""
        return self.folder / "runs" / cell.name


def is_sweep(folder: Path) -> bool:
    """Returns whether the folder holds a sweep."""
    return os.path.exists(folder / SWEEP_FILE)


def create(sweep: Sweep) -> None:
    """Writes sweep.json. Raises UserError if the folder cannot be written, or holds something already."""
    if is_sweep(sweep.folder) or run_folder.is_run(sweep.folder):
        raise UserError(
            "There is something in {folder} already; continue a sweep with --resume, or choose another --run.",
            folder=sweep.folder,
        )
    content = {**plan_entries(sweep), "data": dict(sweep.data)}
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        _replace(sweep.folder / SWEEP_FILE, json.dumps(content, indent=1, allow_nan=False).encode())
    except OSError as error:
        raise UserError("The sweep's folder cannot be written: {reason}.", reason=run_folder.reason(error)) from None


def read(folder: Path) -> Sweep:
    """Returns the sweep in a folder. Raises UserError if there is none, or if sweep.json is damaged."""
    if not is_sweep(folder):
        raise UserError("There is no sweep in {folder}.", folder=folder)
    return plan_of(read_json(folder / SWEEP_FILE, at_most=_MOST_BYTES), folder / SWEEP_FILE)


def sweep_of(run: Path) -> Sweep | None:
    """Returns the sweep that a run's folder belongs to; None if there is none, or none that can be read."""
    whole = run.resolve().parent.parent
    try:
        sweep = read(whole) if is_sweep(whole) else None
        return sweep if sweep and any(cell.name == run.name for cell in sweep.grid.cells) else None
    except (UserError, OSError):
        return None


def command(sweep: Sweep) -> str:
    """Returns the command that trains the sweep, without its --data."""
    return command_line(map(axis_text, sweep.axes), sweep.settings)


def plan_entries(sweep: Sweep) -> dict[str, Any]:
    """Returns the entries for what varies in a sweep, and over which settings, of a JSON file."""
    axes = [{"name": each.name, "values": list(each.values)} for each in sweep.axes]
    return {"format": FORMAT, "settings": dict(sweep.settings), "axes": axes}


def plan_of(content: Mapping[str, Any], path: Path) -> Sweep:
    """Returns the sweep whose plan and images are in the content of a JSON file, with the file's folder as its own.

    Raises UserError if the file was written by another version, or if it is damaged.
    """
    if content.get("format") != FORMAT:
        raise UserError("{file} was written by another version of this app or by another program.", file=path.name)
    settings, axes, data = (content.get(name) for name in ("settings", "axes", "data"))
    if (
        not isinstance(settings, dict)
        or not isinstance(data, dict)
        or not isinstance(axes, list)
        or not all(isinstance(each, dict) and isinstance(each.get("values"), list) for each in axes)
    ):
        raise UserError("{file} is damaged.", file=path.name)
    sweep = Sweep(
        folder=path.parent,
        settings=settings,
        axes=tuple(axis(str(each.get("name")), each["values"]) for each in axes),
        data=data,
    )
    _ = sweep.grid  # refuses axes that contradict each other
    return sweep


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Holds the lock of the process that runs the sweep. Raises UserError if another one does."""
    with ExitStack() as stack:
        try:
            stack.enter_context(lock.held(folder, timeout=0))
        except TimeoutError:
            raise UserError("This sweep is being run by another command; stop it there first.") from None
        except OSError as error:
            raise UserError(
                "The sweep's folder cannot be written: {reason}.", reason=run_folder.reason(error)
            ) from None
        yield


def runs_of(sweep: Sweep) -> dict[Cell, Run]:
    """Returns the runs that have saved something, by cell. Raises UserError if one is damaged."""
    found = {}
    for cell in sweep.grid.cells:
        if run_folder.is_run(sweep.folder_of(cell)):
            with explain_damage(sweep, cell):
                found[cell] = read_run(sweep.folder_of(cell))
    return found


@contextmanager
def explain_damage(sweep: Sweep, cell: Cell) -> Iterator[None]:
    """Adds to a UserError within the `with` block which run cannot be read, and what to do."""
    try:
        yield
    except UserError as error:
        raise UserError(
            "The run in {folder} cannot be read: {reason} Delete that folder, and the sweep trains the run again.",
            folder=sweep.folder_of(cell).relative_to(sweep.folder).as_posix(),
            reason=error,
        ) from None


COLUMNS = ("status", "train_loss", "test_loss", "test_accuracy", "holdout_loss", "holdout_accuracy", "seconds")


def result(cell: Cell, run: Run) -> dict[str, Any]:
    """Returns the row of a run: its varied settings, its status and the figures of its last epoch.

    Those of a run that diverged are None, but for its seconds.
    """
    last = run.history[-1] if run.history and run.status != "diverged" else None
    figures = {name: getattr(last, name, None) for name in COLUMNS[1:-1]}
    seconds = round(sum(row.seconds for row in run.history), 3)
    return {**cell.values, "status": run.status, **figures, "seconds": seconds, "checkpoint": cell.name}


def to_csv(axes: Sequence[Axis], runs: Mapping[Cell, Run]) -> str:
    """Returns the results as CSV: a row for each of the runs, which have ended."""
    rows = [result(cell, run) for cell, run in sorted(runs.items(), key=lambda pair: pair[0].number)]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    names = [*(each.name for each in axes), *COLUMNS, "checkpoint"]
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if row[name] is None else text_of(row[name]) for name in names])
    return table.getvalue()


def write_results(sweep: Sweep, runs: Mapping[Cell, Run]) -> None:
    """Writes results.csv: a row for each run that has ended. Raises OSError if the disk refuses."""
    _replace(sweep.folder / RESULTS_FILE, to_csv(sweep.axes, runs).encode())


def write_chart(sweep: Sweep, svg: str) -> None:
    """Writes sweep.svg. Raises OSError if the disk refuses."""
    _replace(sweep.folder / CHART_FILE, svg.encode())


def _replace(path: Path, content: bytes) -> None:
    """Writes a file so that a crash leaves the previous content or the new one."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    move(new, path)
