"""The page's charts: Vega-Lite specs made with Altair, and the component that keeps one drawn while its data moves."""

import functools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import gradio as gr
import orjson
import vl_convert
from huggingface_hub.constants import HF_HOME

from trainer.palette import COLORS, PLAN, TEST, TRAIN
from trainer.runs.comparison import Contender
from trainer.runs.run import Run
from trainer.settings.lessons import NUM_BATCHES, Lesson
from ui.i18n.words import i18n, translate

_MOST_PLANNED = 400  # points of a planned schedule: more than a plot has pixels for
_STEPS_A_PIXEL = 3  # points within the epochs, of all runs in a chart together, for each pixel of its height


class Measure(NamedTuple):
    """One figure of a run: its name on an axis, how numbers of it are written, and what of a Point it is."""

    title: str
    format: str
    within: str | None  # the field of trainer.runs.run.Point; None for what is known at epochs' ends alone


MEASURES = {
    "train_loss": Measure("train loss", ".4f", "smoothed"),
    "test_loss": Measure("test loss", ".4f", None),
    "test_accuracy": Measure("test accuracy", ".2%", None),
    "lr": Measure("lr", ".3~g", "lr"),
    "grad_norm": Measure("gradient norm", ".3~g", "grad_norm"),
}
_AXIS_FORMATS = {"test_accuracy": ".0%"}

# Altair takes some 25 ms to make and check a spec, and a live page would ask for several of the same at each update.
_MADE_ONCE = functools.lru_cache(maxsize=256)


def live_chart(value: dict[str, Any], *, height: int, label: str, elem_id: str) -> gr.HTML:
    """A chart whose value is {"specs": {view: Vega-Lite}, "view": the first to show, "data": {name: rows}}.

    `height` is in pixels; where there are several views, buttons choose. gr.Plot draws anew at each value: a stall on a
    phone, and the end of a tooltip one is reading. Here a new spec draws anew, and new data only moves the lines.
    `static_path()` must be among Gradio's static paths.
    """
    chart = gr.HTML(
        _as_text(value),
        html_template='<div class="views"></div>'
        f'<live-chart class="chart" role="img" aria-label="${{label}}" style="display:block;height:{height}px">'
        "</live-chart>",
        js_on_load=(Path(__file__).parent / "chart.js").read_text(),
        head=f'<script src="gradio_api/file={static_path()}"></script>',
        label=i18n(label),
        elem_id=elem_id,
    )
    chart.postprocess = _as_text  # not in a subclass: Gradio would write an interface file beside this one
    return chart


def _as_text(value: dict[str, Any]) -> str:
    """The page would wrap every object and list in a proxy, which takes it longer than to draw them."""
    return orjson.dumps(value).decode()


def loss_chart(
    contenders: Sequence[Contender], *, epochs: int, num_classes: int, lesson: Lesson | None, language: str
) -> dict[str, Any]:
    """Train and test loss, as the mean over batches or the sum that the tutorial prints; and where guessing lies.

    A lesson's own printed figures are dotted.
    """
    measures = ("train_loss", "test_loss")
    views = {
        "mean of the batches": _View(y="drawn"),
        "sum of the batches": _View(y="sum", title="sum of the batches' losses"),
        "logarithmic": _View(log=True),
    }
    sums = lesson is not None and lesson.printed_unit == "epoch" and bool(lesson.printed)
    value = _chart(measures, contenders, views, epochs=epochs, height=300, language=language)
    batches = next((n for one in contenders for run in one.runs if (n := _batches(run))), 1.0)
    guess = math.log(num_classes)
    text = translate("guessing: ln {classes}", language, classes=num_classes)
    value["data"]["guess"] = [{"drawn": guess, "value": guess, "sum": guess * batches, "text": text}]
    printed = _printed_rows(lesson, language)
    value["data"]["printed"] = [row for row in printed if row["epoch"] <= epochs]
    return {**value, "view": list(value["specs"])[1 if sums else 0]}


def measure_chart(
    measure: str, contenders: Sequence[Contender], *, epochs: int, height: int, language: str
) -> dict[str, Any]:
    """One of MEASURES, of every contender, on a linear or a logarithmic axis."""
    views = {"linear": _View(y="drawn"), "logarithmic": _View(log=True)}
    if measure == "test_accuracy":
        views.pop("logarithmic")
    value = _chart((measure,), contenders, views, epochs=epochs, height=height, language=language)
    return {**value, "view": list(value["specs"])[-1 if measure == "grad_norm" else 0]}


def accuracy_chart(
    contenders: Sequence[Contender], *, epochs: int, num_classes: int, height: int, language: str
) -> dict[str, Any]:
    """Test accuracy per epoch, its best marked, and where guessing lies."""
    value = measure_chart("test_accuracy", contenders, epochs=epochs, height=height, language=language)
    value["data"]["guess"] = [{"value": 1 / num_classes, "drawn": 1 / num_classes, "text": ""}]
    return value


def lr_chart(
    planned: Sequence[tuple[float, float]],
    contenders: Sequence[Contender],
    *,
    epochs: int,
    height: int,
    language: str,
) -> dict[str, Any]:
    """The learning rate that the runs had, and the planned one, dashed, as (epochs passed, lr)."""
    value = measure_chart("lr", contenders, epochs=epochs, height=height, language=language)
    thinned = planned[:: math.ceil(len(planned) / _MOST_PLANNED) or 1]
    value["data"]["planned"] = [{"epoch": at, "value": lr, "drawn": lr} for at, lr in thinned]
    return value


class _View(NamedTuple):
    y: str = "value"
    log: bool = False
    title: str = ""


def _chart(
    measures: tuple[str, ...],
    contenders: Sequence[Contender],
    views: dict[str, _View],
    *,
    epochs: int,
    height: int,
    language: str,
) -> dict[str, Any]:
    series = tuple(_series(measures, contenders))
    specs = {
        translate(name, language): _spec(measures, series, view, epochs, height, language)
        for name, view in views.items()
    }
    cap = _cap(measures, contenders)
    data = {
        "epochs": [row for measure in measures for row in _epoch_rows(measure, contenders, cap, language)],
        "steps": [
            row for measure in measures for row in _step_rows(measure, contenders, cap, most=_STEPS_A_PIXEL * height)
        ],
        "diverged": _diverged_rows(contenders, series),
        "planned": [],
        "guess": [],
        "printed": [],
    }
    return {"specs": specs, "view": next(iter(specs)), "data": data}


def _series(measures: tuple[str, ...], contenders: Sequence[Contender]) -> Iterator[tuple[str, str]]:
    """The chart's colours, by the names its rows go under: a colour a curve for one contender, else one a contender."""
    if len(contenders) < 2:
        yield from ((measure, TRAIN if measure in ("train_loss", "lr", "grad_norm") else TEST) for measure in measures)
    else:
        yield from ((str(place), COLORS[place % len(COLORS)]) for place in range(len(contenders)))


@_MADE_ONCE
def _spec(
    measures: tuple[str, ...],
    series: tuple[tuple[str, str], ...],
    view: _View,
    epochs: int,
    height: int,
    language: str,
) -> dict[str, Any]:
    named = MEASURES[measures[0]]
    title = view.title or ("loss" if len(measures) > 1 else named.title)
    axis = alt.Axis(format=_AXIS_FORMATS.get(measures[0], ".7~g"), minExtent=36, tickCount=5)
    scale = alt.Scale(type="log") if view.log else alt.Scale(zero=measures[0] in ("lr", "test_accuracy"))
    if measures == ("test_accuracy",):
        scale = alt.Scale(domain=[0, 1])
    x = alt.X(
        "epoch:Q",
        title=translate("epoch", language),
        scale=alt.Scale(domain=[0, epochs], nice=False),
        axis=alt.Axis(tickMinStep=1, tickCount=min(epochs, 12), format="d", labelFlush=False),
    )
    y = alt.Y(f"{view.y}:Q", title=translate(title, language), scale=scale, axis=axis)
    names, colors = zip(*series, strict=True)
    color = alt.Color("series:N", scale=alt.Scale(domain=list(names), range=list(colors)), legend=None)
    dash = alt.StrokeDash("curve:N", scale=alt.Scale(domain=list(measures), range=[[1, 0], [6, 3]]), legend=None)
    run = alt.Detail("run:N")
    tip = [
        alt.Tooltip("label:N", title=translate("curve", language)),
        alt.Tooltip("epoch:Q", title=translate("epoch", language)),
        alt.Tooltip("value:Q", format=named.format, title=translate(title, language)),
    ]
    if view.y == "sum":
        tip.append(alt.Tooltip("sum:Q", format=".4f", title=translate("sum", language)))

    def data(name: str) -> alt.Chart:
        can_be_drawn = f"datum.{view.y} > 0" if view.log else f"isValid(datum.{view.y})"
        return alt.Chart(alt.Data(name=name, values=[])).transform_filter(can_be_drawn)

    ended, steps, guess, plan = data("epochs"), data("steps"), data("guess"), data("planned")
    broken = alt.Chart(alt.Data(name="diverged", values=[]))
    layers = (
        guess.mark_rule(strokeDash=[3, 4], color=PLAN).encode(y=y)
        + guess.mark_text(align="left", dx=4, dy=-6, color=PLAN, fontSize=11).encode(y=y, text="text:N", x=alt.value(0))
        + plan.mark_line(strokeDash=[5, 4], strokeWidth=1.5, color=PLAN, interpolate="step-after").encode(x, y)
        + plan.mark_point(opacity=0, size=60).encode(x, y, tooltip=tip[1:])
        + data("printed").mark_line(strokeDash=[1, 4], strokeWidth=2.5, strokeCap="round", color=PLAN).encode(x, y)
        + data("printed").mark_point(opacity=0, size=60).encode(x, y, tooltip=tip)
        + steps.mark_line(
            strokeWidth=2.2 if measures == ("lr",) else 1.2,
            opacity=1 if measures == ("lr",) else 0.55,
            interpolate="step-before" if measures == ("lr",) else "linear",
        ).encode(x, y, color, run)
    )
    if view.y != "sum":
        layers += (
            ended.transform_filter("datum.high > datum.low")
            .mark_area(opacity=0.18)
            .encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), color, run)
        )
    layers += (
        ended.mark_line(strokeWidth=2.5).encode(x, y, color, dash, run)
        + ended.mark_point(filled=True, size=45, opacity=1).encode(x, y, color, run, tooltip=tip)
        + ended.transform_filter("datum.best").mark_text(text="★", dy=-11, fontSize=14).encode(x, y, color, tooltip=tip)
        + broken.mark_rule(strokeDash=[2, 2]).encode(x, color)
        + broken.mark_text(text="✕ NaN", align="left", dx=4, fontWeight="bold").encode(x, color, y=alt.value(8))
        + alt.Chart(alt.Data(name="mark", values=[])).mark_rule(strokeWidth=2, color=PLAN).encode(x)
    )
    return sized(layers, height)


def sized(layers: alt.LayerChart, height: int) -> dict[str, Any]:
    """The Vega-Lite spec of a chart that fills its place, `height` pixels high with its axes."""
    return layers.properties(height=height, autosize=alt.AutoSizeParams(type="fit", contains="padding")).to_dict()


def _epoch_rows(measure: str, contenders: Sequence[Contender], cap: float, language: str) -> Iterator[dict[str, Any]]:
    if measure == "lr" and any(run.curve.points for one in contenders for run in one.runs):
        return  # drawn batch by batch
    title = translate(MEASURES[measure].title, language)
    for place, one in enumerate(contenders):
        name = _name(place, measure, contenders)
        batches = _batches(one.runs[0])
        best = one.best_epoch if measure == "test_accuracy" and one.epoch else None
        for epoch in range(one.epoch + 1):
            spread = one.at(epoch, measure)
            if spread is None or not math.isfinite(spread.mean):
                continue
            yield {
                "epoch": epoch,
                "value": spread.mean,
                "drawn": min(spread.mean, cap),
                "low": spread.mean - spread.std,
                "high": spread.mean + spread.std,
                "sum": spread.mean * batches if measure == "train_loss" and batches else None,
                "series": name,
                "curve": measure,
                "run": f"{place} {measure}",
                "label": f"{title} · {one.label}" if one.label else title,
                "best": epoch == best,
            }


def _step_rows(measure: str, contenders: Sequence[Contender], cap: float, most: int) -> Iterator[dict[str, Any]]:
    within = MEASURES[measure].within
    if within is None:
        return
    budget = max(60, most // max(1, sum(len(one.runs) for one in contenders)))
    for place, one in enumerate(contenders):
        name = _name(place, measure, contenders)
        for number, run in enumerate(one.runs):
            batches = _batches(run)
            points = run.curve.points
            thinned = points[:: math.ceil(len(points) / budget) or 1]
            if thinned and thinned[-1] is not points[-1]:
                thinned = [*thinned, points[-1]]
            for point in thinned:
                value = getattr(point, within)
                if math.isfinite(value):
                    drawn = min(value, cap)
                    yield {
                        "epoch": round(point.epochs, 4),
                        "value": float(f"{value:.5g}"),
                        "drawn": float(f"{drawn:.5g}"),
                        "sum": float(f"{drawn * batches:.7g}") if batches and measure == "train_loss" else None,
                        "series": name,
                        "run": f"{place} {number}",
                    }


def _diverged_rows(contenders: Sequence[Contender], series: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"epoch": run.diverged_at, "series": series[place][0] if len(contenders) > 1 else series[0][0]}
        for place, one in enumerate(contenders)
        for run in one.runs
        if run.diverged_at is not None
    ]


def _printed_rows(lesson: Lesson | None, language: str) -> list[dict[str, Any]]:
    if lesson is None:
        return []
    by_batch = lesson.printed_unit == "batch"
    rows = []
    for at, printed in zip(lesson.printed_at, lesson.printed, strict=True):
        mean = printed if by_batch else printed / NUM_BATCHES
        rows.append(
            {
                "epoch": at / NUM_BATCHES if by_batch else at,
                "value": mean,
                "drawn": mean,
                "sum": mean * NUM_BATCHES,
                "label": translate("the notebook's figures", language),
            }
        )
    return rows


def _name(place: int, measure: str, contenders: Sequence[Contender]) -> str:
    return str(place) if len(contenders) > 1 else measure


def _cap(measures: tuple[str, ...], contenders: Sequence[Contender]) -> float:
    """What a linear axis shows of a loss at most: an explosion within an epoch must not flatten all the rest."""
    if measures[0] not in ("train_loss", "test_loss", "grad_norm"):
        return math.inf
    ends = [
        spread.mean
        for one in contenders
        for epoch in range(one.epoch + 1)
        for measure in measures
        if (spread := one.at(epoch, measure)) is not None and math.isfinite(spread.mean)
    ]
    within = MEASURES[measures[0]].within
    begins = [
        getattr(run.curve.points[0], within) for one in contenders for run in one.runs if run.curve.points and within
    ]
    return 1.5 * max(filter(math.isfinite, [*ends, *begins]), default=math.inf)


def _batches(run: Run) -> float | None:
    """Batches an epoch, as far as the run has reported it."""
    for row in reversed(run.history):
        if row.train_loss and row.train_loss_sum:
            return round(row.train_loss_sum / row.train_loss)
    return run.last_step.num_steps / run.config.epochs if run.last_step else None


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
