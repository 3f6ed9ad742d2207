"""The component that shows a Vega-Lite chart and updates its data in place."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import gradio as gr
import orjson
import vl_convert

from trainer.cache import cached, write_cached
from ui.i18n.words import i18n, in_browser, script_with

LARGE, SMALL = 300, 190  # pixels: the height of a chart that has the width of its tab, and of one that shares it


def live_chart(
    value: dict[str, Any], *, height: int, label: str, elem_id: str, elem_classes: str | None = None
) -> gr.HTML:
    """A chart whose value is {"specs": {view: Vega-Lite}, "view": the first to show, "data": {name: rows}}.

    Buttons choose among several views. A click on a mark whose row has `press` triggers the chart's select event, with
    that value in the event's data. `height` is in pixels. `static_path()` must be among Gradio's static paths.
    gr.Plot redraws the chart for each value, which stalls a phone and closes an open tooltip. Here only a new spec
    redraws it; new data updates it in place. The first value is English: a page in another language waits for the next.
    """
    chart = gr.HTML(
        _as_text({**value, "is_first": True}),
        html_template='<div class="views"></div>'
        f'<live-chart class="chart" role="img" aria-label="${{label}}" style="display:block;height:{height}px">'
        "</live-chart>",
        js_on_load=_script(),
        head=f'<script src="gradio_api/file={static_path()}"></script>',
        label=i18n(label),
        elem_id=elem_id,
        elem_classes=elem_classes,
    )
    # Not a subclass: for those Gradio writes a .pyi file next to the module.
    chart.postprocess = _as_text  # type: ignore[method-assign,assignment]
    return chart


def _script() -> str:
    """Returns the script of a chart, with its words in the language of the page."""
    words = {
        "SAVE": in_browser("Save chart or data"),
        "EPOCH": in_browser("Epoch"),
        "ZOOM": in_browser("drag to zoom"),
        "ZOOM_OUT": in_browser("double-click to zoom out"),
    }
    return script_with(words, Path(__file__).parent / "chart.js")


def _as_text(value: dict[str, Any]) -> str:
    """Returns the value as JSON text: Gradio's page would wrap each object in a proxy, which is slower than drawing."""
    return orjson.dumps(value).decode()


def sized(layers: Sequence[alt.Chart], height: int) -> dict[str, Any]:
    """Returns the Vega-Lite spec of the layers, as wide as its container and `height` pixels high, axes included."""
    # LayerChart would copy each layer several times, which took 0.27 s instead of 0.07 s for the chart of the loss.
    return {
        "$schema": alt.SCHEMA_URL,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "layer": [layer.to_dict(validate=False, context={"top_level": False}) for layer in layers],
    }


@cache
def static_path() -> Path:
    """Returns the path of a script with Vega and vega-embed, made once from vl-convert's copy to avoid a CDN.

    Raises OSError if it cannot be written.
    """
    name = f"vega-{vl_convert.__version__}.js"  # type: ignore[attr-defined]  # missing in its stub

    def write(path: Path) -> None:
        # In a function, because its globals would collide with the page's own; only vegaEmbed is exported.
        script = vl_convert.javascript_bundle(snippet="window.vegaEmbed=vegaEmbed;")
        path.write_text("(()=>{" + script + "})();", encoding="utf-8")

    path = cached(name)
    return path if os.path.exists(path) else write_cached(name, write)  # Path.exists may raise PermissionError
