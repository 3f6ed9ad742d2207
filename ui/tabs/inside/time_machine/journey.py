"""The components that show a run over time: a sentence, the machine with its slider, and the charts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.insight.timeline import Moment, Timeline
from trainer.runs.comparison import compare
from ui.charts import run_charts
from ui.charts.inside.time_machine import HEIGHT, bars_chart, lines_chart, scores_chart
from ui.charts.live import SMALL, live_chart
from ui.i18n.words import i18n
from ui.parts.messages import Updates
from ui.parts.run.run_view import NUM_CLASSES
from ui.tabs.inside.time_machine.frames import machine_value

# A class for a chart without data. One that is not `visible` would forget the epoch that the slider has fed in.
_HIDDEN = "hidden-chart"

_MACHINE = """<div class="machine" hidden>
  <div class="now"><canvas></canvas><div><b class="name"></b><div class="says"></div></div></div>
  <div class="drive"><button type="button"></button><input type="range" min="0" step="1"></div>
</div>"""
_FILTERS = """<canvas role="img"></canvas><p class="changed"></p><p class="note what"></p>"""
_LAYERS = """<p class="changed"></p><div class="epochs race"><table></table></div>"""


@dataclass(frozen=True, kw_only=True)
class Journey:
    """The components that a walk fills: a sentence, the button that stops it, the machine, and the charts."""

    says: gr.HTML
    stop: gr.Button
    machine: gr.HTML
    lines: gr.HTML
    bars: gr.HTML
    accuracy: gr.HTML
    scores: gr.HTML

    def say(self, says: str, *, more: bool = False) -> Updates:
        """Updates that show a sentence, as HTML; with `more`, the walk goes on and can be stopped."""
        return {self.says: says, self.stop: gr.update(visible=more)}

    def explain(self, says: str) -> Updates:
        """Updates that show a sentence, as HTML, and no epochs: without frames machine.js hides the charts."""
        return {**self.say(says), self.machine: {}}

    def show_epochs(
        self, epochs: Timeline, moments: Sequence[Moment], name: str, language: str, *, more: bool
    ) -> Updates:
        """Updates that show the epochs so far; with `more`, others follow."""
        charts = _charts(epochs, moments, language)
        return {
            self.machine: machine_value(epochs.run, moments, name, language, more=more),
            **{getattr(self, chart): value for chart, value in charts.items()},
        }

    def show_scores(self, rows: Sequence[dict[str, Any]], names: Sequence[str], language: str) -> Updates:
        """Updates that show the mistakes at each epoch; `rows` are those of `score_rows`, `names` the classes."""
        chart = scores_chart(rows, names, language)
        return {self.scores: gr.update(value=chart, elem_classes=[] if rows else [_HIDDEN])}


def build_journey() -> Journey:
    """Adds the components to the page being built."""
    machine = gr.HTML(
        {},
        html_template=_MACHINE,
        js_on_load=(Path(__file__).parent / "machine.js").read_text(encoding="utf-8"),
        elem_id="machine",
    )
    with gr.Row(elem_id="travel-status"):
        says = gr.HTML(elem_id="travel-says")
        stop = gr.Button(i18n("Stop"), size="sm", scale=0, min_width=80, visible=False, elem_id="travel-stop")
    empty = _charts(None, [], "en")
    with gr.Column(elem_id="moments"):
        with gr.Row():
            with gr.Column(scale=3, min_width=280):
                lines = live_chart(empty["lines"], height=HEIGHT, label="How sure the network was", elem_id="lines")
            with gr.Column(scale=2, min_width=260):
                bars = live_chart(empty["bars"], height=HEIGHT, label="How sure it was at this epoch", elem_id="bars")
        with gr.Row():
            with gr.Column(scale=3, min_width=280):
                accuracy = live_chart(
                    empty["accuracy"], height=SMALL, label="Test accuracy per epoch", elem_id="learned"
                )
                gr.HTML("", html_template=_LAYERS, js_on_load=None, elem_id="layer-figures")
            with gr.Column(scale=2, min_width=260):
                gr.HTML("", html_template=_FILTERS, js_on_load=None, elem_id="filters")
                scores = live_chart(
                    scores_chart([], [], "en"),
                    height=HEIGHT,
                    label="Mistakes at this epoch",
                    elem_id="epoch-mistakes",
                    elem_classes=_HIDDEN,
                )
    return Journey(says=says, stop=stop, machine=machine, lines=lines, bars=bars, accuracy=accuracy, scores=scores)


def _charts(epochs: Timeline | None, moments: Sequence[Moment], language: str) -> dict[str, Any]:
    """The charts that a walk fills first, by name; empty ones without a timeline."""
    last = max(epochs.epochs[-1], epochs.run.epoch, 1) if epochs else 1
    accuracy = run_charts.accuracy_chart(
        compare([epochs.run] if epochs else []),
        epochs=last,
        num_classes=len(moments[0].class_names) if moments else NUM_CLASSES,
        height=SMALL,
        language=language,
    )
    return {
        "lines": lines_chart(moments, last, language),
        "bars": bars_chart(moments, language),
        "accuracy": accuracy,
    }
