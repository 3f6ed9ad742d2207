"""The charts of a sweep: loss over a setting, time to a target accuracy, and the cost of tuning.

Each function returns the value of a `live_chart`. Its runs are those of a sweep that have ended an epoch; rows with
`press` can be pressed, and name a combination of settings.
"""

import functools
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import altair as alt

from trainer.palette import COLORS, PLAN, TEST
from trainer.runs.events import EpochEnded
from trainer.runs.run import Run
from trainer.settings.fields import text_of
from trainer.sweeps import curves, folder
from trainer.sweeps.axes import Axis, Cell
from trainer.sweeps.chart import room
from trainer.sweeps.results import Group, Measure, best, groups, label, main_axis, measure_of, most_drawn
from ui.charts.live import sized
from ui.i18n.words import translate

HEIGHT = 360

_DASHES = ((1, 0), (6, 3), (2, 2), (9, 3, 2, 3))
# Vega's shapes, and a letter that looks like each.
_SHAPES = {"circle": "●", "square": "■", "triangle-up": "▲", "diamond": "◆", "triangle-down": "▼", "cross": "✚"}
_MOST_TICKS = 12  # of the number of settings tried
_ROOM = 1.25  # the factor by which a logarithmic axis is longer than its values, at both ends

_CACHED = functools.lru_cache(maxsize=128)


class Series(NamedTuple):
    """A line of the charts: its name, color, dashes, and Vega's name of its points' shape."""

    name: str
    color: str
    dash: tuple[int, ...]
    shape: str

    @property
    def letter(self) -> str:
        """A letter that looks like the shape."""
        return _SHAPES[self.shape]


def series_of(axes: Sequence[Axis]) -> list[Series]:
    """Returns the lines of a sweep: one for each combination of values that no axis of the chart shows."""
    drawn = {axis.name for axis in _drawn(axes)}
    others = [axis for axis in axes if axis.name not in drawn and axis.name != "seed"]
    names = [
        label(dict(zip([axis.name for axis in others], values, strict=True)), axes)
        for values in itertools.product(*(axis.values for axis in others))
    ]
    shapes = list(_SHAPES)
    return [
        Series(name, COLORS[i % len(COLORS)], _DASHES[i % len(_DASHES)], shapes[i % len(shapes)])
        for i, name in enumerate(names)
    ]


def is_heat_map(axes: Sequence[Axis]) -> bool:
    """Whether the axes have two numbers to draw the loss over."""
    return len(_drawn(axes)) > 1


def loss_chart(runs: Mapping[Cell, Run], axes: Sequence[Axis], language: str) -> dict[str, Any]:
    """Loss, or accuracy, over the first numeric axis; with two numeric axes, a heat map of the loss for each line."""
    measure = measure_of(runs)
    if is_heat_map(axes):
        return _heat_map(runs, axes, _score, ".2f", translate(measure.loss_name, language), language)
    ended = folder.ended(runs)
    cap = most_drawn(ended)
    place = _Place.of(axes)
    chosen = [group.values for group in best(ended, axes)]
    series = tuple(series_of(axes))
    points: list[dict[str, Any]] = []
    edge: list[dict[str, Any]] = []
    for group in groups(ended):
        row = place.row(group, axes)
        if rows := _last_rows(group):
            points.append({**row, **_bands(rows, measure, cap), "best": group.values in chosen})
        if group.num_diverged:
            note = translate("diverged: {count} of {total}", language, count=group.num_diverged, total=len(group.runs))
            edge.append({**row, "x": place.shifted(row, series), "note": note})
    running = [
        {**place.row(group, axes), **_bands(_last_rows(group), measure, cap)}
        for group in groups({cell: run for cell, run in runs.items() if cell not in ended and run.epoch})
    ]
    ends = {
        f"{name}_drawn": [row[f"{name}_{end}"] for row in (*points, *running) for end in ("low", "high")]
        for name in ("loss", "accuracy")
    }
    data = {"points": points, "running": running, "edge": edge, "room": _room(ends)}
    specs = {
        translate("loss", language): _line_spec(series, place, "loss", measure.loss_name, ".4f", language),
        translate("accuracy", language): _line_spec(series, place, "accuracy", measure.accuracy_name, ".1%", language),
    }
    return {"specs": specs, "view": next(iter(specs)), "data": data}


def time_chart(runs: Mapping[Cell, Run], axes: Sequence[Axis], accuracy: float, language: str) -> dict[str, Any]:
    """Seconds, or epochs, until the test accuracy is `accuracy` (0–1); with two numeric axes, seconds as a heat map."""
    ended = folder.ended(runs)

    def times(group: Group, time_to: Callable[[Run, float], float | None]) -> list[float]:
        """The times of the seeds that reached the target."""
        return [time for run in group.runs if (time := time_to(run, accuracy)) is not None]

    def mean_seconds(group: Group) -> float | None:
        seconds = times(group, curves.seconds_to)
        return statistics.fmean(seconds) if len(seconds) == len(group.runs) else None

    if is_heat_map(axes):
        return _heat_map(ended, axes, mean_seconds, ".0f", translate("seconds to the target", language), language)
    place = _Place.of(axes)
    series = tuple(series_of(axes))
    points: list[dict[str, Any]] = []
    edge: list[dict[str, Any]] = []
    for group in groups(ended):
        row = place.row(group, axes)
        seconds, epochs = times(group, curves.seconds_to), times(group, curves.epochs_to)
        if len(seconds) == len(group.runs):
            points.append({**row, **_band("seconds", seconds, math.inf), **_band("epochs", epochs, math.inf)})
        else:
            count, total = len(seconds), len(group.runs)
            note = translate("reached by {count} of {total}", language, count=count, total=total)
            edge.append({**row, "x": place.shifted(row, series), "note": note})
    specs = {
        translate(name, language): _line_spec(series, place, name, title, ".1f", language)
        for name, title in (("seconds", "seconds to the target"), ("epochs", "epochs to the target"))
    }
    return {
        "specs": specs,
        "view": next(iter(specs)),
        "data": {"points": points, "running": [], "edge": edge, "room": []},
    }


def tuning_chart(runs: Mapping[Cell, Run], axes: Sequence[Axis], language: str) -> dict[str, Any]:
    """The expected accuracy of the best of k random combinations of settings, over k, for each optimizer."""
    measure, found = measure_of(runs), dict(curves.tuning(folder.ended(runs), axes))
    # With several lines for an optimizer, its curve looks like the first one.
    first: dict[str, Series] = {}
    for each in series_of(axes):
        name = each.name.partition(" · ")[0]
        first.setdefault(name, each._replace(name=name))
    rows: list[dict[str, Any]] = [
        {"x": number, "tuned": result, "series": name, "label": name}
        for name, results in found.items()
        for number, result in enumerate(results, 1)
    ]
    main = main_axis(axes)
    trials = math.prod(len(axis.values) for axis in axes if axis is not main and axis.name != "seed")
    spec = _tuning_spec(tuple(first.values()), trials, measure.accuracy_name, language)
    data = {"points": rows, "room": _room({"tuned": [row["tuned"] for row in rows]})}
    return {"specs": {"": spec}, "view": "", "data": data}


@dataclass(frozen=True, kw_only=True)
class _Place:
    """The horizontal axis of a chart: its setting and its values."""

    name: str
    values: tuple[Any, ...]
    is_numeric: bool

    @classmethod
    def of(cls, axes: Sequence[Axis]) -> "_Place":
        axis = _drawn(axes)[0]
        return cls(
            name=axis.name,
            values=axis.values if axis.is_numeric else tuple(map(text_of, axis.values)),
            is_numeric=axis.is_numeric,
        )

    @property
    def is_logarithmic(self) -> bool:
        return self.is_numeric and min(self.values) > 0 and max(self.values) >= 5 * min(self.values)

    @property
    def domain(self) -> list[Any]:
        """The ends of the axis, with some room on both sides of the values."""
        low, high = min(self.values), max(self.values)
        if self.is_logarithmic:
            return [low / _ROOM, high * _ROOM]
        return [low - (high - low) / 20, high + (high - low) / 20]

    def row(self, group: Group, axes: Sequence[Axis]) -> dict[str, Any]:
        """What all rows of a group have: its place, its line, and its settings in words."""
        value = group.values.get(self.name)
        others = {name: other for name, other in group.values.items() if name != self.name}
        return {
            "x": value if self.is_numeric else text_of(value),
            "at": text_of(value),
            "series": label(others, axes),
            "label": label(group.values, axes),
            "press": label(group.values, axes),
        }

    def shifted(self, row: Mapping[str, Any], series: Sequence[Series]) -> Any:
        """The row's place, moved a little by its line, so that marks at the chart's edge do not cover each other."""
        if not self.is_logarithmic:
            return row["x"]
        number = [each.name for each in series].index(row["series"])
        return row["x"] * _ROOM ** (0.3 * (number - (len(series) - 1) / 2))


def _drawn(axes: Sequence[Axis]) -> list[Axis]:
    """The axes of the chart: up to two numeric ones, or the first one."""
    numeric = [axis for axis in axes if axis.is_numeric]
    return numeric[:2] or list(axes[:1])


def _last_rows(group: Group) -> list[EpochEnded]:
    return [run.history[-1] for run in group.runs if run.status != "diverged" and run.epoch]


def _score(group: Group) -> float | None:
    return group.score if math.isfinite(group.score) else None


def _bands(rows: Sequence[EpochEnded], measure: Measure, cap: float) -> dict[str, float]:
    return {
        **_band("loss", [getattr(row, measure.loss) for row in rows], cap),
        **_band("accuracy", [getattr(row, measure.accuracy) for row in rows], math.inf),
    }


def _band(name: str, values: Sequence[float], cap: float) -> dict[str, float]:
    """The mean of values, which may be drawn lower, and their lowest and highest."""
    mean = statistics.fmean(values)
    return {
        name: mean,
        f"{name}_drawn": min(mean, cap),
        f"{name}_low": min(*values, cap),
        f"{name}_high": min(max(values), cap),
    }


def _room(values: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Two points that are not drawn: with them a vertical axis has several ticks even if its values are all alike."""
    ends = {name: room(found) for name, found in values.items() if found}
    return [{name: end[number] for name, end in ends.items()} for number in (0, 1)]


def _scales(series: Sequence[Series]) -> tuple[alt.Color, alt.StrokeDash, alt.Shape]:
    names = [each.name for each in series]
    return (
        alt.Color("series:N", scale=alt.Scale(domain=names, range=[each.color for each in series]), legend=None),
        alt.StrokeDash(
            "series:N", scale=alt.Scale(domain=names, range=[list(each.dash) for each in series]), legend=None
        ),
        alt.Shape("series:N", scale=alt.Scale(domain=names, range=[each.shape for each in series]), legend=None),
    )


def _data(name: str) -> alt.Chart:
    return alt.Chart(alt.Data(name=name, values=[]))


@_CACHED
def _line_spec(
    series: tuple[Series, ...], place: _Place, field: str, title: str, form: str, language: str
) -> dict[str, Any]:
    color, dash, shape = _scales(series)
    if place.is_numeric:
        scale = alt.Scale(type="log" if place.is_logarithmic else "linear", domain=place.domain, nice=False)
        axis = alt.Axis(format=".2~g", labelOverlap=True, values=list(place.values))
        x = alt.X("x:Q", title=place.name, scale=scale, axis=axis)
    else:
        x = alt.X("x:N", title=place.name, scale=alt.Scale(domain=list(place.values)), axis=alt.Axis(labelAngle=0))
    y = alt.Y(
        f"{field}_drawn:Q",
        title=translate(title, language),
        scale=alt.Scale(zero=field in ("seconds", "epochs")),
        axis=alt.Axis(format=".1~%" if field == "accuracy" else ".7~g", minExtent=36, tickCount=6),
    )
    tip = [
        alt.Tooltip("label:N", title=translate("settings", language)),
        alt.Tooltip(f"{field}:Q", title=translate(title, language), format=form),
    ]
    note = [alt.Tooltip("label:N", title=translate("settings", language)), alt.Tooltip("note:N", title=" ")]
    points, running, edge = _data("points"), _data("running"), _data("edge")
    layers = [
        _data("room").mark_point(opacity=0).encode(y),
        points.mark_area(opacity=0.16).encode(x, alt.Y(f"{field}_low:Q"), alt.Y2(f"{field}_high:Q"), color),
        points.mark_line(strokeWidth=2).encode(x, y, color, dash),
        running.mark_point(filled=False, size=50, strokeDash=[2, 2]).encode(x, y, color, shape),
        points.mark_point(filled=True, size=70, opacity=1, cursor="pointer").encode(x, y, color, shape, tooltip=tip),
        points.transform_filter("datum.best")
        .mark_point(shape="diamond", size=420, filled=False, strokeWidth=2, cursor="pointer")
        .encode(x, y, color, tooltip=tip),
        edge.mark_text(text="✕", fontSize=13, fontWeight="bold", cursor="pointer").encode(
            x, color, y=alt.value(8), tooltip=note
        ),
    ]
    return sized(layers, HEIGHT)


@_CACHED
def _tuning_spec(series: tuple[Series, ...], trials: int, title: str, language: str) -> dict[str, Any]:
    color, dash, shape = _scales(series)
    whole = alt.Axis(format="d", values=list(range(1, trials + 1, math.ceil(trials / _MOST_TICKS))))
    scale = alt.Scale(domain=[1, max(2, trials)], nice=False)
    x = alt.X("x:Q", title=translate("settings tried", language), scale=scale, axis=whole)
    axis = alt.Axis(format=".1~%", minExtent=36, tickCount=6)
    y = alt.Y("tuned:Q", title=translate(title, language), scale=alt.Scale(zero=False), axis=axis)
    tip = [
        alt.Tooltip("label:N", title=translate("settings", language)),
        alt.Tooltip("x:Q", title=translate("settings tried", language)),
        alt.Tooltip("tuned:Q", title=translate("expected best", language), format=".1%"),
    ]
    points = _data("points")
    layers = [
        _data("room").mark_point(opacity=0).encode(y),
        points.mark_line(strokeWidth=2).encode(x, y, color, dash),
        points.mark_point(filled=True, size=60, opacity=1).encode(x, y, color, shape, tooltip=tip),
    ]
    return sized(layers, HEIGHT)


def _heat_map(
    runs: Mapping[Cell, Run],
    axes: Sequence[Axis],
    value_of: Callable[[Group], float | None],
    form: str,
    title: str,
    language: str,
) -> dict[str, Any]:
    """A field for each pair of values of the two numeric axes; a view for each line of the other charts."""
    across, down = _drawn(axes)
    rows = list(_fields(groups(folder.ended(runs)), axes, across, down, value_of, form))
    specs = {each.name: _field_spec(each.name, across, down, title, form, language) for each in series_of(axes)}
    return {"specs": specs, "view": next(iter(specs)), "data": {"fields": rows}}


def _fields(
    found: Sequence[Group],
    axes: Sequence[Axis],
    across: Axis,
    down: Axis,
    value_of: Callable[[Group], float | None],
    form: str,
) -> Iterator[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for group in found:
        value = value_of(group)
        others = {name: other for name, other in group.values.items() if name not in (across.name, down.name)}
        words = label(group.values, axes)
        rows.append(
            {
                "x": f"{group.values[across.name]:.3g}",
                "y": f"{group.values[down.name]:.3g}",
                "value": value,
                "text": "✕" if value is None else format(value, form),
                "series": label(others, axes),
                "label": words,
                "press": words,
            }
        )
    for name in dict.fromkeys(row["series"] for row in rows):
        own = [row for row in rows if row["series"] == name]
        finite = [row["value"] for row in own if row["value"] is not None]
        middle = (min(finite) + max(finite)) / 2 if finite else 0.0
        for row in own:
            value = row["value"]
            yield {**row, "is_dark": value is not None and value <= middle, "is_best": value == min(finite, default=0)}


@_CACHED
def _field_spec(name: str, across: Axis, down: Axis, title: str, form: str, language: str) -> dict[str, Any]:
    x = alt.X(
        "x:O",
        title=across.name,
        scale=alt.Scale(domain=[f"{value:.3g}" for value in across.values]),
        axis=alt.Axis(labelAngle=0, labelOverlap=True),
    )
    y = alt.Y("y:O", title=down.name, scale=alt.Scale(domain=[f"{value:.3g}" for value in reversed(down.values)]))
    tip = [
        alt.Tooltip("label:N", title=translate("settings", language)),
        alt.Tooltip("value:Q", title=title, format=form),
    ]
    color = alt.Color("value:Q", scale=alt.Scale(scheme="blues", reverse=True), legend=None)
    own = _data("fields").transform_filter(alt.datum.series == name)
    known, unknown = own.transform_filter("isValid(datum.value)"), own.transform_filter("!isValid(datum.value)")
    dark, light = known.transform_filter("datum.is_dark"), known.transform_filter("!datum.is_dark")

    def words(fields: alt.Chart, color: str) -> alt.Chart:
        return fields.mark_text(fontSize=11, color=color, cursor="pointer").encode(x, y, text="text:N", tooltip=tip)

    layers = [
        known.mark_rect(cursor="pointer").encode(x, y, color, tooltip=tip),
        unknown.mark_rect(color=PLAN, opacity=0.2, cursor="pointer").encode(x, y, tooltip=tip[:1]),
        own.transform_filter("datum.is_best").mark_rect(filled=False, stroke=TEST, strokeWidth=3).encode(x, y),
        words(dark, "white"),
        words(light, "black"),
        words(unknown, PLAN),
    ]
    return sized(layers, HEIGHT)
