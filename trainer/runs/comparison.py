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

    `label` tells the contender from the others, in a few words; it is "" for one that is alone. `differs` holds those
    of its settings in which the compared contenders differ. `repo_id` is the repo that the runs were loaded from, ""
    for local runs; the figures of a repo are its owner's claims.
    """

    label: str
    differs: dict[str, Any]
    runs: tuple[Run, ...]
    repo_id: str = ""

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


_HEADLINES = ("optimizer", "lr", "scheduler")  # the settings that name the only contender without a title
_CLEAR_FOR_ONE_SEED = 0.01  # about two standard errors of an accuracy on ten thousand pictures


def compare(runs: Sequence[Run], repo_ids: Sequence[str] = (), titles: Sequence[str] | None = None) -> list[Contender]:
    """Returns the runs as contenders, in their order; runs that differ only in their seed are one contender.

    `repo_ids` holds the repo of each run, "" for a local one; if it is empty, all runs are local. `titles` says what
    each run is called, "" for one without a title; by default these are the names of the runs. Runs of different repos
    or titles are different contenders, and the settings in their labels tell them from those with the same title.
    """
    titles = [run.name for run in runs] if titles is None else titles
    if len(set(titles)) == 1:  # what all are called tells none from another
        titles = [""] * len(runs)
    groups: dict[tuple[TrainConfig, str, str], list[Run]] = {}
    for run, repo_id, title in zip(runs, repo_ids or [""] * len(runs), titles, strict=True):
        groups.setdefault((replace(run.config, seed=0), repo_id, title), []).append(run)
    all_differences = differences([config for config, *_ in groups])
    labels = _labels(list(groups), all_differences)
    return [
        Contender(label=name, differs=differs, runs=tuple(same), repo_id=repo_id)
        for name, differs, ((_, repo_id, _), same) in zip(labels, all_differences, groups.items(), strict=True)
    ]


def _labels(groups: Sequence[tuple[TrainConfig, str, str]], all_differences: Sequence[dict[str, Any]]) -> list[str]:
    """Returns a label for each config, repo and title, of which all the differences are given."""
    labels: list[str] = []
    for (config, repo_id, title), differs in zip(groups, all_differences, strict=True):
        alike = [index for index, (_, *names) in enumerate(groups) if names == [repo_id, title]]
        if len(alike) > 1:
            own = fewest_differences([groups[index][0] for index in alike])
            differs = own[alike.index(len(labels))]
        elif repo_id or title:
            differs = {}
        elif len(groups) > 1:
            differs = {name: getattr(config, name) for name in _HEADLINES}
        labels.append(" · ".join(filter(None, (repo_id, title, label(differs)))))
    return labels


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


def fewest_differences(configs: Sequence[TrainConfig]) -> list[dict[str, Any]]:
    """Returns those of the `differences` that are needed to tell the configs apart, and lr.

    If the optimizers or the schedulers differ, the settings that have the default of their row are left out.
    """
    found = differences(configs)
    needed = []
    for config, own in zip(configs, found, strict=True):
        defaults: dict[str, Any] = {}
        if any("optimizer" in other for other in found):
            defaults |= OPTIMIZERS[config.optimizer].defaults
        if any("scheduler" in other for other in found):
            defaults |= SCHEDULERS[config.scheduler].defaults
        needed.append({name: value for name, value in own.items() if name == "lr" or value != defaults.get(name, ...)})
    return needed


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


def to_csv(runs: Sequence[Run], repo_ids: Sequence[str] = (), titles: Sequence[str] | None = None) -> str:
    """Returns CSV with a row for each epoch of each run: its number, title, settings that differ, and figures.

    It has a column `name` if any run has a title, and `repo_id` if any comes from a repo; the arguments are those of
    `compare`. The learning rate at the end of an epoch is `epoch_lr`, since `lr` is a setting.
    """
    titles = [run.name for run in runs] if titles is None else titles
    all_differences = differences([run.config for run in runs])
    names = [name for name in SETTINGS if any(name in own for own in all_differences)]
    measures = [name for name in EpochEnded.__dataclass_fields__ if name not in ("continued_with", "class_accuracy")]
    known = {"name": [_as_cell(title) for title in titles], "repo_id": list(repo_ids)}
    known = {column: texts for column, texts in known.items() if any(texts)}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["run", *known, *names, *("epoch_lr" if name == "lr" else name for name in measures)])
    for index, (run, own) in enumerate(zip(runs, all_differences, strict=True)):
        cells = [index + 1, *(texts[index] for texts in known.values()), *(own.get(name, "") for name in names)]
        for row in run.history:
            figures = asdict(row)
            table.writerow([*cells, *(figures[name] for name in measures)])
    return text.getvalue()


def _as_cell(text: str) -> str:
    """Returns the text so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _named(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if name in ("model", "optimizer", "scheduler"):
        return value
    return f"{name} {label_of(value)}"
