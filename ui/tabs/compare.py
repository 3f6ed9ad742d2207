"""The Compare tab: a visitor's own runs and published ones, as a chart, a table, a CSV file and a script.

A run is identified by its key if it is the visitor's own, and by its repo if it is published.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.palette import COLORS
from trainer.runs.comparison import Contender, compare, to_csv
from trainer.runs.exports.script import as_code
from trainer.runs.reader import read_run, read_settings
from trainer.runs.run import Run
from ui.charts import run_charts
from ui.charts.curves import MEASURES
from ui.charts.live import live_chart
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts.markup import english, keys, note
from ui.parts.messages import Updates, with_page_errors
from ui.parts.run import first_sight
from ui.parts.run.checkpoints import in_hub_thread, in_thread, open_run
from ui.parts.run.run_list import MOST_COMPARED, download_path, last_runs, title_of
from ui.parts.run.run_view import epochs_table, index_of_winner, table, verdict_words
from ui.parts.shared import AT_ONCE, Inputs, Shared, code_panel, components

_HEIGHT = 360


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The components that show the chosen runs: the verdict and a legend, the chart of one curve, and a table."""

    legend: gr.HTML
    chart: gr.HTML
    table: gr.HTML

    def show(self, runs: Mapping[str, Run], measure: str, language: str) -> Updates:
        """Updates that show runs, given by name, or the recorded race if there are none.

        Raises UserError for too many.
        """
        return {getattr(self, name): value for name, value in _contents(runs, measure, language).items()}


def build(lab: Lab, tab: gr.Tab, shared: Shared) -> None:
    """Adds the content of the tab and its events to the page being built; opening the tab fills it."""
    chosen = shared.lists.compared
    chosen.render()
    measure = gr.Radio(
        [(i18n(measure.title.capitalize()), name) for name, measure in MEASURES.items()],
        value="test_accuracy",
        label=i18n("Curve"),
        elem_id="measure",
    )
    empty = _contents({}, "test_accuracy", "en")
    comparison = Comparison(
        legend=gr.HTML(english(empty["legend"]), elem_id="compared-legend"),
        chart=live_chart(empty["chart"], height=_HEIGHT, label="The runs side by side", elem_id="comparison"),
        table=gr.HTML(english(empty["table"]), elem_id="compared-table"),
    )
    export_button = gr.Button(i18n("Export as CSV"), size="sm", elem_id="export")
    code_button, script = code_panel("compared-code")

    names: Inputs = {"visitor": shared.visitor, "names": chosen}
    tab.select(
        partial(open_tab, lab, comparison, chosen),
        inputs_kwargs={**names, "measure": measure},
        outputs=components(comparison, chosen),
        api_name="_open_compare",
        **AT_ONCE,
    )
    gr.on(
        [chosen.change, measure.change],
        partial(show, lab, comparison),
        inputs_kwargs={**names, "measure": measure},
        outputs=components(comparison),
        trigger_mode="always_last",
        api_name="_compare",
        **AT_ONCE,
    )
    code_button.click(
        partial(write_code, lab), inputs_kwargs=dict(names), outputs=script, api_name="_compared_code", **AT_ONCE
    )
    shared.download_on_click(export_button, partial(export, lab), names, api_name="_export")


@with_page_errors
async def open_tab(
    lab: Lab, comparison: Comparison, chosen: gr.Dropdown, visitor: str, names: list[str] | None, measure: str
) -> Updates:
    """Updates that show the chosen runs; without any, the visitor's last ones are chosen."""
    last = [] if names else await in_thread(last_runs, lab, visitor)
    runs = await _runs(lab, visitor, names or last)
    updates = await in_thread(comparison.show, runs, measure, current_language())
    return {**updates, chosen: gr.update(value=last) if last else gr.skip()}


@with_page_errors
async def show(lab: Lab, comparison: Comparison, visitor: str, names: list[str] | None, measure: str) -> Updates:
    """Updates that show the chosen runs."""
    runs = await _runs(lab, visitor, names)
    return await in_thread(comparison.show, runs, measure, current_language())


def _contents(runs: Mapping[str, Run], measure: str, language: str) -> dict[str, Any]:
    """The values of a Comparison's components, by name."""
    if measure not in MEASURES:
        raise UserError("Choose what to compare.")
    contenders = compare(list(runs.values()), _repo_ids(runs), _titles(runs, language))
    if len(contenders) > len(COLORS):
        raise UserError(
            "Compare up to {count} different settings at a time: more could not be distinguished.",
            count=len(COLORS),
        )
    shown = contenders or first_sight.contenders()
    epochs = max((run.config.epochs for one in shown for run in one.runs), default=1)
    return {
        "legend": _verdict(runs, contenders, language) + _legend(shown, language),
        "chart": run_charts.measure_chart(measure, shown, epochs=epochs, height=_HEIGHT, language=language),
        "table": table(shown, language) if len(shown) > 1 else epochs_table(list(runs.values()), language),
    }


@with_page_errors
async def export(lab: Lab, visitor: str, names: list[str] | None) -> str:
    """The path of a CSV file with every epoch of the chosen runs."""
    runs = await _runs(lab, visitor, names)
    if not runs:
        raise UserError("Choose the runs to export first.")
    path = download_path("optimizer-lab-runs.csv")
    content = await in_thread(to_csv, list(runs.values()), _repo_ids(runs), _titles(runs, current_language()))
    path.write_text(content, encoding="utf-8")
    return str(path)


@with_page_errors
def write_code(lab: Lab, visitor: str, names: list[str] | None) -> str:
    """A plain PyTorch script with the settings of the first of the visitor's own runs, which it names."""
    own = [name for name in checked(names) if not is_published(name)]
    if not own:
        raise UserError("Choose one of your runs first: the script will have its settings.")
    folders = [lab.runs.own_run(visitor, name) for name in own]
    runs = {name: read_run(folder) for name, folder in zip(own, folders, strict=True)}
    language = current_language()
    contenders = compare(list(runs.values()), titles=_titles(runs, language))
    name = contenders[0].label or title_of(next(iter(runs.values())), language)
    remark = translate("The settings of the first of the chosen runs: {name}", language, name=name)
    return (f"# {remark}\n" if name else "") + as_code(*read_settings(folders[0]))


def is_published(name: str) -> bool:
    """Whether the name of a run is a repo on the Hub, not the key of a visitor's own run."""
    return "/" in name


def checked(names: Any) -> list[str]:
    """Returns the names of the runs to compare. Raises UserError for too many, or if they are not a list of names."""
    names = names or []
    if not isinstance(names, list) or len(names) > MOST_COMPARED or not all(isinstance(name, str) for name in names):
        raise UserError("Compare up to {most} runs at a time.", most=MOST_COMPARED)
    return names


def _verdict(runs: Mapping[str, Run], contenders: Sequence[Contender], language: str) -> str:
    """Which run did best, as HTML; without any runs, the result of the recorded race."""
    if not runs:
        result = html.escape(first_sight.headline(language)) if first_sight.contenders() else ""
        more = translate("Recorded on CIFAR-10. Train networks of your own, or choose runs above.", language)
    else:
        result, more = verdict_words(contenders, language), ""
        epochs = sorted({one.epoch for one in contenders})
        if result and len(epochs) > 1:
            template = "They did not train equally long: {fewest} to {most} epochs."
            more = translate(template, language, fewest=epochs[0], most=epochs[-1])
    return (f"<div class='status'><h2>{result}</h2></div>" if result else "") + (note(more) if more else "")


def _legend(contenders: Sequence[Contender], language: str) -> str:
    """The names of the curves, and whose claims the figures of published runs are, as HTML."""
    named = [(COLORS[index], one.label) for index, one in enumerate(contenders)]
    words = keys(named, winner=index_of_winner(contenders)) if len(named) > 1 else ""
    claim = ""
    if published := sorted({one.repo_id for one in contenders} - {""}):
        claim = translate(
            "The figures of {names} are reported by their owners and are not checked.",
            language,
            names=", ".join(published),
        )
    return f"<div class='legend'>{words}</div>" + (note(claim) if claim else "")


async def _runs(lab: Lab, visitor: str, names: list[str] | None) -> dict[str, Run]:
    def own_run(key: str) -> Run:
        return read_run(lab.runs.own_run(visitor, key))

    return {
        name: await (in_hub_thread(open_run, name) if is_published(name) else in_thread(own_run, name))
        for name in checked(names)
    }


def _repo_ids(runs: Mapping[str, Run]) -> list[str]:
    return [name if is_published(name) else "" for name in runs]


def _titles(runs: Mapping[str, Run], language: str) -> list[str]:
    return [title_of(run, language) for run in runs.values()]
