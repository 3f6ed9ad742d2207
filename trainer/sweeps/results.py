"""What a sweep shows: for each optimizer the best settings, over seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from trainer.errors import UserError
from trainer.runs.run import Run
from trainer.settings.fields import text_of
from trainer.sweeps import folder
from trainer.sweeps.axes import Axis, Cell
from trainer.sweeps.folder import Sweep

# Times the untrained network's loss. A chart that showed a loss that explodes would flatten all others.
_MOST_DRAWN = 1.3


class Measure(NamedTuple):
    """What settings are chosen by: the names of a row's fields, and what they are called."""

    loss: str
    accuracy: str
    loss_name: str
    accuracy_name: str


_KEPT_ASIDE = Measure(
    "holdout_loss", "holdout_accuracy", "loss on the pictures kept aside", "accuracy on the pictures kept aside"
)
_TEST = Measure("test_loss", "test_accuracy", "test loss", "test accuracy")


def measure_of(runs: Mapping[Cell, Run]) -> Measure:
    """Returns what the runs' settings are chosen by: the images kept aside or, without any, the test images."""
    has_holdout = any(run.history and run.history[0].holdout_loss is not None for run in runs.values())
    return _KEPT_ASIDE if has_holdout else _TEST


def most_drawn(runs: Mapping[Cell, Run]) -> float:
    """Returns the largest loss that a chart of the runs should show; larger ones are drawn there."""
    name = measure_of(runs).loss
    return _MOST_DRAWN * max((getattr(run.history[0], name) for run in runs.values() if run.history), default=math.inf)


@dataclass(frozen=True, kw_only=True)
class Group:
    """The runs of a sweep that differ in their seed only.

    `score` is the mean over the seeds of the loss by which settings are chosen: that on the images kept aside or,
    without any, on the test images. It is infinite if a run diverged.
    """

    values: Mapping[str, Any]  # of the axes without the seed
    runs: tuple[Run, ...]

    @property
    def losses(self) -> list[float]:
        """The loss of each run that has not diverged."""
        ended = [run.history[-1] for run in self.runs if run.status != "diverged" and run.epoch]
        return [row.test_loss if row.holdout_loss is None else row.holdout_loss for row in ended]

    @property
    def num_diverged(self) -> int:
        """The number of runs that diverged."""
        return sum(run.status == "diverged" for run in self.runs)

    @property
    def score(self) -> float:
        """The mean loss, by which the best group is chosen."""
        return statistics.fmean(self.losses) if self.losses and not self.num_diverged else math.inf

    def spread(self, name: str) -> tuple[float, float] | None:
        """Returns the mean and the sample standard deviation of a figure of the last epochs; None without any."""
        rows = [run.history[-1] for run in self.runs if run.status != "diverged" and run.epoch]
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        if not values:
            return None
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def groups(runs: Mapping[Cell, Run]) -> list[Group]:
    """Returns the runs that have ended in groups that differ in their seed only, in the order of the cells."""
    found: dict[tuple[Any, ...], list[tuple[Cell, Run]]] = {}
    for cell, run in sorted(runs.items(), key=lambda pair: pair[0].number):
        key = tuple(cell.without_seed.items())
        found.setdefault(key, []).append((cell, run))
    return [Group(values=dict(key), runs=tuple(run for _, run in members)) for key, members in found.items()]


def best(runs: Mapping[Cell, Run], axes: Sequence[Axis]) -> list[Group]:
    """Returns the best group for each value of the first axis that is not numeric, or the best one of all.

    Groups that have not a single finite loss are left out.
    """
    main = main_axis(axes)
    by_value: dict[Any, Group] = {}
    for group in groups(runs):
        value = group.values[main.name] if main else None
        if math.isfinite(group.score) and (value not in by_value or group.score < by_value[value].score):
            by_value[value] = group
    return list(by_value.values())


def card_text(sweep: Sweep) -> str:
    """Returns what the model card of one of its runs says of a sweep, as Markdown."""
    try:
        table = best_table(folder.ended(folder.runs_of(sweep)), sweep.axes)
    except UserError:  # another run is damaged, or being deleted: no reason not to publish this one
        table = ""
    return f"```sh\n{folder.command(sweep)}\n```\n\n{table}".strip()


def best_table(runs: Mapping[Cell, Run], axes: Sequence[Axis]) -> str:
    """Returns the best groups as a Markdown table, the best of all first; "" if every run diverged."""
    chosen = sorted(best(runs, axes), key=lambda group: group.score)
    if not chosen:
        return ""
    measure = measure_of(runs)
    rows = [
        f"| {label(group.values, axes) or 'all'} | {mean_and_std(group, measure.loss, '.4f')} "
        f"| {mean_and_std(group, 'test_accuracy', '.2%')} | {len(group.runs)} |"
        for group in chosen
    ]
    return "\n".join(
        [f"| best settings | {measure.loss_name} | test accuracy | runs |", "| --- | ---: | ---: | ---: |", *rows]
    )


def mean_and_std(group: Group, name: str, form: str) -> str:
    """Returns the mean of a figure and, with several runs, its standard deviation; "" without the figure."""
    spread = group.spread(name)
    if spread is None:
        return ""
    mean, std = spread
    return f"{mean:{form}}" + (f" ± {std:{form}}" if len(group.runs) > 1 else "")


def label(values: Mapping[str, Any], axes: Sequence[Axis]) -> str:
    """Returns values of the axes in a few words, such as "adamw · lr 0.001"."""
    main = main_axis(axes)
    return " · ".join(
        text_of(value) if main and name == main.name else f"{name} {text_of(value)}" for name, value in values.items()
    )


def main_axis(axes: Sequence[Axis]) -> Axis | None:
    """Returns the first axis whose values are names, such as optimizers; None without one."""
    return next((each for each in axes if not each.is_numeric and each.name != "seed"), None)


def best_row(group: Group) -> dict[str, Any]:
    """Returns the group as a row of the public stream: its settings, and means and deviations over its seeds."""
    figures: dict[str, Any] = {}
    for name in ("holdout_loss", "holdout_accuracy", "test_loss", "test_accuracy"):
        spread = group.spread(name)
        figures[name], figures[f"{name}_std"] = spread or (None, None)
    return {**group.values, "runs": len(group.runs), **figures}
