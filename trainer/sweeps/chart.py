"""The chart of a sweep as Vega-Lite (https://vega.github.io/vega-lite/docs/) and as SVG.

With one numeric axis it is the loss over that setting, a line for each optimizer with a band over the seeds; with two,
a heat map.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainer import palette
from trainer.runs.run import Run
from trainer.settings.fields import text_of
from trainer.sweeps.axes import Axis, Cell
from trainer.sweeps.results import Group, best, groups, main_axis

_WIDTH, _HEIGHT = 560, 340


def draw(runs: Mapping[Cell, Run], axes: Sequence[Axis]) -> str:
    """Returns the chart as SVG."""
    import vl_convert  # takes half a second to import

    return vl_convert.vegalite_to_svg(spec(runs, axes))


def spec(runs: Mapping[Cell, Run], axes: Sequence[Axis]) -> dict[str, Any]:
    """Returns the chart of the runs that have ended."""
    numeric = [each for each in axes if each.is_numeric]
    main = main_axis(axes)
    found = groups(runs)
    chart = _heat_map(found, numeric[0], numeric[1]) if len(numeric) > 1 else _lines(found, runs, axes, numeric, main)
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": "white",
        "width": _WIDTH,
        "height": _HEIGHT,
        **chart,
    }


def _lines(
    found: Sequence[Group], runs: Mapping[Cell, Run], axes: Sequence[Axis], numeric: Sequence[Axis], main: Axis | None
) -> dict[str, Any]:
    across = numeric[0] if numeric else main
    name = across.name if across else "seed"
    best_ones = [group.values for group in best(runs, axes)]
    rows, diverged = [], []
    for group in found:
        row = {"x": _x(group.values.get(name), across), "series": _series(group, main, across)}
        if group.losses:
            rows.append(
                {
                    **row,
                    "loss": sum(group.losses) / len(group.losses),
                    "low": min(group.losses),
                    "high": max(group.losses),
                    "is_best": group.values in best_ones,
                }
            )
        if group.num_diverged:
            diverged.append({**row, "note": f"diverged: {group.num_diverged} of {len(group.runs)}"})
    is_logarithmic = bool(numeric) and all(value > 0 for value in numeric[0].values)
    x = {
        "field": "x",
        "title": name,
        "type": "quantitative" if numeric else "nominal",
        "scale": {"type": "log"} if is_logarithmic else {},
        "axis": {"labelOverlap": True, **({"format": "~g"} if numeric else {"labelAngle": 0})},
    }
    names = list(dict.fromkeys(row["series"] for row in [*rows, *diverged]))
    colours = {"domain": names, "range": [palette.COLORS[i % len(palette.COLORS)] for i in range(len(names))]}
    colour = {
        "field": "series",
        "type": "nominal",
        "scale": colours,
        "legend": {"title": None, "orient": "top"} if len(names) > 1 else None,
    }
    y = {"field": "loss", "type": "quantitative", "title": _loss_name(found), "scale": {"zero": False}}
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


def _heat_map(found: Sequence[Group], across: Axis, down: Axis) -> dict[str, Any]:
    """Each field has the best loss of the groups that have these two values."""
    fields: dict[tuple[Any, Any], float] = {}
    for group in found:
        key = (group.values[across.name], group.values[down.name])
        fields[key] = min(fields.get(key, math.inf), group.score)
    finite = [loss for loss in fields.values() if math.isfinite(loss)]
    rows = [
        {
            "x": text_of(x),
            "y": text_of(y),
            "loss": loss if math.isfinite(loss) else None,
            "text": f"{loss:.3f}" if math.isfinite(loss) else "diverged",
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
        "legend": {"title": _loss_name(found)},
    }
    light = {"condition": {"test": "datum.is_dark", "value": "white"}, "value": "black"}
    return {
        "data": {"values": rows},
        "layer": [
            {"mark": "rect", "encoding": {**place, "color": colour}},
            {
                "mark": {"type": "text", "fontSize": 11},
                "encoding": {**place, "text": {"field": "text"}, "color": light},
            },
        ],
    }


def _series(group: Group, main: Axis | None, across: Axis | None) -> str:
    """The name of a group's line: its values but for the one on the x axis."""
    others = [(name, value) for name, value in group.values.items() if across is None or name != across.name]
    return " · ".join(
        text_of(value) if main and name == main.name else f"{name} {text_of(value)}" for name, value in others
    )


def _x(value: Any, across: Axis | None) -> Any:
    return value if across is None or across.is_numeric else text_of(value)


def _loss_name(found: Sequence[Group]) -> str:
    has_holdout = any(run.history and run.history[-1].holdout_loss is not None for group in found for run in group.runs)
    return "loss on the pictures kept aside" if has_holdout else "test loss"
