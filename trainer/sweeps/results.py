"""What a sweep shows: for each optimizer the best settings, over seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.runs.run import Run
from trainer.sweeps.axes import Axis, Cell


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
        key = tuple((name, value) for name, value in cell.values.items() if name != "seed")
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
