"""The chart of a learning-rate range test."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from trainer.learning.lr_finder import Finding, Trial
from trainer.palette import PLAN, TEST, TRAIN
from ui.charts.live import LARGE, sized
from ui.i18n.words import translate

_BAD = "#ef4444"
_ROOM = 100  # the factor by which a planned schedule may extend the trials' range, on either side


def finder_chart(
    trials: Sequence[Trial], finding: Finding | None, planned: tuple[float, float] | None, language: str
) -> dict[str, Any]:
    """Loss over learning rate on a logarithmic axis: a faint point for each batch, a line for their smoothed mean.

    `finding` adds the suggested lr and shades the range that diverges. `planned` (lowest and highest lr of the
    schedule) adds a bar along the axis, which is clipped far away from the trials. Exploded losses are left out.
    """
    diverging = finding.diverges_at if finding else None
    suggested = finding.suggestion if finding else None
    low, high = (trials[0].lr, trials[-1].lr) if trials else (1e-5, 10.0)
    if diverging is not None:
        high = max(high, 2 * diverging)
    if planned is not None:
        # Many schedules end at 0, which a logarithmic axis cannot show, or so near that the trials would become a dot.
        start_lr, end_lr = (min(max(lr, low / _ROOM), high * _ROOM) for lr in planned)
        planned, low, high = (start_lr, end_lr), min(low, start_lr), max(high, end_lr)
    losses = [trial.smoothed for trial in trials if math.isfinite(trial.smoothed)]
    # The axis ends a little above the loss at the start.
    start, lowest = (losses[0], min(losses)) if losses else (math.log(10), math.log(10))
    span = max(start - lowest, 0.05)
    bottom, top = lowest - 0.4 * span, start + 0.6 * span
    rows = [
        {"lr": trial.lr, "loss": _visible(trial.loss, bottom, top), "smoothed": _visible(trial.smoothed, bottom, top)}
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
    x = alt.X("lr:Q", title=translate("learning rate", language), scale=alt.Scale(type="log", nice=False), axis=axis)
    scale = alt.Scale(zero=False, nice=False)
    raw = alt.Y("loss:Q", title=translate("loss", language), scale=scale, axis=alt.Axis(format=".3~g", minExtent=32))
    smoothed = alt.Y("smoothed:Q", title=translate("loss", language), scale=scale)
    tip = [
        alt.Tooltip("lr:Q", title=translate("learning rate", language), format=".3~g"),
        alt.Tooltip("smoothed:Q", title=translate("smoothed loss", language), format=".4f"),
    ]
    trials = alt.Chart(alt.Data(name="trials", values=[]))
    diverging = alt.Chart(alt.Data(name="diverging", values=[]))
    suggested = alt.Chart(alt.Data(name="suggested", values=[]))
    planned = alt.Chart(alt.Data(name="planned", values=[]))
    layers = [
        # Invisible points that set the range of the axes; a domain in the spec would redraw the chart when it changes.
        alt.Chart(alt.Data(name="frame", values=[])).mark_point(opacity=0).encode(x, raw),
        diverging.mark_rect(color=_BAD, opacity=0.12).encode(x, x2="end:Q"),
        diverging.mark_text(color=_BAD, align="right", dx=-3, fontSize=11).encode(
            alt.X("end:Q"), text="text:N", y=alt.value(24)
        ),
        trials.mark_point(filled=True, size=14, opacity=0.35, color=TRAIN).encode(x, raw),
        trials.mark_line(strokeWidth=2.5, color=TRAIN).encode(x, smoothed, tooltip=tip),
        suggested.mark_rule(color=TEST, strokeWidth=2).encode(x),
        suggested.mark_text(color=TEST, align="right", dx=-5, fontSize=12, fontWeight="bold").encode(
            x, text="text:N", y=alt.value(10)
        ),
        planned.mark_rule(color=PLAN, strokeWidth=7, opacity=0.7).encode(x, x2="end:Q", y=alt.value(LARGE - 44)),
        planned.mark_text(color=PLAN, align="left", baseline="bottom", dy=-6, fontSize=11).encode(
            x, text="text:N", y=alt.value(LARGE - 44)
        ),
    ]
    return sized(layers, LARGE)


def _visible(loss: float, bottom: float, top: float) -> float | None:
    return round(loss, 4) if bottom <= loss <= top else None
