"""The chart of a loss landscape, contours and paths, as Vega (https://vega.github.io/vega/docs/), SVG and CSV."""

import csv
import io
import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from trainer import palette
from trainer.errors import Message
from trainer.insight.landscape import LossMap

_WIDTH, _HEIGHT = 560, 420

_LINE = 100  # letters of the caption

_NUM_LEVELS = 16
# Each contour lies on those of all lower losses, so that the shade grows with the loss on a light page and a dark one.
_SHADE = 0.055
_SHADES = [f"rgba(115,123,137,{1 - (1 - _SHADE) ** number:.3f})" for number in (1, _NUM_LEVELS)]

# Losses above this many times that of guessing are drawn as this, or the levels would all be far from the paths.
_CUT = 5.0

Translate = Callable[[str], str]


def draw(landscape: LossMap, translate: Translate = str) -> str:
    """Returns the chart as SVG, with its caption."""
    import vl_convert  # takes half a second to import

    chart = spec(landscape, translate)
    names = {
        "stroke": "run",
        "symbolType": "stroke",
        "symbolStrokeWidth": 3,
        "orient": "top",
        "direction": "vertical",
        "labelLimit": _WIDTH,
    }
    title = {
        "text": [line for sentence in caption(landscape) for line in _wrapped(translate(sentence))],
        "orient": "bottom",
        "anchor": "start",
        "fontSize": 11,
        "fontWeight": "normal",
        "offset": 12,
    }
    legends = [*chart["legends"], *([names] if len(landscape.names) > 1 else [])]
    known = rows(landscape, translate)
    data = [{**each, "values": known[each["name"]]} if each["name"] in known else each for each in chart["data"]]
    around = {"background": "white", "title": title, "legends": legends, "autosize": "pad"}
    return vl_convert.vega_to_svg({**chart, **around, "data": data})


def caption(landscape: LossMap) -> list[Message]:
    """Returns the sentences that say what the chart shows."""
    count = f"{landscape.num_weights:,}"
    if landscape.share is None:
        what = Message(
            "A slice of the loss: of {count} directions, two random ones around the last network, filter-normalised.",
            count=count,
        )
    else:
        what = Message(
            "A slice of the loss: of {count} directions, the two that explain {share} of the variance of the weights "
            "over the epochs.",
            count=count,
            share=f"{landscape.share:.1%}",
        )
    return [
        what,
        Message(
            "Cross-entropy on {count} training pictures, not augmented; batch normalisation, where there is any, is "
            "measured anew at each point. After Li et al. (2018), arXiv:1712.09913.",
            count=f"{landscape.num_images:,}",
        ),
    ]


def to_csv(landscape: LossMap) -> str:
    """Returns CSV with a row for each known point of the grid, and one without a loss for each epoch of a run."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["run", "epoch", "x", "y", "loss"])
    for (row, column), loss in sorted(landscape.losses.items()):
        table.writerow(["", "", landscape.xs[column], landscape.ys[row], loss])
    for name, path in zip(landscape.names, landscape.paths, strict=True):
        table.writerows([name, stop.epoch, stop.x, stop.y, ""] for stop in path)
    return text.getvalue()


def rows(landscape: LossMap, translate: Translate = str) -> dict[str, list[Any]]:
    """Returns the rows of the chart's data sets, by name. At least the corners of the grid must be known."""
    values = filled(landscape.losses, len(landscape.xs))
    cut = _CUT * math.log(landscape.num_classes)
    finite = values[np.isfinite(values)]
    low = float(finite.min()) if finite.size else cut
    high = max(min(float(finite.max()), cut) if finite.size else cut, low * 1.001)
    levels = np.geomspace(max(low, high * 1e-4), high, _NUM_LEVELS + 1)[:-1]
    drawn = np.where(np.isfinite(values), np.minimum(values, high), high)
    places = {place: (landscape.xs[place[1]], landscape.ys[place[0]]) for place in landscape.losses}
    return {
        # The first row of the values is drawn at the top.
        "grid": [{"width": len(landscape.xs), "height": len(landscape.ys), "values": drawn[::-1].ravel().tolist()}],
        "levels": [{"level": level} for level in [*levels.tolist(), high]],
        "points": [
            {"x": x, "y": y, "text": f"{landscape.losses[place]:.4g}"}
            for place, (x, y) in places.items()
            if math.isfinite(landscape.losses[place])
        ],
        "infinite": [
            {"x": x, "y": y} for place, (x, y) in places.items() if not math.isfinite(landscape.losses[place])
        ],
        "stops": [
            {
                "run": name,
                "text": name if landscape.share is None else f"{name}, {translate('epoch')} {stop.epoch}",
                "x": stop.x,
                "y": stop.y,
                "end": (end := _end(number, len(path))),
                "label": translate(end) if end else "",
            }
            for name, path in zip(landscape.names, landscape.paths, strict=True)
            for number, stop in enumerate(path)
        ],
    }


def spec(landscape: LossMap, translate: Translate = str) -> dict[str, Any]:
    """Returns the chart without its data, which `rows` returns; it depends on the grid and the names only."""
    last = len(landscape.xs) - 1
    colour = {"scale": "run", "field": "run"}
    place = {"x": {"scale": "x", "field": "x"}, "y": {"scale": "y", "field": "y"}}
    # A value is drawn at the centre of its cell; the outer halves of the cells are clipped.
    contours = {
        "type": "isocontour",
        "thresholds": {"signal": f"slice(pluck(data('levels'), 'level'), 0, {_NUM_LEVELS})"},
        "scale": {"signal": f"[width / {last}, height / {last}]"},
        "translate": {"signal": f"[-width / {2 * last}, -height / {2 * last}]"},
    }
    axis = {"tickCount": 6, "grid": False}
    return {
        "$schema": "https://vega.github.io/schema/vega/v6.json",
        "width": _WIDTH,
        "height": _HEIGHT,
        "padding": 8,
        "autosize": {"type": "fit", "contains": "padding"},
        "data": [
            {"name": "levels"},
            {"name": "grid"},
            {"name": "contours", "source": "grid", "transform": [contours]},
            {"name": "points"},
            {"name": "infinite"},
            {"name": "stops"},
        ],
        "scales": [
            {
                "name": "x",
                "type": "linear",
                "domain": [landscape.xs[0], landscape.xs[-1]],
                "range": "width",
                "zero": False,
            },
            {
                "name": "y",
                "type": "linear",
                "domain": [landscape.ys[0], landscape.ys[-1]],
                "range": "height",
                "zero": False,
            },
            {
                "name": "loss",
                "type": "log",
                "domain": {"data": "levels", "field": "level"},
                "range": _SHADES,
                "clamp": True,
            },
            {
                "name": "run",
                "type": "ordinal",
                "domain": list(landscape.names),
                "range": list(palette.COLORS),
            },
        ],
        "axes": [
            {"scale": "x", "orient": "bottom", "title": translate(_axis(landscape, 0)), **axis},
            {"scale": "y", "orient": "left", "title": translate(_axis(landscape, 1)), **axis},
        ],
        "legends": [
            {
                "fill": "loss",
                "type": "gradient",
                "orient": "top",
                "direction": "horizontal",
                "title": translate("train loss"),
                "titleOrient": "left",
                "titleColor": palette.PLAN,
                "format": ".3~r",
                "tickCount": 4,
                "gradientLength": 180,
                "gradientThickness": 10,
            }
        ],
        "marks": [
            {
                "type": "path",
                "clip": True,
                "from": {"data": "contours"},
                "encode": {
                    "update": {
                        "fill": {"value": palette.PLAN},
                        "fillOpacity": {"value": _SHADE},
                        "stroke": {"value": palette.PLAN},
                        "strokeWidth": {"value": 0.5},
                    }
                },
                "transform": [{"type": "geopath", "field": "datum.contour"}],
            },
            {
                "type": "symbol",
                "from": {"data": "points"},
                "encode": {
                    "update": {
                        **place,
                        "size": {"value": 150},
                        "fill": {"value": "transparent"},
                        "tooltip": {"field": "text"},
                    }
                },
            },
            {
                "type": "symbol",
                "from": {"data": "infinite"},
                "encode": {
                    "update": {
                        **place,
                        "shape": {"value": "cross"},
                        "angle": {"value": 45},
                        "size": {"value": 40},
                        "fill": {"value": palette.PLAN},
                        "tooltip": {"value": translate("not finite")},
                    }
                },
            },
            {
                "type": "group",
                "from": {"facet": {"name": "path", "data": "stops", "groupby": "run"}},
                "marks": [
                    {
                        "type": "line",
                        "from": {"data": "path"},
                        "encode": {"update": {**place, "stroke": colour, "strokeWidth": {"value": 2}}},
                    }
                ],
            },
            {
                "type": "symbol",
                "from": {"data": "stops"},
                "encode": {
                    "update": {
                        **place,
                        "stroke": colour,
                        "fill": [{"test": "datum.end == 'start'", "value": "white"}, colour],
                        "strokeWidth": {"value": 2},
                        "size": {"signal": "datum.end ? 110 : 24"},
                        "shape": {"signal": "datum.end == 'end' ? 'diamond' : 'circle'"},
                        "tooltip": {"field": "text"},
                    }
                },
            },
            {
                "type": "text",
                "from": {"data": "stops"},
                "encode": {
                    "update": {
                        **place,
                        "text": {"field": "label"},
                        "dy": {"value": -10},
                        "align": {"value": "center"},
                        "fontSize": {"value": 12},
                        "fontWeight": {"value": "bold"},
                        "fill": colour,
                    }
                },
            },
        ],
    }


def filled(losses: Mapping[tuple[int, int], float], num_points: int) -> np.ndarray:
    """Returns the losses, float64 [num_points, num_points]; those that are missing are interpolated, first along rows.

    A row counts once its last point is known: `coarse_to_fine` visits it from the left. The corners must be known.
    """
    across, last = range(num_points), num_points - 1
    ticks = [row for row in across if (row, 0) in losses and (row, last) in losses]
    rows = []
    for row in ticks:
        columns = [column for column in across if (row, column) in losses]
        rows.append(np.interp(across, columns, [losses[row, column] for column in columns]))
    return np.array([np.interp(across, ticks, column) for column in np.array(rows).T]).T


def _wrapped(sentence: str) -> list[str]:
    """Returns the lines of a sentence, none wider than the chart; a Chinese character is as wide as two others."""
    return textwrap.wrap(sentence, _LINE if sentence.isascii() else _LINE // 2)


def _end(number: int, count: int) -> str:
    """Returns what is written at a stop: the start and the end of a path are marked."""
    if count == 1:
        return "network"
    return {0: "start", count - 1: "end"}.get(number, "")


def _axis(landscape: LossMap, index: int) -> str:
    if landscape.share is None:
        return ("first random direction, in norms of the filters", "second random direction, in norms of the filters")[
            index
        ]
    return ("first principal component", "second principal component")[index]
