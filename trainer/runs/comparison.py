"""The comparison of runs: how their settings differ, which did best, and a table. Standard library only."""

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from trainer.runs.events import EpochEnded
from trainer.runs.run import Run, is_training
from trainer.settings.config import SETTINGS, TrainConfig
from trainer.settings.fields import label_of
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.schedulers import SCHEDULERS


class Spread(NamedTuple):
    """The mean of a figure over several seeds, and its sample standard deviation, which is 0 for one seed."""

    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Contender:
    """The runs with the same settings except for the seed.

    `differs` holds those of their settings in which the compared contenders differ. `repo_id` is the repo that the runs
    were loaded from, "" for local runs; the figures of a repo are its owner's claims.
    """

    differs: dict[str, Any]
    runs: tuple[Run, ...]
    repo_id: str = ""

    @property
    def label(self) -> str:
        """The repo and the settings that differ, in a few words; "" for a local contender that differs in none."""
        return " · ".join(filter(None, (self.repo_id, label(self.differs))))

    @property
    def diverged(self) -> bool:
        """Whether any of its runs diverged."""
        return any(run.status == "diverged" for run in self.runs)

    def at(self, epoch: int, measure: str) -> Spread | None:
        """Returns the field `measure` of EpochEnded over the seeds; None unless each has a finite one at that epoch."""
        rows = [run.history[epoch] for run in self.runs if epoch < len(run.history)]
        values = [value for row in rows if (value := getattr(row, measure)) is not None and math.isfinite(value)]
        if len(values) < len(self.runs):
            return None
        return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)

    @property
    def epoch(self) -> int:
        """The last epoch that all its runs have ended."""
        return min(run.epoch for run in self.runs)

    @property
    def best_epoch(self) -> int:
        """The epoch with the highest mean test accuracy; of equal ones, the earliest."""
        return max(range(self.epoch + 1), key=lambda epoch: (self.at(epoch, "test_accuracy") or (-1.0,))[0])

    @property
    def accuracy(self) -> Spread | None:
        """The test accuracy, 0–1, after the last epoch that all its runs have ended."""
        return self.at(self.epoch, "test_accuracy")


class Verdict(NamedTuple):
    """The winner, its lead over the second in test accuracy (0–1), and whether the lead exceeds chance: `clear`.

    `margin` is None if all others diverged; such a winner is clear.
    """

    winner: Contender
    margin: float | None
    clear: bool

    @property
    def is_tie(self) -> bool:
        """Whether the lead is below 0.05 percentage points."""
        return self.margin is not None and self.margin < 0.0005


_CLEAR_FOR_ONE_SEED = 0.01  # about two standard errors of an accuracy on ten thousand pictures


def compare(runs: Sequence[Run], repo_ids: Sequence[str] = ()) -> list[Contender]:
    """Returns the runs as contenders, in their order; runs that differ only in their seed are one contender.

    `repo_ids` holds the repo of each run, "" for a local one; if it is empty, all runs are local. Runs of different
    repos are different contenders.
    """
    groups: dict[tuple[TrainConfig, str], list[Run]] = {}
    for run, repo_id in zip(runs, repo_ids or [""] * len(runs), strict=True):
        groups.setdefault((replace(run.config, seed=0), repo_id), []).append(run)
    all_differences = differences([config for config, _ in groups])
    return [
        Contender(differs=differs, runs=tuple(same), repo_id=repo_id)
        for differs, ((_, repo_id), same) in zip(all_differences, groups.items(), strict=True)
    ]


def differences(configs: Sequence[TrainConfig]) -> list[dict[str, Any]]:
    """Returns, for each config, its values of the settings in which the configs differ, in the order of TrainConfig.

    A setting that some of the configs do not have counts only if another has a value that is not its row's default.
    """
    settings = [config.settings() for config in configs]
    defaults = [
        {**OPTIMIZERS[config.optimizer].defaults, **SCHEDULERS[config.scheduler].defaults} for config in configs
    ]

    def differs(name: str) -> bool:
        pairs = [(own[name], default.get(name)) for own, default in zip(settings, defaults, strict=True) if name in own]
        if any(value != pairs[0][0] for value, _ in pairs):
            return True
        return len(pairs) < len(settings) and any(value != default for value, default in pairs)

    names = [name for name in SETTINGS if differs(name)]
    return [{name: own[name] for name in names if name in own} for own in settings]


def label(differs: dict[str, Any]) -> str:
    """Returns settings in a few words: "adam · lr 0.1 · no softmax"."""
    return " · ".join(_named(name, value) for name, value in differs.items())


def short_labels(contenders: Sequence[Contender]) -> list[str]:
    """Returns the first setting of each label, if that is enough to tell the contenders apart, or else the labels."""
    labels = [one.label for one in contenders]
    first = [text.partition(" · ")[0] for text in labels]
    return first if len(set(first)) == len(first) else labels


def verdict(contenders: Sequence[Contender]) -> Verdict | None:
    """Returns the contender with the highest test accuracy, of those that trained an epoch and did not diverge.

    Returns None if there are fewer than two contenders, if one is still training, if none is left, or if only one is
    and some of the others ended before their first epoch without diverging. The lead is clear if it exceeds the sum of
    both standard deviations or, if that sum is 0 as with one seed, one percentage point.
    """
    if len(contenders) < 2 or is_training(run for one in contenders for run in one.runs):
        return None
    accuracies = [(one, one.accuracy) for one in contenders if not one.diverged and one.epoch > 0]
    ranked = sorted(
        ((one, accuracy) for one, accuracy in accuracies if accuracy is not None), key=lambda pair: -pair[1].mean
    )
    if not ranked:
        return None
    (winner, best), *others = ranked
    if not others:
        return Verdict(winner, None, True) if all(one.diverged for one in contenders if one is not winner) else None
    _, second = others[0]
    margin = best.mean - second.mean
    return Verdict(winner, margin, margin > (best.std + second.std or _CLEAR_FOR_ONE_SEED))


def to_csv(runs: Sequence[Run], repo_ids: Sequence[str] = ()) -> str:
    """Returns CSV with a row for each epoch of each run: the run's number, the settings that differ, and the figures.

    It has a column `repo_id` if any run comes from a repo; `repo_ids` is as for `compare`.
    """
    all_differences = differences([run.config for run in runs])
    names = [name for name in SETTINGS if any(name in own for own in all_differences)]
    measures = [name for name in EpochEnded.__dataclass_fields__ if name != "continued_with"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    published = any(repo_ids)
    table.writerow(["run", *(["repo_id"] if published else []), *names, *measures])
    for number, (run, own) in enumerate(zip(runs, all_differences, strict=True), 1):
        known = [number, *([repo_ids[number - 1]] if published else []), *(own.get(name, "") for name in names)]
        for row in run.history:
            figures = asdict(row)
            table.writerow([*known, *(figures[name] for name in measures)])
    return text.getvalue()


def _named(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if name in ("model", "optimizer", "scheduler"):
        return value
    return f"{name} {label_of(value)}"
