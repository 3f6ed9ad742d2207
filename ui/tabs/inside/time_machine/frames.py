"""The value of the time machine's slider, which machine.js shows: what the page displays at each epoch."""

import base64
from collections.abc import Sequence
from typing import Any

import torch

from trainer.insight.timeline import Moment
from trainer.runs.layers import until
from trainer.runs.run import Run
from ui.charts.inside.layers import STATISTICS
from ui.charts.inside.time_machine import class_colors, shares
from ui.i18n.words import translate


def machine_value(run: Run, moments: Sequence[Moment], name: str, language: str, *, more: bool) -> dict[str, Any]:
    """The value of the machine; it contains names of classes and layers as text, never as HTML."""
    colors, (first, *_), latest = class_colors(moments), moments, moments[-1]
    count, _, side, _ = latest.filters.shape
    what = translate(
        "Each square is one of the {count} filters of the first layer, {side} pixels wide: the small pattern that it "
        "looks for everywhere in a picture. Grey means a weight of 0. Untrained filters are noise; training turns "
        "those that help to distinguish the classes into edges and spots of colour.",
        language,
        count=count,
        side=side,
    )
    return {
        "run": name,
        "more": more,
        "seen": _as_text(latest.prediction.seen.permute(1, 2, 0)),
        "seen_side": latest.prediction.seen.shape[-1],
        "frames": [
            {
                "epoch": moment.epoch,
                "name": translate("Epoch {epoch}", language, epoch=moment.epoch),
                "says": _sentence(run, moment, language),
                "shares": shares(moment, colors),
                "filters": _as_text(as_pictures(moment.filters)),
                "filter_side": moment.filters.shape[-1],
                "num_filters": len(moment.filters),
                "changed": _changed(first, moment, language),
                "layers": _layers(run, moment.epoch),
            }
            for moment in moments
        ],
        "words": {
            "play": translate("Play", language),
            "pause": translate("Pause", language),
            "slider": translate("epoch", language),
            "filters": what,
            "layers": translate("The layers, as last measured by the end of this epoch", language),
            "unmeasured": translate("Nothing was measured in the layers by the end of this epoch.", language),
            "columns": [translate(word, language) for word in ("layer", *(one.button for one in STATISTICS.values()))],
        },
    }


def _sentence(run: Run, moment: Moment, language: str) -> str:
    says = {"label": moment.prediction.label, "share": f"{moment.prediction.confidences[moment.prediction.label]:.1%}"}
    if moment.epoch >= len(run.history):
        return translate("It says {label}, {share}.", language, **says)
    return translate(
        "It says {label}, {share}. Its test accuracy is {accuracy}.",
        language,
        accuracy=f"{run.history[moment.epoch].test_accuracy:.1%}",
        **says,
    )


def _changed(first: Moment, moment: Moment, language: str) -> str:
    """How much the filters changed since the first epoch: the norm of the change relative to their norm then."""
    if moment.epoch == 0:
        return translate("The filters of the first layer, randomly initialized", language)
    if moment is first or moment.filters.shape != first.filters.shape:
        return translate("The filters of the first layer", language)
    change = float((moment.filters - first.filters).norm() / first.filters.norm().clamp(min=1e-12))
    return translate(
        "The filters of the first layer, changed since epoch {epoch} by {change} of their size",
        language,
        epoch=first.epoch,
        change=f"{change:.0%}",
    )


def _layers(run: Run, epoch: int) -> list[list[str]]:
    """A row for each layer: its name, and its statistics as text, in the order of STATISTICS."""
    measured = until(run.layers, epoch)
    if not measured:
        return []
    last = measured[-1]
    columns = [
        ["–" if value is None else f"{value:.1%}" if one.scale == "linear" else f"{value:.2g}" for value in figures]
        for one, figures in ((one, getattr(last, name)) for name, one in STATISTICS.items())
    ]
    return [list(row) for row in zip(last.layers, *columns, strict=True)]


def as_pictures(filters: torch.Tensor) -> torch.Tensor:
    """Filters as pictures, uint8 [filters, h, w, 3]: grey is 0, and weights are clipped at the 99th percentile.

    All filters of an epoch have the same scale, so that filters with small weights look grey.
    """
    large = filters.abs().flatten().quantile(0.99).clamp(min=1e-12)
    return (filters / large * 127.5 + 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)


def _as_text(pixels: torch.Tensor) -> str:
    return base64.b64encode(pixels.contiguous().numpy().tobytes()).decode()
