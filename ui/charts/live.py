"""The component that shows a Vega-Lite chart and updates its data in place."""

import os
from pathlib import Path
from typing import Any

import altair as alt
import gradio as gr
import orjson
import vl_convert
from huggingface_hub.constants import HF_HOME

from ui.i18n.words import i18n

LARGE, SMALL = 300, 190  # pixels: the height of a chart that has the width of its tab, and of one that shares it


def live_chart(value: dict[str, Any], *, height: int, label: str, elem_id: str) -> gr.HTML:
    """A chart whose value is {"specs": {view: Vega-Lite}, "view": the first to show, "data": {name: rows}}.

    Buttons choose among several views. `height` is in pixels. `static_path()` must be among Gradio's static paths.
    gr.Plot redraws the chart for each value, which stalls a phone and closes an open tooltip. Here only a new spec
    redraws it; new data updates it in place.
    """
    chart = gr.HTML(
        _as_text(value),
        html_template='<div class="views"></div>'
        f'<live-chart class="chart" role="img" aria-label="${{label}}" style="display:block;height:{height}px">'
        "</live-chart>",
        js_on_load=(Path(__file__).parent / "chart.js").read_text(encoding="utf-8"),
        head=f'<script src="gradio_api/file={static_path()}"></script>',
        label=i18n(label),
        elem_id=elem_id,
    )
    # Not a subclass: for those Gradio writes a .pyi file next to the module.
    chart.postprocess = _as_text  # type: ignore[method-assign,assignment]
    return chart


def _as_text(value: dict[str, Any]) -> str:
    """Returns the value as JSON text: Gradio's page would wrap each object in a proxy, which is slower than drawing."""
    return orjson.dumps(value).decode()


def sized(layers: alt.LayerChart, height: int) -> dict[str, Any]:
    """Returns the Vega-Lite spec of a chart as wide as its container and `height` pixels high, axes included."""
    spec: dict[str, Any] = layers.properties(
        height=height, autosize=alt.AutoSizeParams(type="fit", contains="padding")
    ).to_dict()
    return spec


def static_path() -> Path:
    """Returns the path of a script with Vega and vega-embed, made once from vl-convert's copy to avoid a CDN."""
    version = vl_convert.__version__  # type: ignore[attr-defined]  # missing in its stub
    path = Path(HF_HOME, "optimizer-lab", f"vega-{version}.js")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # In a function, because its globals would collide with the page's own; only vegaEmbed is exported.
        script = vl_convert.javascript_bundle(snippet="window.vegaEmbed=vegaEmbed;")
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text("(()=>{" + script + "})();", encoding="utf-8")
        unfinished.replace(path)
    return path
