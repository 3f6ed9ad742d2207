"""The page's comparison: any of a visitor's runs, any of their curves, as a chart, a table, CSV and code.

A published run is named by its repo, among the keys of one's own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.errors import UserError
from trainer.runs import checkpoint
from trainer.runs.comparison import Contender, compare, to_csv
from trainer.runs.run import Run
from trainer.runs.script import as_code
from ui.charts import run_charts
from ui.i18n.language import current_language
from ui.i18n.words import translate
from ui.lab import Lab
from ui.parts.checkpoints import aside, at_once, open_run
from ui.parts.messages import said
from ui.parts.run_list import file_to_give
from ui.parts.run_view import epochs_table, legend, note, table

MOST_RUNS = 12
HEIGHT = 360


@said
async def show(lab: Lab, visitor: str, keys: list[str] | None, measure: str) -> list[Any]:
    """The chosen runs: what is what, the chart of one measure, and the table."""
    runs = await _runs(lab, visitor, keys)
    return await at_once(draw, runs, measure, current_language())


def draw(runs: Mapping[str, Run], measure: str, language: str) -> list[Any]:
    """Legend, chart and table of runs by their names, or of none."""
    if measure not in run_charts.MEASURES:
        raise UserError("Choose what to compare.")
    contenders = compare(list(runs.values()), _repo_ids(runs))
    if len(contenders) > len(run_charts.COLORS):
        raise UserError(
            "Compare up to {count} different settings at a time: no more can be told apart.",
            count=len(run_charts.COLORS),
        )
    epochs = max((run.config.epochs for run in runs.values()), default=10)
    chart = run_charts.measure_chart(measure, contenders, epochs=epochs, height=HEIGHT, language=language)
    return [
        _words(contenders, language),
        chart,
        table(contenders, language) if len(contenders) > 1 else epochs_table(list(runs.values()), language),
    ]


@said
async def export(lab: Lab, visitor: str, keys: list[str] | None) -> str:
    """The path of a CSV file with every epoch of the chosen runs."""
    runs = await _runs(lab, visitor, keys)
    if not runs:
        raise UserError("Choose the runs to export first.")
    path = file_to_give("optimizer-lab-runs.csv")
    path.write_text(await at_once(to_csv, list(runs.values()), _repo_ids(runs)), encoding="utf-8")
    return str(path)


@said
def code(lab: Lab, visitor: str, keys: list[str] | None) -> str:
    """The first of the chosen runs that is one's own as a plain PyTorch script."""
    own = [key for key in checked(keys) if not is_published(key)]
    if not own:
        raise UserError("Choose a run of yours first: its settings are shown as a script.")
    return as_code(*checkpoint.read_facts(lab.own_run(visitor, own[0])))


def _words(contenders: Sequence[Contender], language: str) -> str:
    told = legend(contenders, language)
    if not told:
        return note(translate("Choose runs above: they are laid over each other here.", language))
    if published := sorted({one.repo_id for one in contenders} - {""}):
        claim = translate("The figures of {names} are claims of their owners.", language, names=", ".join(published))
        told += note(claim)
    return told


def is_published(key: str) -> bool:
    """Whether what was chosen is a repo on the Hub rather than the key of one's own run."""
    return "/" in key


async def _runs(lab: Lab, visitor: str, keys: list[str] | None) -> dict[str, Run]:
    def own_run(key: str) -> Run:
        return checkpoint.read_run(lab.own_run(visitor, key))

    return {key: await (aside(open_run, key) if is_published(key) else at_once(own_run, key)) for key in checked(keys)}


def checked(keys: Any) -> list[str]:
    """The names of what is compared; ValueError for too many, or what is no list of names."""
    keys = keys or []
    if not isinstance(keys, list) or len(keys) > MOST_RUNS or not all(isinstance(key, str) for key in keys):
        raise UserError("Compare up to {most} runs at a time.", most=MOST_RUNS)
    return keys


def _repo_ids(runs: Mapping[str, Run]) -> list[str]:
    return [name if is_published(name) else "" for name in runs]
