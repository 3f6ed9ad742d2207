"""The charts of the sharpness of runs at their epochs, and of their training loss; the same as SVG and as CSV."""

import csv
import functools
import io
from collections.abc import Sequence
from typing import Any

import altair as alt

from trainer.insight.sharpness import RunSharpness, stability_limit
from trainer.palette import COLORS, PLAN
from ui.charts.live import sized
from ui.charts.svg import names_of_lines, part, to_svg
from ui.i18n.words import translate

HEIGHT = 320

_SVG_WIDTH, _SVG_HEIGHT = 460, 280
_PADDING = {"left": 2, "right": 12, "top": 20, "bottom": 2}  # a limit at the top of the axis has its label above it
_MOST_ABOVE = 3.0  # times the largest sharpness: a limit above that is drawn on a logarithmic axis only


def sharpness_chart(runs: Sequence[RunSharpness], language: str) -> dict[str, Any]:
    """The sharpness of each run at its epochs and, dashed, the limit of stable steps, which may be far above."""
    specs = {
        translate(name, language): _spec("sharpness", name == "logarithmic", *_size(runs), HEIGHT, language)
        for name in ("linear", "logarithmic")
    }
    data = _data(runs)
    is_far = bool(data["limits"]) and not any(row["is_near"] for row in data["limits"])
    return {"specs": specs, "view": list(specs)[is_far], "data": data}


def loss_chart(runs: Sequence[RunSharpness], language: str) -> dict[str, Any]:
    """The training loss of each run at the same epochs."""
    return {"specs": {"": _spec("loss", False, *_size(runs), HEIGHT, language)}, "view": "", "data": _data(runs)}


def draw(runs: Sequence[RunSharpness], language: str) -> str:
    """Returns both charts as SVG, with the names of the runs."""
    data = _data(runs)
    is_log = not any(row["is_near"] for row in data["limits"])
    charts = [
        part(_spec(name, is_log and name == "sharpness", *_size(runs), _SVG_HEIGHT, language), _SVG_WIDTH)
        for name in ("sharpness", "loss")
    ]
    names = names_of_lines([run.name for run in runs], COLORS[: len(runs)], 16)
    return to_svg([{"hconcat": charts}, names], data)


def to_csv(runs: Sequence[RunSharpness]) -> str:
    """Returns CSV with a row for each epoch of each run; what is not finite is empty."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["run", "epoch", "sharpness", "2/lr", "loss"])
    table.writerows([run.name, row.epoch, row.sharpness, row.limit, row.loss] for run in runs for row in run.rows)
    return text.getvalue()


def _data(runs: Sequence[RunSharpness]) -> dict[str, Any]:
    known = [row.sharpness for run in runs for row in run.rows if row.sharpness]
    highest = _MOST_ABOVE * max(known, default=0.0)
    rows, limits, broken = [], [], []
    for index, run in enumerate(runs):
        factor = stability_limit(run.config) or 2.0
        for row in run.rows:
            limit = row.limit and row.limit * factor / 2
            place = {"epoch": row.epoch, "series": str(index), "label": run.name}
            rows.append({**place, "sharpness": row.sharpness, "loss": row.loss, "limit": limit})
            if limit:
                text = f"{factor:.3g}/lr"
                limits.append({**place, "sharpness": limit, "is_near": limit <= highest, "text": text})
            if row.sharpness is None:
                broken.append({**place, "text": "✕ NaN"})
    labels = {row["series"]: row for row in limits}  # the last one of each run
    return {"rows": rows, "limits": limits, "labels": list(labels.values()), "broken": broken}


def _size(runs: Sequence[RunSharpness]) -> tuple[int, int]:
    """Returns the number of runs and of epochs."""
    return len(runs), max((run.config.epochs for run in runs), default=1)


@functools.lru_cache(maxsize=64)
def _spec(name: str, is_log: bool, num_runs: int, epochs: int, height: int, language: str) -> dict[str, Any]:
    titles = {"sharpness": "sharpness", "loss": "train loss"}
    title = translate(titles[name], language)
    x = alt.X(
        "epoch:Q",
        title=translate("epoch", language),
        scale=alt.Scale(domain=[0, epochs], nice=False),
        axis=alt.Axis(tickMinStep=1, tickCount=min(epochs, 12), format="d", labelFlush=False),
    )
    scale = alt.Scale(type="log") if is_log else alt.Scale(zero=name == "sharpness")
    y = alt.Y(f"{name}:Q", title=title, scale=scale, axis=alt.Axis(format=".4~g", minExtent=36, tickCount=6))
    domain = [str(index) for index in range(max(1, num_runs))]
    color = alt.Color("series:N", scale=alt.Scale(domain=domain, range=list(COLORS[: len(domain)])), legend=None)
    tip = [
        alt.Tooltip("label:N", title=translate("Run", language)),
        alt.Tooltip("epoch:Q", title=translate("epoch", language)),
        alt.Tooltip("sharpness:Q", title=translate("sharpness", language), format=".4g"),
        alt.Tooltip("limit:Q", title=translate("limit of stable steps", language), format=".4g"),
        alt.Tooltip("loss:Q", title=translate("train loss", language), format=".4g"),
    ]
    is_drawable = f"datum.{name} > 0" if is_log else f"isValid(datum.{name})"
    rows = alt.Chart(alt.Data(name="rows", values=[])).transform_filter(is_drawable)
    broken = alt.Chart(alt.Data(name="broken", values=[]))
    layers = [
        rows.mark_line(strokeWidth=2).encode(x, y, color),
        rows.mark_point(filled=True, size=34, opacity=1).encode(x, y, color, tooltip=tip),
        broken.mark_rule(strokeDash=[2, 2], color=PLAN).encode(x),
        broken.mark_text(align="left", dx=4, fontWeight="bold", color=PLAN).encode(x, text="text:N", y=alt.value(8)),
    ]
    if name == "sharpness":
        limits, labels = (
            alt.Chart(alt.Data(name=each, values=[])).transform_filter("true" if is_log else "datum.is_near")
            for each in ("limits", "labels")
        )
        text = labels.mark_text(align="right", dy=-8, fontSize=12, fontWeight="bold")
        layers += [
            limits.mark_line(strokeDash=[5, 4], strokeWidth=1.5).encode(x, y, color),
            text.encode(x, y, color, text="text:N"),
        ]
    return {**sized(layers, height), "padding": _PADDING}
