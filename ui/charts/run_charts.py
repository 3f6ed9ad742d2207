"""The charts of runs over their epochs: loss, accuracy, learning rate and gradient norm.

Each function returns the value of a `live_chart`.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import altair as alt

from trainer.learning.schedulers import thinned
from trainer.palette import COLORS, PLAN, TEST, TRAIN
from trainer.runs.comparison import Contender
from trainer.settings.lessons import NUM_BATCHES, Lesson
from ui.charts.curves import (
    MEASURES,
    batches_per_epoch,
    clip_level,
    cut_rows,
    diverged_rows,
    end_rows,
    epoch_rows,
    frame_rows,
    printed_rows,
    step_rows,
)
from ui.charts.live import LARGE, sized
from ui.i18n.words import translate

_STEPS_PER_PIXEL = 3  # points at batches, of all runs together, for each pixel of the chart's height

_LEAST_TITLED = 120  # pixels: a lower chart has no room for the title of its vertical axis

_NAME_WIDTH = 84  # pixels to the right of the loss chart, for the names at the ends of its curves

_AXIS_FORMATS = {"test_accuracy": ".0%"}

# Altair takes about 60 ms to build a spec, and a live page needs several at each update.
_CACHED = functools.lru_cache(maxsize=256)


def loss_chart(
    contenders: Sequence[Contender],
    *,
    epochs: int,
    num_classes: int,
    lesson: Lesson | None,
    height: int = LARGE,
    language: str,
) -> dict[str, Any]:
    """Train and test loss, as the mean per batch or the sum per epoch that the tutorial prints.

    The train loss within an epoch is smoothed, except in the view of every batch. A line marks the loss of random
    guessing; the values that a lesson's notebook printed are dotted.
    """
    measures = ("train_loss", "test_loss")
    views = {
        "mean per batch": _View(y="drawn"),
        "sum per epoch": _View(y="sum", title="loss, sum per epoch"),
        "every batch": _View(y="drawn", steps="unsmoothed"),
        "logarithmic": _View(log=True),
    }
    sums = lesson is not None and lesson.printed_unit == "epoch" and bool(lesson.printed)
    value = _chart(measures, contenders, views, epochs=epochs, height=height, language=language)
    trained = (n for one in contenders for run in one.runs if (n := batches_per_epoch(run)))
    batches = next(trained, NUM_BATCHES if lesson and lesson.printed else None)
    printed = [row for row in printed_rows(lesson, batches or 0, language) if row["epoch"] <= epochs]
    guess = math.log(num_classes)
    text = translate("random guessing: ln {classes}", language, classes=num_classes)
    value["data"]["guess"] = [
        {"drawn": guess, "value": guess, "sum": guess * batches if batches else None, "text": text}
    ]
    cap = clip_level(measures, contenders)
    value["data"]["ends"] = end_rows(contenders, cap, height, language)
    value["data"]["cut"] = cut_rows(contenders, cap, language)
    value["data"]["frame"] = frame_rows(contenders, [row["value"] for row in printed], guess, batches)
    value["data"]["printed"] = printed
    return {**value, "view": list(value["specs"])[1 if sums else 0]}


def measure_chart(
    measure: str, contenders: Sequence[Contender], *, epochs: int, height: int, language: str
) -> dict[str, Any]:
    """One of MEASURES for every contender, on a linear or logarithmic axis."""
    views = {"linear": _View(y="drawn"), "logarithmic": _View(log=True)}
    if measure == "test_accuracy":
        views.pop("logarithmic")
    value = _chart((measure,), contenders, views, epochs=epochs, height=height, language=language)
    return {**value, "view": list(value["specs"])[-1 if measure == "grad_norm" else 0]}


def accuracy_chart(
    contenders: Sequence[Contender], *, epochs: int, num_classes: int, height: int, language: str
) -> dict[str, Any]:
    """Test accuracy per epoch. A star marks the best epoch, a line the accuracy of random guessing."""
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
    """The learning rate of the runs and, dashed, the planned one, given as (epochs passed, lr)."""
    value = measure_chart("lr", contenders, epochs=epochs, height=height, language=language)
    value["data"]["planned"] = [{"epoch": at, "value": lr, "drawn": lr} for at, lr in thinned(planned)]
    return value


class _View(NamedTuple):
    y: str = "value"  # the field to draw
    steps: str = ""  # the one of the rows of batches, if it is another
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
    cap = clip_level(measures, contenders)
    data = {
        "epochs": [row for measure in measures for row in epoch_rows(measure, contenders, cap, language)],
        "steps": [
            row for measure in measures for row in step_rows(measure, contenders, cap, most=_STEPS_PER_PIXEL * height)
        ],
        "diverged": diverged_rows(contenders, series),
        "planned": [],
        "guess": [],
        "printed": [],
        "ends": [],
    }
    return {"specs": specs, "view": next(iter(specs)), "data": data}


def _series(measures: tuple[str, ...], contenders: Sequence[Contender]) -> Iterator[tuple[str, str]]:
    """Yields (name in the rows, color): one for each measure of a single contender, else one for each contender."""
    if len(contenders) < 2:
        yield from ((measure, TRAIN if measure in ("train_loss", "lr", "grad_norm") else TEST) for measure in measures)
    else:
        yield from ((str(index), COLORS[index % len(COLORS)]) for index in range(len(contenders)))


@_CACHED
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
    shown_title = translate(title, language) if height >= _LEAST_TITLED else None
    y, step_y = (
        alt.Y(f"{field}:Q", title=shown_title, scale=scale, axis=axis) for field in (view.y, view.steps or view.y)
    )
    names, colors = zip(*series, strict=True)
    color = alt.Color("series:N", scale=alt.Scale(domain=list(names), range=list(colors)), legend=None)
    shapes = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]
    shape = alt.Shape("series:N", scale=alt.Scale(domain=list(names), range=shapes[: len(names)]), legend=None)
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
        is_drawable = f"datum.{view.y} > 0" if view.log else f"isValid(datum.{view.y})"
        return alt.Chart(alt.Data(name=name, values=[])).transform_filter(is_drawable)

    ended, steps, guess, plan = data("epochs"), data("steps"), data("guess"), data("planned")
    broken = alt.Chart(alt.Data(name="diverged", values=[]))
    layers = [
        guess.mark_rule(strokeDash=[3, 4], color=PLAN).encode(y=y),
        guess.mark_text(align="right", dx=-4, dy=-6, color=PLAN, fontSize=11).encode(
            y=y, text="text:N", x=alt.value("width")
        ),
        plan.mark_line(strokeDash=[5, 4], strokeWidth=1.5, color=PLAN, interpolate="step-after").encode(x, y),
        plan.mark_point(opacity=0, size=60).encode(x, y, tooltip=tip[1:]),
        data("printed")
        .mark_line(strokeDash=[1, 4], strokeWidth=2.5, strokeCap="round", color=PLAN)
        .encode(x, y, alt.Detail("part:N")),
        data("printed").mark_point(opacity=0, size=60).encode(x, y, tooltip=tip),
        steps.mark_line(
            strokeWidth=2.2 if measures == ("lr",) else 1.2,
            opacity=1 if measures == ("lr",) else 0.55,
            interpolate="step-before" if measures == ("lr",) else "linear",
        ).encode(x, step_y, color, run),
    ]
    if view.y != "sum":
        low, high = ("log_low", "log_high") if view.log else ("low", "high")
        layers += [
            ended.transform_filter(f"datum.{high} > datum.{low}")
            .mark_area(opacity=0.18)
            .encode(x, alt.Y(f"{low}:Q"), alt.Y2(f"{high}:Q"), color, run),
        ]
    layers += [
        ended.mark_line(strokeWidth=2.5).encode(x, y, color, dash, run),
        ended.mark_point(filled=True, size=45, opacity=1).encode(x, y, color, shape, run, tooltip=tip),
        ended.transform_filter("datum.best").mark_text(text="★", dy=-11, fontSize=14).encode(x, y, color, tooltip=tip),
        broken.mark_rule(strokeDash=[2, 2]).encode(x, color),
        broken.mark_text(text="✕ NaN", align="left", dx=4, fontWeight="bold").encode(x, color, y=alt.value(8)),
        alt.Chart(alt.Data(name="mark", values=[])).mark_rule(strokeWidth=1.5, color=PLAN).encode(x),
    ]
    if measures[0] != "train_loss":
        return sized(layers, height)
    names = data("ends").mark_text(align="left", dx=8, fontSize=12, fontWeight=600, limit=_NAME_WIDTH)
    layers += [names.encode(x, y, color, text="label:N"), data("frame").mark_point(opacity=0).encode(y=y)]
    if not view.log:
        cut = data("cut").mark_text(align="left", dx=4, dy=-7, fontSize=11, fontWeight=600)
        layers.append(cut.encode(x, y, color, text="text:N"))
    spec = sized(layers, height)
    return {**spec, "padding": {"left": 2, "top": 8, "bottom": 2, "right": _NAME_WIDTH + 10}}
