"""The page's comparison: any of a visitor's runs, any of their curves, as a chart, a table, CSV and code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer import checkpoint
from trainer.comparison import compare, to_csv
from trainer.run import Run
from trainer.script import as_code
from ui import plots
from ui.lab import Lab
from ui.language import current_language
from ui.message import said
from ui.shelf import file_to_give
from ui.view import epochs_table, legend, table
from ui.words import translate

MOST_RUNS = 12
HEIGHT = 360


@said
def show(lab: Lab, visitor: str, keys: list[str] | None, measure: str) -> list[Any]:
    """The chosen runs: what is what, the chart of one measure, and the table."""
    return draw(_runs(lab, visitor, keys), measure, current_language())


def draw(runs: Sequence[Run], measure: str, language: str) -> list[Any]:
    """Legend, chart and table of runs, or of none."""
    if measure not in plots.MEASURES:
        raise ValueError("Choose what to compare.")
    contenders = compare(runs)
    epochs = max((run.config.epochs for run in runs), default=10)
    chart = plots.measure_chart(measure, contenders, epochs=epochs, height=HEIGHT, language=language)
    return [
        legend(contenders, language)
        or f"<div class='note'>{translate('Choose runs above: they are laid over each other here.', language)}</div>",
        chart,
        table(contenders, language) if len(contenders) > 1 else epochs_table(runs, language),
    ]


@said
def export(lab: Lab, visitor: str, keys: list[str] | None) -> str:
    """The path of a CSV file with every epoch of the chosen runs."""
    runs = _runs(lab, visitor, keys)
    if not runs:
        raise ValueError("Choose the runs to export first.")
    path = file_to_give("optimizer-lab-runs.csv")
    path.write_text(to_csv(runs), encoding="utf-8")
    return str(path)


@said
def code(lab: Lab, visitor: str, keys: list[str] | None) -> str:
    """The first of the chosen runs as a plain PyTorch script."""
    folders = _folders(lab, visitor, keys)
    if not folders:
        raise ValueError("Choose a run first: its settings are shown as a script.")
    kept = checkpoint.read(folders[0])
    return as_code(kept.config, kept.data)


def _runs(lab: Lab, visitor: str, keys: list[str] | None) -> list[Run]:
    return [checkpoint.read_run(folder) for folder in _folders(lab, visitor, keys)]


def _folders(lab: Lab, visitor: str, keys: list[str] | None) -> list[Path]:
    if not keys:
        return []
    if not isinstance(keys, list) or len(keys) > MOST_RUNS:
        raise ValueError(f"Compare up to {MOST_RUNS} runs at a time.")
    return [lab.own_run(visitor, key) for key in keys]
