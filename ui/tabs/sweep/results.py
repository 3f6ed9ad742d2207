"""The results of a sweep: its chart in three views, the table of the best, and the runs of a pressed point."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.runs.comparison import compare
from trainer.runs.reader import read_run
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from trainer.sweeps.axes import Axis, Cell
from trainer.sweeps.folder import ended
from trainer.sweeps.results import best, groups, label, mean_and_std, measure_of
from ui.charts import run_charts
from ui.charts import sweep as charts
from ui.charts.live import LARGE, live_chart
from ui.i18n.words import i18n, translate
from ui.parts import markup
from ui.parts.markup import note
from ui.parts.messages import Updates
from ui.parts.run.run_view import NUM_CLASSES, legend
from ui.tabs.sweep.plan import Plan

LOSS, TIME, TUNING, HEAT = "loss", "time", "tuning", "heat"
_LOWEST_TARGET = 10  # percent
_OF_THE_BEST = 0.7  # the target that is proposed, of the best accuracy: several settings should reach it

_SAYS = {
    LOSS: (
        "Diamonds mark the best of each optimizer, ✕ runs that diverged, the band the seeds. Press a point to see its "
        "runs."
    ),
    HEAT: (
        "The loss with each pair of values, dark where it is low; the frame marks the best, ✕ runs that diverged. "
        "Press a field to see its runs."
    ),
    TIME: "✕ marks settings that did not reach the target. Press a point to see its runs.",
    TUNING: "What the best of a few settings, chosen at random from these, reaches on average.",
}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A sweep to show: its axes, the runs that have ended an epoch, and the folder of their runs, if there is one."""

    axes: Sequence[Axis]
    runs: Mapping[Cell, Run]
    folder: Path | None = None

    @property
    def ended(self) -> dict[Cell, Run]:
        """The runs that are not trained any further."""
        return ended(self.runs)

    @property
    def target(self) -> float:
        """An accuracy that several of the runs reached, in whole percents, 0–1."""
        reached = max((run.history[-1].test_accuracy for run in self.ended.values() if run.history), default=0.0)
        return max(_LOWEST_TARGET, math.floor(100 * _OF_THE_BEST * reached)) / 100

    def members(self, picked: str | None) -> dict[Cell, Run]:
        """The runs of the combination of settings with this label; without any, those of the best one."""
        found = {label(group.values, self.axes): group for group in groups(self.runs)}
        best_one = min(best(self.ended, self.axes), key=lambda group: group.score, default=None)
        group = found.get(picked or "") or best_one or next(iter(found.values()), None)
        return {cell: run for cell, run in self.runs.items() if group and cell.without_seed == group.values}


@dataclass(frozen=True, kw_only=True)
class ResultView:
    """The components of the results. `details` has those of the pressed point, and is hidden without any."""

    body: gr.Column
    view: gr.Radio
    target: gr.Slider
    series: gr.HTML
    chart: gr.HTML
    says: gr.HTML
    table: gr.HTML
    csv: gr.Button
    svg: gr.Button
    details: gr.Column
    picked: gr.Dropdown
    settings: gr.HTML
    loss: gr.HTML
    accuracy: gr.HTML
    longer: gr.Button

    def show(self, shown: Shown | None, view: str, target: float | None, picked: str | None, language: str) -> Updates:
        """Updates that show a sweep, or nothing without one; `target` is an accuracy, 0–1, None for a proposed one."""
        if shown is None:
            return {self.body: gr.update(visible=False), self.details: gr.update(visible=False)}
        members = shown.members(picked)
        can_save = gr.update(interactive=bool(shown.ended))
        return {
            self.body: gr.update(visible=True),
            self.target: gr.update(visible=view == TIME, value=round(100 * (target or shown.target))),
            self.series: _legend(shown.axes),
            self.chart: _chart(shown, view, target or shown.target, language),
            self.says: note(
                translate(_SAYS[HEAT if view == LOSS and charts.is_heat_map(shown.axes) else view], language)
            ),
            self.table: _table(shown, language),
            self.csv: can_save,
            self.svg: can_save,
            self.details: gr.update(visible=bool(members)),
            **(self._show_members(shown, members, language) if members else {}),
        }

    def _show_members(self, shown: Shown, members: Mapping[Cell, Run], language: str) -> Updates:
        own = label(next(iter(members)).without_seed, shown.axes)
        runs = [_with_curve(shown, cell, run) for cell, run in members.items()]
        contenders = compare(runs)
        sizes: dict[str, Any] = {"epochs": runs[0].config.epochs, "num_classes": NUM_CLASSES, "language": language}
        return {
            self.picked: gr.update(
                choices=[label(group.values, shown.axes) for group in groups(shown.runs)], value=own
            ),
            self.settings: _settings(runs[0].config) + legend(contenders, language),
            self.loss: run_charts.loss_chart(contenders, lesson=None, **sizes),
            self.accuracy: run_charts.accuracy_chart(contenders, height=LARGE, **sizes),
        }


def build() -> ResultView:
    """Adds the results, empty and hidden, to the page being built."""
    empty = Shown(axes=Plan().axes(), runs={})
    sizes: dict[str, Any] = {"epochs": Plan().epochs, "num_classes": NUM_CLASSES, "language": "en"}
    with gr.Column(visible=False, elem_id="sweep-body") as body:
        views = [
            (i18n("Loss over the setting"), LOSS),
            (i18n("Time to a target"), TIME),
            (i18n("Cost of tuning"), TUNING),
        ]
        view = gr.Radio(views, value=LOSS, label=i18n("View"), show_label=False, container=False, elem_id="sweep-view")
        target = gr.Slider(
            _LOWEST_TARGET,
            95,
            value=_LOWEST_TARGET,
            step=1,
            label=i18n("Target: test accuracy in percent"),
            visible=False,
            elem_id="sweep-target",
        )
        series = gr.HTML(elem_id="sweep-legend")
        chart = live_chart(
            _chart(empty, LOSS, 0.0, "en"), height=charts.HEIGHT, label="The runs of the sweep", elem_id="sweep-chart"
        )
        says = gr.HTML(elem_id="sweep-says")
        table = gr.HTML(elem_id="sweep-table")
        with gr.Row():
            csv = gr.Button(i18n("Export as CSV"), size="sm", elem_id="sweep-csv")
            svg = gr.Button(i18n("Save as SVG"), size="sm", elem_id="sweep-svg")
    with gr.Column(elem_id="sweep-details", visible=False) as details:
        with gr.Row():
            picked = gr.Dropdown([], label=i18n("Runs of these settings"), elem_id="sweep-picked", scale=3)
            longer = gr.Button(
                i18n("Train longer with these"), variant="primary", elem_id="sweep-longer", scale=1, min_width=260
            )
        settings = gr.HTML(elem_id="sweep-settings")
        with gr.Row():
            with gr.Column(min_width=240):
                loss = live_chart(
                    run_charts.loss_chart([], lesson=None, **sizes),
                    height=LARGE,
                    label="Loss per epoch",
                    elem_id="sweep-loss",
                )
            with gr.Column(min_width=240):
                accuracy = live_chart(
                    run_charts.accuracy_chart([], height=LARGE, **sizes),
                    height=LARGE,
                    label="Test accuracy per epoch",
                    elem_id="sweep-accuracy",
                )
    return ResultView(
        body=body,
        view=view,
        target=target,
        series=series,
        chart=chart,
        says=says,
        table=table,
        csv=csv,
        svg=svg,
        details=details,
        picked=picked,
        settings=settings,
        loss=loss,
        accuracy=accuracy,
        longer=longer,
    )


def _chart(shown: Shown, view: str, target: float, language: str) -> dict[str, Any]:
    if view == TIME:
        return charts.time_chart(shown.runs, shown.axes, target, language)
    if view == TUNING:
        return charts.tuning_chart(shown.runs, shown.axes, language)
    return charts.loss_chart(shown.runs, shown.axes, language)


def _legend(axes: Sequence[Axis]) -> str:
    keys = [
        f"<span class='key'><b style='color:{one.color}'>{one.letter}</b>{html.escape(one.name)}</span>"
        for one in charts.series_of(axes)
        if one.name
    ]
    return f"<div class='legend'>{''.join(keys)}</div>"


def _table(shown: Shown, language: str) -> str:
    """The best settings of each optimizer, by the loss on what is kept aside, as an HTML table."""
    chosen = sorted(best(shown.ended, shown.axes), key=lambda group: group.score)
    if not chosen:
        return ""
    measure = measure_of(shown.ended)
    heads = ("best settings", measure.loss_name, "test accuracy", "runs")
    rows = [
        (
            html.escape(label(group.values, shown.axes)),
            mean_and_std(group, measure.loss, ".4f") or "–",
            mean_and_std(group, "test_accuracy", ".2%") or "–",
            len(group.runs),
        )
        for group in chosen
    ]
    return markup.table(heads, rows, language, highlighted=0)


def _settings(config: TrainConfig) -> str:
    """The settings of a run that differ from its optimizer's defaults, as HTML."""
    parts = {"optimizer": config.optimizer, "scheduler": config.scheduler, "lr": f"{config.lr:g}", **config.as_text()}
    parts.pop("seed", None)
    return "<div class='note'>" + html.escape(" · ".join(f"{name} {text}" for name, text in parts.items())) + "</div>"


def _with_curve(shown: Shown, cell: Cell, run: Run) -> Run:
    """The run with its batches, which are read from its folder."""
    if shown.folder is None or run.curve.points:
        return run
    try:
        return read_run(shown.folder / "runs" / cell.name)
    except UserError:  # it was deleted meanwhile
        return run
