"""The time machine's charts: the probability of each class after every epoch, and what each epoch mistakes."""

import functools
from collections.abc import Sequence
from typing import Any

import altair as alt

from trainer.insight.mistakes import Answers
from trainer.insight.timeline import Moment
from trainer.palette import PLAN, TEST, TRAIN
from ui.charts.live import sized
from ui.i18n.words import translate

# Vega's color scheme tableau10. More colors could not be distinguished.
COLORS = (
    "#4c78a8", "#f58518", "#e45756", "#72b7b2", "#54a24b", "#eeca3b", "#b279a2", "#ff9da6", "#9d755d", "#bab0ac",
)  # fmt: skip
HEIGHT = 270

# A class gets a line if its probability ever exceeded this, or if it is the likeliest in the end.
_LINE_THRESHOLD = 0.2


def class_colors(moments: Sequence[Moment]) -> dict[str, str]:
    """The colors of the classes to draw: at most ten, those with the highest probabilities, in the network's order.

    With ten classes or fewer, a class keeps its color when more moments arrive.
    """
    names = moments[0].class_names if moments else ()
    peaks = {name: max(moment.prediction.confidences[name] for moment in moments) for name in names}
    likeliest = sorted(names, key=lambda name: -peaks[name])[: len(COLORS)]
    ordered = [name for name in names if name in likeliest]
    return dict(zip(ordered, COLORS, strict=False))


def shares(moment: Moment, colors: dict[str, str]) -> list[dict[str, Any]]:
    """The data rows of one moment, for both charts."""
    confidences = moment.prediction.confidences
    return [
        {"epoch": moment.epoch, "class": name, "share": round(confidences[name], 5), "color": color}
        for name, color in colors.items()
    ]


def lines_chart(moments: Sequence[Moment], last: int, language: str) -> dict[str, Any]:
    """The probability of each class that ever exceeded the threshold, over the epochs up to `last`.

    The page feeds the selected epoch in as the data sets `mark` and `now`.
    """
    colors = class_colors(moments)
    peaks = {name: max(moment.prediction.confidences[name] for moment in moments) for name in colors}
    first = moments[-1].prediction.label if moments else None
    drawn = {name: color for name, color in colors.items() if name == first or peaks[name] > _LINE_THRESHOLD}
    rows = [row for moment in moments for row in shares(moment, drawn)]
    return {"specs": {"": _lines_spec(last, language)}, "view": "", "data": {"shares": rows}}


def bars_chart(moments: Sequence[Moment], language: str) -> dict[str, Any]:
    """The probability of each class at the selected epoch, which the page feeds in as the data set `now`."""
    return {"specs": {"": _bars_spec(tuple(class_colors(moments)), language)}, "view": "", "data": {}}


def scores_chart(rows: Sequence[dict[str, Any]], names: Sequence[str], language: str) -> dict[str, Any]:
    """The accuracy within each class at the selected epoch, with the class that its pictures are most taken for.

    `rows` are those of `score_rows`. The page feeds the selected epoch in as the data set `mark`.
    """
    return {"specs": {"": _scores_spec(tuple(names), language)}, "view": "", "data": {"scores": rows}}


def score_rows(epoch: int, answers: Answers, names: Sequence[str]) -> list[dict[str, Any]]:
    """The data rows of one epoch's mistakes: one for each of the classes in `names` that has test pictures."""
    wrong = answers.confusion.clone().fill_diagonal_(0)
    rows = []
    for index, score in enumerate(answers.class_scores):
        if score.recall is not None and score.name in names:
            count, taken = (int(value) for value in wrong[index].max(0))
            mistake = f"{answers.class_names[taken]} {count / score.num_pictures:.0%}" if count else ""
            rows.append({"epoch": epoch, "class": score.name, "accuracy": score.recall, "mistake": mistake})
    return rows


@functools.lru_cache(maxsize=64)
def _lines_spec(last: int, language: str) -> dict[str, Any]:
    x = alt.X(
        "epoch:Q",
        title=translate("epoch", language),
        scale=alt.Scale(domain=[0, max(last, 1)], nice=False),
        axis=alt.Axis(tickMinStep=1, tickCount=min(max(last, 1), 12), format="d", labelFlush=False),
    )
    axis = alt.Axis(format=".0%", minExtent=36, tickCount=5)
    y = alt.Y("share:Q", title=translate("probability", language), scale=alt.Scale(domain=[0, 1]), axis=axis)
    color = alt.Color("color:N", scale=None)
    tip = [
        alt.Tooltip("class:N", title=translate("class", language)),
        alt.Tooltip("epoch:Q", title=translate("epoch", language)),
        alt.Tooltip("share:Q", title=translate("probability", language), format=".1%"),
    ]
    rows, now = alt.Chart(alt.Data(name="shares", values=[])), alt.Chart(alt.Data(name="now", values=[]))
    name = now.transform_filter(f"datum.share > {_LINE_THRESHOLD}")
    layers = [
        alt.Chart(alt.Data(name="mark", values=[])).mark_rule(strokeWidth=2, color=PLAN).encode(x),
        rows.mark_line(strokeWidth=2.5).encode(x, y, color, detail="class:N"),
        rows.mark_point(opacity=0, size=60).encode(x, y, tooltip=tip),
        now.transform_filter(f"datum.share > {_LINE_THRESHOLD / 4}")
        .mark_point(filled=True, size=70, opacity=1)
        .encode(x, y, color, tooltip=tip),
        # Labels lie towards the middle, where there is room.
        name.transform_filter(f"datum.epoch <= {last / 2}")
        .mark_text(align="left", dx=8, dy=-9, fontSize=12, fontWeight="bold")
        .encode(x, y, color, text="class:N"),
        name.transform_filter(f"datum.epoch > {last / 2}")
        .mark_text(align="right", dx=-8, dy=-9, fontSize=12, fontWeight="bold")
        .encode(x, y, color, text="class:N"),
    ]
    return sized(layers, HEIGHT)


def _bar_axes(field: str, title: str, names: tuple[str, ...]) -> tuple[alt.X, alt.Y]:
    """The axes of bars with a share, 0–1, for each class."""
    share = alt.Axis(format=".0%", tickCount=4)
    classes = alt.Axis(labelLimit=110, ticks=False, domain=False, labelFontSize=12)
    return (
        alt.X(f"{field}:Q", title=title, scale=alt.Scale(domain=[0, 1]), axis=share),
        alt.Y("class:N", title=None, scale=alt.Scale(domain=list(names), paddingInner=0.25), axis=classes),
    )


@functools.lru_cache(maxsize=64)
def _bars_spec(names: tuple[str, ...], language: str) -> dict[str, Any]:
    x, y = _bar_axes("share", translate("probability", language), names)
    bars = alt.Chart(alt.Data(name="now", values=[]))
    likely = "datum.share > 0.85"
    layers = [
        bars.mark_bar(cornerRadiusEnd=2).encode(x, y, alt.Color("color:N", scale=None)),
        bars.transform_filter(f"!({likely})")
        .mark_text(align="left", dx=5, color=PLAN)
        .encode(x, y, text=alt.Text("share:Q", format=".1%")),
        bars.transform_filter(likely)
        .mark_text(align="right", dx=-5, color="white", fontWeight="bold")
        .encode(x, y, text=alt.Text("share:Q", format=".1%")),
    ]
    return sized(layers, HEIGHT)


@functools.lru_cache(maxsize=64)
def _scores_spec(names: tuple[str, ...], language: str) -> dict[str, Any]:
    x, y = _bar_axes("accuracy", translate("accuracy", language), names)
    selected = alt.LookupData(data=alt.Data(name="mark", values=[]), key="epoch", fields=["epoch"])
    rows = (
        alt.Chart(alt.Data(name="scores", values=[]))
        .transform_lookup(lookup="epoch", from_=selected, as_=["now"])
        .transform_filter("isValid(datum.now)")
    )
    tip = [
        alt.Tooltip("class:N", title=translate("class", language)),
        alt.Tooltip("accuracy:Q", title=translate("accuracy", language), format=".0%"),
        alt.Tooltip("mistake:N", title=translate("taken for", language)),
    ]
    inside = "datum.accuracy > 0.5"
    title = [
        translate("Mistakes: the share of some test pictures", language),
        translate("recognised, and the most frequent mistake", language),
    ]
    layers = [
        rows.mark_bar(cornerRadiusEnd=2, color=TRAIN).encode(x, y, tooltip=tip),
        rows.transform_filter(inside)
        .mark_text(align="right", dx=-5, color="white")
        .encode(x, y, text="mistake:N", tooltip=tip),
        rows.transform_filter(f"!({inside})")
        .mark_text(align="left", dx=5, color=TEST)
        .encode(x, y, text="mistake:N", tooltip=tip),
    ]
    heading = {"text": title, "anchor": "start", "color": PLAN, "fontSize": 12, "fontWeight": "normal"}
    return {**sized(layers, HEIGHT), "title": heading}
