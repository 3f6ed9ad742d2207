"""The chart of a learning-rate range test."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from trainer.learning.lr_finder import Finding, Trial
from trainer.palette import PLAN, TEST, TRAIN
from ui.charts.run_charts import sized
from ui.i18n.words import translate

_BAD = "#ef4444"
_ROOM = 100  # times the trials' range, to both sides, that a planned schedule may take


def finder_chart(
    trials: Sequence[Trial], finding: Finding | None, planned: tuple[float, float] | None, language: str
) -> dict[str, Any]:
    """Loss over lr, which is logarithmic: each batch faint, their smoothed mean as a line; later trials only move them.

    `finding` adds the suggestion and, shaded, where it diverges; `planned` (lowest, highest lr of the schedule) a bar
    along the axis, cut off where it leads far away from the trials. The loss is cut off where it explodes.
    """
    diverging = finding.diverges_at if finding else None
    suggested = finding.suggestion if finding else None
    low, high = (trials[0].lr, trials[-1].lr) if trials else (1e-5, 10.0)
    if diverging is not None:
        high = max(high, 2 * diverging)
    if planned is not None:
        # Many a schedule ends at 0, to which no logarithmic axis goes, or so near to it that the trials would be a dot.
        begin, end = (min(max(lr, low / _ROOM), high * _ROOM) for lr in planned)
        planned, low, high = (begin, end), min(low, begin), max(high, end)
    losses = [trial.smoothed for trial in trials if math.isfinite(trial.smoothed)]
    # The worst worth telling apart is a loss somewhat above that of the start.
    start, lowest = (losses[0], min(losses)) if losses else (math.log(10), math.log(10))
    span = max(start - lowest, 0.05)
    bottom, top = lowest - 0.4 * span, start + 0.6 * span
    rows = [
        {"lr": trial.lr, "loss": _drawn(trial.loss, bottom, top), "smoothed": _drawn(trial.smoothed, bottom, top)}
        for trial in trials
    ]
    return {
        "specs": {"": _finder_spec(language)},
        "view": "",
        "data": {
            "frame": [{"lr": low, "loss": bottom}, {"lr": high, "loss": top}],
            "trials": rows,
            "diverging": []
            if diverging is None
            else [{"lr": diverging, "end": high, "text": translate("diverges", language)}],
            "suggested": []
            if suggested is None
            else [{"lr": suggested, "text": translate("suggested: {lr}", language, lr=f"{suggested:g}")}],
            "planned": []
            if planned is None
            else [{"lr": planned[0], "end": planned[1], "text": translate("planned schedule", language)}],
        },
    }


@functools.cache
def _finder_spec(language: str) -> dict[str, Any]:
    axis = alt.Axis(format="~g", labelOverlap=True, tickCount=8)
    x = alt.X("lr:Q", title="lr", scale=alt.Scale(type="log", nice=False), axis=axis)
    scale = alt.Scale(zero=False, nice=False)
    raw = alt.Y("loss:Q", title=translate("loss", language), scale=scale, axis=alt.Axis(format=".3~g", minExtent=32))
    smoothed = alt.Y("smoothed:Q", title=translate("loss", language), scale=scale)
    tip = [alt.Tooltip("lr:Q", format=".3~g"), alt.Tooltip("smoothed:Q", format=".4f")]
    trials = alt.Chart(alt.Data(name="trials", values=[]))
    diverging = alt.Chart(alt.Data(name="diverging", values=[]))
    suggested = alt.Chart(alt.Data(name="suggested", values=[]))
    planned = alt.Chart(alt.Data(name="planned", values=[]))
    layers = (
        # Invisible: it spreads the axes, which a domain in the spec would do only by drawing all anew.
        alt.Chart(alt.Data(name="frame", values=[])).mark_point(opacity=0).encode(x, raw)
        + diverging.mark_rect(color=_BAD, opacity=0.12).encode(x, x2="end:Q")
        + diverging.mark_text(color=_BAD, align="right", dx=-3, fontSize=11).encode(
            alt.X("end:Q"), text="text:N", y=alt.value(24)
        )
        + trials.mark_point(filled=True, size=14, opacity=0.35, color=TRAIN).encode(x, raw)
        + trials.mark_line(strokeWidth=2.5, color=TRAIN).encode(x, smoothed, tooltip=tip)
        + suggested.mark_rule(color=TEST, strokeWidth=2).encode(x)
        + suggested.mark_text(color=TEST, align="right", dx=-5, fontSize=12, fontWeight="bold").encode(
            x, text="text:N", y=alt.value(10)
        )
        + planned.mark_rule(color=PLAN, strokeWidth=7, opacity=0.7).encode(x, x2="end:Q", y=alt.value(256))
        + planned.mark_text(color=PLAN, align="left", baseline="bottom", dy=-6, fontSize=11).encode(
            x, text="text:N", y=alt.value(256)
        )
    )
    return sized(layers, 300)


def _drawn(loss: float, bottom: float, top: float) -> float | None:
    return round(loss, 4) if bottom <= loss <= top else None
