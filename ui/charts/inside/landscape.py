"""The chart of a loss landscape on the page."""

from functools import partial
from typing import Any

from trainer.insight import contours
from trainer.insight.landscape import LossMap
from ui.i18n.words import translate

HEIGHT = 440

_EMPTY = LossMap(
    names=(), xs=(0.0, 1.0), ys=(0.0, 1.0), paths=(), share=None, num_weights=0, num_classes=2, num_images=0
)


def landscape_chart(found: LossMap | None, language: str) -> dict[str, Any]:
    """Contours of the loss, and the paths of the runs with their epochs; empty without a map."""
    words = partial(translate, language=language)
    spec = {**contours.spec(found or _EMPTY, words), "height": HEIGHT}
    return {"specs": {"": spec}, "view": "", "data": contours.rows(found, words) if found else {}}


def draw(found: LossMap, language: str) -> str:
    """Returns the chart as SVG."""
    return contours.draw(found, partial(translate, language=language))
