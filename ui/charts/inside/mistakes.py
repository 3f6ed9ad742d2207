"""The charts of a network's mistakes: the confusion matrix and the reliability diagram."""

import functools
from typing import Any

import altair as alt

from trainer.insight.mistakes import Answers
from trainer.palette import PLAN, TEST, TRAIN
from ui.charts.live import sized
from ui.charts.svg import part, to_svg
from ui.i18n.words import translate

HEIGHT, RELIABILITY_HEIGHT = 460, 280

_SVG_WIDTH = 560
_MOST_WITH_NUMBERS = 20  # classes; with more, a field has no room for its number


def matrix_chart(answers: Answers | None, language: str) -> dict[str, Any]:
    """The confusion matrix: the number of pictures, or the share of their class. A press names "class class"."""
    names = answers.class_names if answers else ()
    rows = []
    for true, counts in enumerate(answers.confusion.tolist() if answers else []):
        total = max(1, sum(counts))
        for taken, count in enumerate(counts):
            share = count / total
            place = {"true": names[true], "taken": names[taken], "press": f"{true} {taken}"}
            texts = {"count_text": str(count) if count else "", "share_text": f"{share:.0%}" if count else ""}
            rows.append({**place, "count": count, "share": share, **texts})
    specs = {
        translate("pictures", language): _matrix_spec(names, "count", language),
        translate("percent of a row", language): _matrix_spec(names, "share", language),
    }
    return {"specs": specs, "view": next(iter(specs)), "data": {"fields": rows}}


def draw(answers: Answers, language: str) -> str:
    """Returns the confusion matrix with the numbers of pictures, above the reliability diagram, as SVG."""
    matrix, reliability = matrix_chart(answers, language), reliability_chart(answers, language)
    parts = [
        part(chart["specs"][chart["view"]], width) for chart, width in ((matrix, _SVG_WIDTH), (reliability, HEIGHT))
    ]
    return to_svg(parts, matrix["data"] | reliability["data"])


def reliability_chart(answers: Answers | None, language: str) -> dict[str, Any]:
    """The accuracy of the answers with a confidence in each bin; on the dashed line, they would be equal."""
    bins = answers.bins if answers else []
    rows = [
        {
            "low": each.low,
            "high": each.high,
            "accuracy": each.accuracy,
            "confidence": each.confidence,
            "count": each.num_pictures,
        }
        for each in bins
    ]
    return {"specs": {"": _reliability_spec(language)}, "view": "", "data": {"bins": rows}}


@functools.lru_cache(maxsize=32)
def _matrix_spec(names: tuple[str, ...], field: str, language: str) -> dict[str, Any]:
    domain = alt.Scale(domain=list(names))
    across = alt.Axis(labelAngle=-45, labelOverlap=True, labelLimit=90, orient="top", ticks=False, domain=False)
    down = alt.Axis(labelOverlap=True, labelLimit=90, ticks=False, domain=False)
    x = alt.X("taken:N", title=translate("taken for", language), scale=domain, axis=across)
    y = alt.Y("true:N", title=translate("really", language), scale=domain, axis=down)
    tip = [
        alt.Tooltip("true:N", title=translate("really", language)),
        alt.Tooltip("taken:N", title=translate("taken for", language)),
        alt.Tooltip("count:Q", title=translate("pictures", language)),
        alt.Tooltip("share:Q", title=translate("percent of a row", language), format=".1%"),
    ]
    rows = alt.Chart(alt.Data(name="fields", values=[]))
    # Right answers and mistakes have different colors, so that few mistakes are seen among many right answers.
    color = alt.condition("datum.true === datum.taken", alt.value(TRAIN), alt.value(TEST))
    opacity = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.06, 1], type="sqrt"), legend=None)
    fields = rows.mark_rect(cursor="pointer").encode(x, y, opacity=opacity, color=color, tooltip=tip)
    ink = alt.condition("datum.share > 0.3", alt.value("white"), alt.value(PLAN))
    texts = rows.mark_text(fontSize=11, cursor="pointer").encode(x, y, text=f"{field}_text:N", color=ink, tooltip=tip)
    has_numbers = len(names) <= _MOST_WITH_NUMBERS
    return sized([fields, texts] if has_numbers else [fields], HEIGHT)


@functools.lru_cache(maxsize=8)
def _reliability_spec(language: str) -> dict[str, Any]:
    axis = alt.Axis(format=".0%", tickCount=5)
    whole = alt.Scale(domain=[0, 1], nice=False)
    x = alt.X("low:Q", title=translate("confidence", language), scale=whole, axis=axis)
    y = alt.Y("accuracy:Q", title=translate("accuracy", language), scale=whole, axis=axis)
    tip = [
        alt.Tooltip("confidence:Q", title=translate("mean confidence", language), format=".1%"),
        alt.Tooltip("accuracy:Q", title=translate("accuracy", language), format=".1%"),
        alt.Tooltip("count:Q", title=translate("pictures", language)),
    ]
    diagonal = alt.Chart(alt.Data(values=[{"low": share, "accuracy": share} for share in (0, 1)]))
    bars = alt.Chart(alt.Data(name="bins", values=[]))
    layers = [
        bars.mark_bar(color=TRAIN, opacity=0.75).encode(x, y, x2="high:Q", y2=alt.Y2Datum(0), tooltip=tip),
        diagonal.mark_line(strokeDash=[5, 4], strokeWidth=1.5, color=PLAN).encode(x, y),
    ]
    return sized(layers, RELIABILITY_HEIGHT)
