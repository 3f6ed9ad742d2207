"""The chart of a sweep as Vega-Lite (https://vega.github.io/vega-lite/docs/) and as SVG.

With one numeric axis it is the loss over that setting, a line for each optimizer with a band over the seeds; with two,
a heat map.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from trainer import palette
from trainer.runs.run import Run
from trainer.settings.fields import text_of
from trainer.sweeps.axes import Axis, Cell
from trainer.sweeps.results import Group, best, groups, label, main_axis, measure_of, most_drawn

_WIDTH, _HEIGHT = 560, 340
_LEAST_SPAN = 0.2  # of a vertical axis, as a share of its values


def draw(runs: Mapping[Cell, Run], axes: Sequence[Axis]) -> str:
    """Returns the chart as SVG."""
    import vl_convert  # takes half a second to import

    return vl_convert.vegalite_to_svg(spec(runs, axes))


def room(values: Sequence[float]) -> tuple[float, float]:
    """Returns the ends of an axis for these values, which has several ticks even if they are all alike."""
    low, high = min(values), max(values)
    missing = max(0.0, _LEAST_SPAN * (abs(low) + abs(high)) / 2 - (high - low))
    return low - missing / 2, high + missing / 2


def spec(runs: Mapping[Cell, Run], axes: Sequence[Axis]) -> dict[str, Any]:
    """Returns the chart of the runs that have ended."""
    numeric = [each for each in axes if each.is_numeric]
    main = main_axis(axes)
    chart = _heat_map(runs, numeric[0], numeric[1]) if len(numeric) > 1 else _lines(runs, axes, numeric, main)
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": "white",
        "width": _WIDTH,
        "height": _HEIGHT,
        **chart,
    }


def _lines(
    runs: Mapping[Cell, Run], axes: Sequence[Axis], numeric: Sequence[Axis], main: Axis | None
) -> dict[str, Any]:
    most = most_drawn(runs)
    across = numeric[0] if numeric else main
    name = across.name if across else "seed"
    best_ones = [group.values for group in best(runs, axes)]
    rows, diverged = [], []
    for group in groups(runs):
        row = {"x": _x(group.values.get(name), across), "series": _series(group, axes, across)}
        if group.losses:
            rows.append(
                {
                    **row,
                    "loss": min(statistics.fmean(group.losses), most),
                    "low": min(*group.losses, most),
                    "high": min(max(group.losses), most),
                    "is_best": group.values in best_ones,
                }
            )
        if group.num_diverged:
            diverged.append({**row, "note": f"diverged: {group.num_diverged} of {len(group.runs)}"})
    x: dict[str, Any] = {"field": "x", "title": name, "type": "nominal", "axis": {"labelAngle": 0}}
    if numeric:
        values = numeric[0].values
        x["type"] = "quantitative"
        x["axis"] = {"values": list(values), "format": "~g", "labelOverlap": True}
        # The whole range, also while only a few runs have ended.
        kind = "log" if min(values) > 0 else "linear"
        x["scale"] = {"type": kind, "domain": [min(values), max(values)], "nice": False, "padding": 16}
    names = list(dict.fromkeys(row["series"] for row in [*rows, *diverged]))
    colours = {"domain": names, "range": [palette.COLORS[i % len(palette.COLORS)] for i in range(len(names))]}
    colour = {
        "field": "series",
        "type": "nominal",
        "scale": colours,
        "legend": {"title": None, "orient": "top"} if len(names) > 1 else None,
    }
    ends = [row[name] for row in rows for name in ("low", "high")]
    scale = {"zero": False, **({"domain": room(ends), "nice": True} if ends else {})}
    y = {"field": "loss", "type": "quantitative", "title": measure_of(runs).loss_name, "scale": scale}
    band = {**y, "field": "low"}
    return {
        "layer": [
            {
                "data": {"values": rows},
                "mark": {"type": "area", "opacity": 0.18},
                "encoding": {"x": x, "y": band, "y2": {"field": "high"}, "color": colour},
            },
            {
                "data": {"values": rows},
                "mark": {"type": "line", "point": True},
                "encoding": {"x": x, "y": y, "color": colour},
            },
            {
                "data": {"values": [row for row in rows if row["is_best"]]},
                "mark": {"type": "point", "shape": "diamond", "size": 160, "filled": False, "strokeWidth": 2},
                "encoding": {"x": x, "y": y, "color": colour},
            },
            {
                "data": {"values": diverged},
                "mark": {"type": "point", "shape": "cross", "angle": 45, "size": 90, "filled": True},
                "encoding": {"x": x, "y": {"value": 6}, "color": colour, "tooltip": {"field": "note"}},
            },
        ]
    }


def _heat_map(runs: Mapping[Cell, Run], across: Axis, down: Axis) -> dict[str, Any]:
    """Each field has the best loss of the groups that have these two values."""
    fields: dict[tuple[Any, Any], float] = {}
    for group in groups(runs):
        key = (group.values[across.name], group.values[down.name])
        fields[key] = min(fields.get(key, math.inf), group.score)
    finite = [loss for loss in fields.values() if math.isfinite(loss)]
    rows = [
        {
            "x": text_of(x),
            "y": text_of(y),
            "loss": loss if math.isfinite(loss) else None,
            "text": f"{loss:.3f}" if math.isfinite(loss) else "diverged",
            "is_best": loss == min(finite, default=None),
            "is_dark": math.isfinite(loss) and bool(finite) and loss < (min(finite) + max(finite)) / 2,
        }
        for (x, y), loss in fields.items()
    ]
    place = {
        "x": {"field": "x", "type": "ordinal", "title": across.name, "sort": None, "axis": {"labelAngle": 0}},
        "y": {"field": "y", "type": "ordinal", "title": down.name, "sort": None},
    }
    colour = {
        "field": "loss",
        "type": "quantitative",
        "scale": {"scheme": "blues", "reverse": True},
        "legend": {"title": measure_of(runs).loss_name},
    }
    light = {"condition": {"test": "datum.is_dark", "value": "white"}, "value": "black"}
    return {
        "data": {"values": rows},
        "layer": [
            {"mark": "rect", "encoding": {**place, "color": colour}},
            {
                "transform": [{"filter": "datum.is_best"}],
                "mark": {"type": "rect", "filled": False, "stroke": palette.TEST, "strokeWidth": 3},
                "encoding": place,
            },
            {
                "mark": {"type": "text", "fontSize": 11},
                "encoding": {**place, "text": {"field": "text"}, "color": light},
            },
        ],
    }


def _series(group: Group, axes: Sequence[Axis], across: Axis | None) -> str:
    """The name of a group's line: its values but for the one on the x axis."""
    others = {name: value for name, value in group.values.items() if across is None or name != across.name}
    return label(others, axes)


def _x(value: Any, across: Axis | None) -> Any:
    return value if across is None or across.is_numeric else text_of(value)
