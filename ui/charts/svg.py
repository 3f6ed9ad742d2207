"""Several charts of the page in one SVG."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import vl_convert

_OF_ONE_CHART = ("$schema", "config", "autosize")  # what Vega-Lite refuses inside another chart


def part(spec: Mapping[str, Any], width: int) -> dict[str, Any]:
    """Returns the spec of one chart, `width` pixels wide, for `to_svg`."""
    return {name: value for name, value in spec.items() if name not in _OF_ONE_CHART} | {"width": width}


def names_of_lines(names: Sequence[str], colors: Sequence[str], row_height: int) -> dict[str, Any]:
    """Returns a legend for `to_svg`: each name in a row of `row_height` pixels, next to its color."""
    indices = [str(index) for index in range(len(names))]
    color = {
        "field": "index",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": indices, "range": list(colors)},
    }
    return {
        "data": {"values": [{"name": name, "index": index} for name, index in zip(names, indices, strict=True)]},
        "height": row_height * len(names),
        "layer": [
            {"mark": {"type": "square", "filled": True, "size": 90, "opacity": 1}, "encoding": {"color": color}},
            {"mark": {"type": "text", "align": "left", "dx": 10}, "encoding": {"text": {"field": "name"}}},
        ],
        "encoding": {"y": {"field": "index", "type": "ordinal", "axis": None}, "x": {"value": 6}},
    }


def to_svg(rows: Sequence[Mapping[str, Any]], data: Mapping[str, Any]) -> str:
    """Returns charts below each other as SVG, on white; `data` has their datasets by name."""
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": "white",
        "config": {"view": {"stroke": None}},
        "datasets": data,
        "vconcat": rows,
        "resolve": {"scale": {"color": "independent"}},
    }
    return vl_convert.vegalite_to_svg(json.dumps(spec))
