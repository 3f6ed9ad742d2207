"""The data rows of the charts of runs: one for each epoch, batch or printed value to draw."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from trainer.runs.comparison import Contender
from trainer.runs.run import Run
from trainer.settings.lessons import NUM_BATCHES, Lesson
from ui.i18n.words import translate


class Measure(NamedTuple):
    """A quantity of a run: the title of its axis, the format of its values, and the field that holds it per batch."""

    title: str
    format: str
    batch_field: str | None  # of trainer.runs.run.Point; None if the quantity is measured per epoch only


MEASURES = {
    "train_loss": Measure("train loss", ".4f", "smoothed"),
    "test_loss": Measure("test loss", ".4f", None),
    "test_accuracy": Measure("test accuracy", ".2%", None),
    "lr": Measure("learning rate", ".3~g", "lr"),
    "grad_norm": Measure("gradient norm", ".3~g", "grad_norm"),
}


def epoch_rows(measure: str, contenders: Sequence[Contender], cap: float, language: str) -> Iterator[dict[str, Any]]:
    """Yields a measure at each epoch of each contender: the mean over its seeds, ± one standard deviation."""
    if measure == "lr" and any(run.curve.points for one in contenders for run in one.runs):
        return  # step_rows has the learning rate of every batch
    title = translate(MEASURES[measure].title, language)
    for index, one in enumerate(contenders):
        name = _name(index, measure, contenders)
        batches = batches_per_epoch(one.runs[0])
        best = one.best_epoch if measure == "test_accuracy" and one.epoch else None
        for epoch in range(one.epoch + 1):
            spread = one.at(epoch, measure)
            if spread is None or not math.isfinite(spread.mean):
                continue
            yield {
                "epoch": epoch,
                "value": spread.mean,
                "drawn": min(spread.mean, cap),
                "low": spread.mean - spread.std,
                "high": spread.mean + spread.std,
                "sum": spread.mean * batches if measure == "train_loss" and batches else None,
                "series": name,
                "curve": measure,
                "run": f"{index} {measure}",
                "label": f"{title} · {one.label}" if one.label else title,
                "best": epoch == best,
            }


def step_rows(measure: str, contenders: Sequence[Contender], cap: float, most: int) -> Iterator[dict[str, Any]]:
    """Yields a measure at batches of each run: about `most` rows for all runs together, at least 60 for each."""
    field = MEASURES[measure].batch_field
    if field is None:
        return
    budget = max(60, most // max(1, sum(len(one.runs) for one in contenders)))
    for index, one in enumerate(contenders):
        name = _name(index, measure, contenders)
        for number, run in enumerate(one.runs):
            batches = batches_per_epoch(run)
            points = run.curve.points
            thinned = points[:: math.ceil(len(points) / budget) or 1]
            if thinned and thinned[-1] is not points[-1]:
                thinned = [*thinned, points[-1]]
            for point in thinned:
                value = getattr(point, field)
                if math.isfinite(value):
                    drawn = min(value, cap)
                    yield {
                        "epoch": round(point.epochs, 4),
                        "value": float(f"{value:.5g}"),
                        "drawn": float(f"{drawn:.5g}"),
                        "sum": float(f"{drawn * batches:.7g}") if batches and measure == "train_loss" else None,
                        "series": name,
                        "run": f"{index} {number}",
                    }


def diverged_rows(contenders: Sequence[Contender], series: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The epochs at which runs diverged; `series` are the chart's (name, color) pairs."""
    return [
        {"epoch": run.diverged_at, "series": series[index][0] if len(contenders) > 1 else series[0][0]}
        for index, one in enumerate(contenders)
        for run in one.runs
        if run.diverged_at is not None
    ]


def printed_rows(lesson: Lesson | None, language: str) -> list[dict[str, Any]]:
    """The losses that a lesson's notebook printed, as means per batch and as sums per epoch."""
    if lesson is None:
        return []
    by_batch = lesson.printed_unit == "batch"
    rows = []
    for at, printed in zip(lesson.printed_at, lesson.printed, strict=True):
        mean = printed if by_batch else printed / NUM_BATCHES
        rows.append(
            {
                "epoch": at / NUM_BATCHES if by_batch else at,
                "value": mean,
                "drawn": mean,
                "sum": mean * NUM_BATCHES,
                "label": translate("the notebook's values", language),
            }
        )
    return rows


def _name(index: int, measure: str, contenders: Sequence[Contender]) -> str:
    return str(index) if len(contenders) > 1 else measure


def clip_level(measures: tuple[str, ...], contenders: Sequence[Contender]) -> float:
    """The value at which a linear axis clips losses and gradient norms: inf if there is nothing to clip.

    Without it, an exploding loss within an epoch would flatten all other curves.
    """
    if measures[0] not in ("train_loss", "test_loss", "grad_norm"):
        return math.inf
    ends = [
        spread.mean
        for one in contenders
        for epoch in range(one.epoch + 1)
        for measure in measures
        if (spread := one.at(epoch, measure)) is not None and math.isfinite(spread.mean)
    ]
    field = MEASURES[measures[0]].batch_field
    begins = [
        getattr(run.curve.points[0], field) for one in contenders for run in one.runs if run.curve.points and field
    ]
    return 1.5 * max(filter(math.isfinite, [*ends, *begins]), default=math.inf)


def batches_per_epoch(run: Run) -> float | None:
    """The number of batches in an epoch of a run; None before the run has reported any."""
    for row in reversed(run.history):
        if row.train_loss and row.train_loss_sum:
            return round(row.train_loss_sum / row.train_loss)
    return run.last_step.num_steps / run.config.epochs if run.last_step else None
