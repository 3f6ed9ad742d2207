"""The page's charts: Vega-Lite specs made with Altair, and the component that keeps one drawn while its data moves."""

import functools
import math
import os
from pathlib import Path
from typing import Any

import altair as alt
import gradio as gr
import vl_convert
from huggingface_hub.constants import HF_HOME

from trainer.run import Run

TRAIN, TEST, PLAN = "#3b82f6", "#f97316", "#9ca3af"

_MOST_PLANNED = 400  # points of a planned schedule: more than a plot has pixels for


# Altair takes some 25 ms to make and check a spec, and a live page would ask for three of the same at each update.
_MADE_ONCE = functools.lru_cache(maxsize=64)


def live_chart(value: dict[str, Any], *, height: int, label: str, elem_id: str) -> gr.HTML:
    """A chart whose value is {"spec": Vega-Lite, "data": {name: rows}}; `height` in pixels.

    gr.Plot draws anew at each value: a stall on a phone, and the end of a tooltip one is reading. Here a new spec draws
    anew, and new data only moves the lines. `static_path()` must be among Gradio's static paths.
    """
    return gr.HTML(
        value,
        html_template=f'<div class="chart" role="img" aria-label="{label}" style="height:{height}px"></div>',
        js_on_load=(Path(__file__).parent / "chart.js").read_text(),
        head=f'<script src="gradio_api/file={static_path()}"></script>',
        elem_id=elem_id,
    )


def loss_chart(run: Run | None, *, epochs: int, num_classes: int) -> dict[str, Any]:
    """Train and test loss per epoch, the running loss within the epochs, and where guessing lies."""
    return {"spec": _loss_spec(epochs, num_classes), "data": _loss_rows(run)}


@_MADE_ONCE
def _loss_spec(epochs: int, num_classes: int) -> dict[str, Any]:
    x = alt.X("epoch:Q", title="epoch", scale=alt.Scale(domain=[0, epochs], nice=False), axis=_whole(epochs))
    y = alt.Y("loss:Q", title="loss", scale=alt.Scale(zero=True), axis=alt.Axis(format=".3~g", minExtent=32))
    color = alt.Color(
        "curve:N",
        scale=alt.Scale(domain=["train", "test"], range=[TRAIN, TEST]),
        legend=alt.Legend(orient="top", title=None, symbolType="stroke", symbolStrokeWidth=3),
    )
    tip = [alt.Tooltip("curve:N"), alt.Tooltip("epoch:Q"), alt.Tooltip("loss:Q", format=".4f")]
    ended = alt.Chart(alt.Data(name="epochs", values=[]))
    guess = alt.Chart(alt.Data(values=[{"loss": math.log(num_classes), "text": f"guessing: ln {num_classes}"}]))
    layers = (
        guess.mark_rule(strokeDash=[3, 4], color=PLAN).encode(y=y)
        + guess.mark_text(align="left", dx=4, dy=-6, color=PLAN, fontSize=11).encode(y=y, text="text:N", x=alt.value(0))
        + alt.Chart(alt.Data(name="steps", values=[]))
        .mark_line(strokeWidth=1.2, opacity=0.55, color=TRAIN)
        .encode(x, y)
        + ended.mark_line(strokeWidth=2.5).encode(x, y, color)
        + ended.mark_point(filled=True, size=50, opacity=1).encode(x, y, color, tooltip=tip)
    )
    return _spec(layers, 300)


def accuracy_chart(run: Run | None, *, epochs: int, num_classes: int) -> dict[str, Any]:
    """Test accuracy per epoch, and where guessing lies."""
    rows = [{"epoch": row.epoch, "accuracy": row.test_accuracy} for row in run.history] if run else []
    return {"spec": _accuracy_spec(epochs, num_classes), "data": {"epochs": rows}}


@_MADE_ONCE
def _accuracy_spec(epochs: int, num_classes: int) -> dict[str, Any]:
    x = alt.X("epoch:Q", title="epoch", scale=alt.Scale(domain=[0, epochs], nice=False), axis=_whole(epochs))
    y = alt.Y("accuracy:Q", title="test accuracy", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%"))
    ended = alt.Chart(alt.Data(name="epochs", values=[]))
    guess = alt.Chart(alt.Data(values=[{"accuracy": 1 / num_classes}])).mark_rule(strokeDash=[3, 4], color=PLAN)
    tip = [alt.Tooltip("epoch:Q"), alt.Tooltip("accuracy:Q", format=".2%")]
    layers = (
        guess.encode(y=y)
        + ended.mark_line(strokeWidth=2.5, color=TEST).encode(x, y)
        + ended.mark_point(filled=True, size=50, opacity=1, color=TEST).encode(x, y, tooltip=tip)
    )
    return _spec(layers, 190)


def lr_chart(planned: list[tuple[float, float]], run: Run | None, *, epochs: int, height: int) -> dict[str, Any]:
    """The planned learning rate, dashed, as (epochs passed, lr), and over it the one the run really had."""
    thinned = planned[:: math.ceil(len(planned) / _MOST_PLANNED) or 1]
    return {
        "spec": _lr_spec(epochs, height),
        "data": {"planned": [{"epoch": at, "lr": lr} for at, lr in thinned], "had": _lr_rows(run)},
    }


@_MADE_ONCE
def _lr_spec(epochs: int, height: int) -> dict[str, Any]:
    x = alt.X("epoch:Q", title="epoch", scale=alt.Scale(domain=[0, epochs], nice=False), axis=_whole(epochs))
    y = alt.Y("lr:Q", title="lr", axis=alt.Axis(format=".3~g", tickCount=4))
    tip = [alt.Tooltip("epoch:Q", format=".2f"), alt.Tooltip("lr:Q", format=".3~g")]
    plan = alt.Chart(alt.Data(name="planned", values=[]))
    layers = (
        plan.mark_line(strokeDash=[5, 4], strokeWidth=1.5, color=PLAN, interpolate="step-after").encode(x, y)
        + plan.mark_point(opacity=0, size=60).encode(x, y, tooltip=tip)
        + alt.Chart(alt.Data(name="had", values=[]))
        .mark_line(strokeWidth=2.5, color=TRAIN, interpolate="step-before")
        .encode(x, y, tooltip=tip)
    )
    return _spec(layers, height)


def _loss_rows(run: Run | None) -> dict[str, list[dict[str, Any]]]:
    if run is None:
        return {"epochs": [], "steps": []}
    curves = [
        {"epoch": row.epoch, "loss": loss, "curve": curve}
        for row in run.history
        for curve, loss in (("train", row.train_loss), ("test", row.test_loss))
        if loss is not None and math.isfinite(loss)
    ]
    steps = [
        {"epoch": round(point.epochs, 4), "loss": round(point.smoothed, 4)}
        for point in run.curve.points
        if math.isfinite(point.smoothed)
    ]
    return {"epochs": curves, "steps": steps}


def _lr_rows(run: Run | None) -> list[dict[str, float]]:
    if run is None:
        return []
    # Of epochs that another process trained only the last lr of each is known.
    begun = run.curve.points[0].epochs if run.curve.points else math.inf
    earlier = [{"epoch": row.epoch, "lr": row.lr} for row in run.history if row.lr is not None and row.epoch <= begun]
    return earlier + [{"epoch": round(point.epochs, 4), "lr": point.lr} for point in run.curve.points]


def _whole(epochs: int) -> alt.Axis:
    return alt.Axis(tickMinStep=1, tickCount=min(epochs, 12), format="d", labelFlush=False)


def _spec(chart: alt.LayerChart, height: int) -> dict[str, Any]:
    sized = chart.properties(height=height, autosize=alt.AutoSizeParams(type="fit", contains="padding"))
    return sized.to_dict()


def static_path() -> Path:
    """Vega and its embedder as one script, made once from the offline copy in vl-convert: the page needs no CDN."""
    path = Path(HF_HOME, "optimizer-lab", f"vega-{vl_convert.__version__}.js")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Its globals would collide with the page's own; only the embedder may leave the function.
        script = vl_convert.javascript_bundle(snippet="window.vegaEmbed=vegaEmbed;")
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text("(()=>{" + script + "})();")
        unfinished.replace(path)
    return path
