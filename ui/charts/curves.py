"""The data rows of the charts of runs: one for each epoch, batch or printed value to draw."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from trainer.runs.comparison import Contender, Spread, short_labels
from trainer.runs.run import Run
from trainer.settings.lessons import NUM_BATCHES, Lesson
from ui.i18n.words import translate

_MOST_LETTERS = 14  # of a name at the end of a curve
_LEAST_SPAN = 0.4  # of the loss on an axis, in which a fall by 0.02 looks small
_PIXELS_OF_A_NAME = 18.0  # from one name at the end of a curve to the next


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
                **_log_band(spread),
                "sum": spread.mean * batches if measure == "train_loss" and batches else None,
                "series": name,
                "curve": measure,
                "run": f"{index} {measure}",
                "label": f"{title} · {one.label}" if one.label else title,
                "best": epoch == best,
            }


def _log_band(spread: Spread) -> dict[str, float]:
    """The band on a logarithmic axis: one standard deviation of the logarithm on both sides, always above 0.

    It is that of a log-normal distribution with this mean and standard deviation: its variance is ln(1 + (std/mean)²).
    """
    if spread.mean <= 0:
        return {}
    factor = math.exp(math.sqrt(math.log1p((spread.std / spread.mean) ** 2)))
    return {"log_low": spread.mean / factor, "log_high": spread.mean * factor}


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
                        "unsmoothed": float(f"{min(point.loss, cap):.5g}") if measure == "train_loss" else None,
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


def printed_rows(lesson: Lesson | None, batches: float, language: str) -> list[dict[str, Any]]:
    """The losses that a lesson's notebook printed: the means of a batch, and the sums if an epoch has `batches`."""
    if lesson is None:
        return []
    by_batch = lesson.printed_unit == "batch"
    rows: list[dict[str, Any]] = []
    part = 0  # of the line, which is broken where the notebook printed nothing
    for before, at, printed in zip((0, *lesson.printed_at), lesson.printed_at, lesson.printed, strict=False):
        part += at > before + 1
        mean = printed if by_batch else printed / NUM_BATCHES
        rows.append(
            {
                "epoch": at / NUM_BATCHES if by_batch else at,
                "value": mean,
                "drawn": mean,
                "sum": mean * batches,
                "part": part,
                "label": translate("the notebook's values", language),
            }
        )
    return rows


def end_rows(contenders: Sequence[Contender], cap: float, height: int, language: str) -> list[dict[str, Any]]:
    """The names at the ends of the loss curves: of the contenders or, of a single one, "train" and "test".

    They are moved apart in a chart of a height in pixels, so that none covers another.
    """
    if len(contenders) > 1:
        labels = _without_shared_setting(short_labels(contenders))
        named = [(one, "train_loss", str(index), labels[index]) for index, one in enumerate(contenders)]
    else:
        named = [
            (one, measure, measure, translate(measure.removesuffix("_loss"), language))
            for one in contenders
            for measure in ("train_loss", "test_loss")
        ]
    ends = []
    for one, measure, series, name in named:
        spread = one.at(one.epoch, measure) if one.epoch else None
        if spread is not None and math.isfinite(spread.mean):
            ends.append((min(spread.mean, cap), one, series, name))
    losses = [
        min(spread.mean, cap)
        for one in contenders
        for epoch in range(one.epoch + 1)
        for measure in ("train_loss", "test_loss")
        if (spread := one.at(epoch, measure)) is not None and math.isfinite(spread.mean)
    ]
    gap = _PIXELS_OF_A_NAME / height * max(_LEAST_SPAN, max(losses) - min(losses)) if losses else 0.0
    rows: list[dict[str, Any]] = []
    place = -math.inf
    for loss, one, series, name in sorted(ends, key=lambda end: end[0]):
        place, batches = max(loss, place + gap), batches_per_epoch(one.runs[0])
        total = place * batches if batches and series != "test_loss" else None  # of which there is no curve of sums
        rows.append({"epoch": one.epoch, "value": loss, "drawn": place, "sum": total, "series": series, "label": name})
    return rows


def _without_shared_setting(labels: Sequence[str]) -> Sequence[str]:
    """Long labels without the name of the setting with which all of them begin, as there is little room for names."""
    settings, _, values = zip(*(label.partition(" ") for label in labels), strict=True)
    is_shared = len(set(settings)) == 1 and all(values)
    return values if is_shared and max(map(len, labels)) > _MOST_LETTERS else labels


def cut_rows(contenders: Sequence[Contender], cap: float, language: str) -> list[dict[str, Any]]:
    """Where each run's loss first leaves a chart that is cut off at `cap`, and how far up it went."""
    rows = []
    for index, one in enumerate(contenders):
        for run in one.runs:
            above = [point for point in run.curve.points if cap < point.smoothed < math.inf]
            if above:
                batches = batches_per_epoch(run)
                highest = f"{max(point.smoothed for point in above):.3g}"
                text = translate("▲ cut off: up to {highest}", language, highest=highest)
                total = cap * batches if batches else None
                row = {"epoch": above[0].epochs, "value": cap, "drawn": cap, "sum": total, "text": text}
                rows.append({**row, "series": _name(index, "train_loss", contenders)})
    return rows


def frame_rows(
    contenders: Sequence[Contender], printed: Sequence[float], guess: float, batches: float | None
) -> list[dict[str, Any]]:
    """The ends of the least span of a loss axis, in which a plateau looks like one; [] before there are losses.

    `printed` are the notebook's losses, `batches` the number of those in an epoch, if it is known.
    """
    trained = [
        value
        for one in contenders
        for run in one.runs
        for value in (*(point.smoothed for point in run.curve.points), *(row.test_loss for row in run.history))
        if math.isfinite(value)
    ]
    losses = [*trained, *printed]
    if not losses:
        return []
    low, high = min(*losses, guess), max(*losses, guess)
    room = max(0.0, _LEAST_SPAN - (high - low)) / 2
    ends = (low - room, high + room) if room else ()
    return [{"value": end, "drawn": end, "sum": end * batches if batches else None} for end in ends]


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
