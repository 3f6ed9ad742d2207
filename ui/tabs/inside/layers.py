"""The view of the layers over time: of one run, or one layer of several runs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.palette import COLORS
from trainer.runs.comparison import compare
from trainer.runs.run import Run
from ui.charts.inside import layers as charts
from ui.charts.inside.layers import Drawn, layer_names, layers_chart
from ui.charts.live import live_chart
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts.markup import advice, keys, note
from ui.parts.messages import Updates, with_page_errors
from ui.parts.run.checkpoints import in_thread
from ui.parts.run.first_sight import runs_with_layers
from ui.parts.run.run_list import download_path
from ui.parts.shared import AT_ONCE, Inputs, Shared, components
from ui.tabs.inside.choice import Choice, checked, run_with_layers

NAME = "layers"

_EXPLANATION = (
    "Measured at some of the steps, before and after the update; biases and normalisation are left out. Updates of "
    "about a thousandth of the weights are a good sign: with much smaller ones the network hardly learns, and larger "
    "ones may break it (a rule of thumb of Karpathy's, CS231n, Stanford 2015)."
)


@dataclass(frozen=True, kw_only=True)
class LayersView:
    """The components of the view: a sentence in place of the chart, or the chart with what belongs to it."""

    says: gr.HTML
    body: gr.Column
    layer: gr.Dropdown
    legend: gr.HTML
    chart: gr.HTML
    explanation: gr.HTML

    def explain(self, sentence: str, language: str) -> Updates:
        """Updates that show a sentence, and no chart."""
        return {self.says: advice(translate(sentence, language)), self.body: gr.update(visible=False)}

    def show(self, drawn: Drawn, language: str, *, is_recorded: bool) -> Updates:
        """Updates that show the chart; `is_recorded` says that it is that of the recorded race."""
        is_race = len(drawn.runs) > 1
        recorded = translate(
            "The recorded race of the tab Train. Train a network, or choose a run, to see its own.", language
        )
        return {
            self.says: note(translate(recorded, language)) if is_recorded else "",
            self.body: gr.update(visible=True),
            self.layer: gr.update(choices=layer_names(drawn.runs), value=drawn.layer, visible=is_race),
            self.legend: f"<div class='legend'>{keys((line.background, line.name) for line in drawn.lines)}</div>",
            self.chart: layers_chart(drawn, language),
            self.explanation: note(translate(_EXPLANATION, language)),
        }


def build(lab: Lab, shared: Shared, choice: Choice) -> None:
    """Adds the view and its events to the page being built."""
    empty = Drawn(runs=[], repo_ids=[], layer="")
    says = gr.HTML(elem_id="layers-says")
    with gr.Column(visible=False) as body:
        layer = gr.Dropdown([], label=i18n("Layer"), visible=False, elem_id="layer")
        view = LayersView(
            says=says,
            body=body,
            layer=layer,
            legend=gr.HTML(elem_id="layers-legend"),
            chart=live_chart(
                layers_chart(empty, "en"), height=charts.HEIGHT, label="The layers over time", elem_id="layers-chart"
            ),
            explanation=gr.HTML(elem_id="layers-explanation"),
        )
        with gr.Row():
            csv = gr.Button(i18n("Export as CSV"), size="sm", elem_id="layers-csv")
            svg = gr.Button(i18n("Save as SVG"), size="sm", elem_id="layers-svg")
    inputs: Inputs = {"layer": layer}
    choice.on_change(partial(show, lab, view), inputs, view, api_name="_layers")
    chosen: Inputs = {"visitor": choice.visitor, "names": choice.runs, "layer": layer}
    layer.input(
        partial(show, lab, view, view=NAME),
        inputs_kwargs=dict(chosen),
        outputs=components(view),
        trigger_mode="always_last",
        api_name="_layer",
        **AT_ONCE,
    )
    for button, name, draw in (
        (csv, "optimizer-lab-layers.csv", lambda drawn, _: charts.to_csv(drawn.runs, drawn.repo_ids)),
        (svg, "optimizer-lab-layers.svg", charts.draw),
    ):
        suffix = Path(name).suffix[1:]
        shared.download_on_click(button, partial(save, lab, name, draw), chosen, api_name=f"_layers_{suffix}")


@with_page_errors
async def show(lab: Lab, components: LayersView, *, visitor: Any, names: Any, view: Any, layer: Any) -> Updates:
    """Updates that show the layers of the chosen runs; a UserError is explained in their place."""
    if view != NAME:
        return gr.skip()
    language = current_language()
    try:
        drawn = await _drawn(lab, visitor, names, layer)
        return await in_thread(partial(components.show, is_recorded=names == []), drawn, language)
    except UserError as error:
        return components.explain(str(error), language)


@with_page_errors
async def save(lab: Lab, name: str, draw: Callable[[Drawn, str], str], *, visitor: Any, names: Any, layer: Any) -> str:
    """The path of a file with the layers of the chosen runs."""
    drawn = await _drawn(lab, visitor, names, layer)
    path = download_path(name)
    path.write_text(await in_thread(draw, drawn, current_language()), encoding="utf-8")
    return str(path)


async def _drawn(lab: Lab, visitor: Any, names: Any, layer: Any) -> Drawn:
    runs: list[Run] = await in_thread(runs_with_layers) if names == [] else []
    runs = runs or [await run_with_layers(lab, visitor, name) for name in checked(names)]
    layers = layer_names(runs)
    if len(compare(runs)) > len(COLORS):
        raise UserError(
            "Compare up to {count} different settings at a time: more could not be distinguished.", count=len(COLORS)
        )
    repo_ids = [name if "/" in name else "" for name in names]
    return Drawn(runs=runs, repo_ids=repo_ids, layer=layer if layer in layers else layers[0])
