"""Runs side by side: what differs in their settings, who did best, every number. Standard library only."""

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from trainer.runs.events import EpochEnded
from trainer.runs.run import Run, is_training
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.schedulers import SCHEDULERS


class Spread(NamedTuple):
    """The mean of one figure over several seeds, and its sample standard deviation: 0 for one seed."""

    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Contender:
    """The runs of one setting, one a seed; `differs` are the settings that set it apart from the others compared.

    `repo_id` is where they were published, if they come from there: their figures are its owner's claims.
    """

    differs: dict[str, Any]
    runs: tuple[Run, ...]
    repo_id: str = ""

    @property
    def label(self) -> str:
        """Where it comes from and what differs, in a few words; empty where it is one's own and nothing does."""
        return " · ".join(filter(None, (self.repo_id, label(self.differs))))

    @property
    def diverged(self) -> bool:
        """Whether any of its runs did."""
        return any(run.status == "diverged" for run in self.runs)

    def at(self, epoch: int, measure: str) -> Spread | None:
        """A figure of EpochEnded at an epoch's end, over the seeds; None until all of them have one that is finite."""
        rows = [run.history[epoch] for run in self.runs if epoch < len(run.history)]
        values = [value for row in rows if (value := getattr(row, measure)) is not None and math.isfinite(value)]
        if len(values) < len(self.runs):
            return None
        return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)

    @property
    def epoch(self) -> int:
        """Epochs that all its runs have ended."""
        return min(run.epoch for run in self.runs)

    @property
    def best_epoch(self) -> int:
        """The epoch with the highest mean test accuracy, the earliest of equals."""
        return max(range(self.epoch + 1), key=lambda epoch: (self.at(epoch, "test_accuracy") or (-1.0,))[0])

    @property
    def accuracy(self) -> Spread | None:
        """The test accuracy, 0–1, after the last epoch that all its runs have ended."""
        return self.at(self.epoch, "test_accuracy")


class Verdict(NamedTuple):
    """Who won, and by how much test accuracy (0–1) over the next; `clear` where that is more than the seeds differ."""

    winner: Contender
    margin: float
    clear: bool

    @property
    def level(self) -> bool:
        """Whether the next is as good, to a tenth of a percentage point."""
        return self.margin < 0.0005


_CLEAR_FOR_ONE_SEED = 0.01  # about twice the chance in counting right answers among ten thousand pictures


def compare(runs: Sequence[Run], repo_ids: Sequence[str] = ()) -> list[Contender]:
    """The runs as contenders, in their order; those that differ in nothing but their seed are one.

    `repo_ids` tells of each run where it was published, "" for one's own; none given: all are. Runs of two repos are
    never one contender.
    """
    groups: dict[tuple[TrainConfig, str], list[Run]] = {}
    for run, repo_id in zip(runs, repo_ids or [""] * len(runs), strict=True):
        groups.setdefault((replace(run.config, seed=0), repo_id), []).append(run)
    told = differences([config for config, _ in groups])
    return [
        Contender(differs=own, runs=tuple(same), repo_id=repo_id)
        for own, ((_, repo_id), same) in zip(told, groups.items(), strict=True)
    ]


def differences(configs: Sequence[TrainConfig]) -> list[dict[str, Any]]:
    """For each config, those of its settings that set it apart from the others, in the order of TrainConfig.

    A setting that some configs do not have is told only where it is not its row's default.
    """
    settings = [config.settings() for config in configs]
    defaults = [
        {**OPTIMIZERS[config.optimizer].defaults, **SCHEDULERS[config.scheduler].defaults} for config in configs
    ]

    def differs(name: str) -> bool:
        own = [(some[name], usual.get(name)) for some, usual in zip(settings, defaults, strict=True) if name in some]
        if any(value != own[0][0] for value, _ in own):
            return True
        return len(own) < len(settings) and any(value != usual for value, usual in own)

    names = [name for name in TrainConfig.__dataclass_fields__ if any(name in some for some in settings)]
    apart = [name for name in names if differs(name)]
    return [{name: some[name] for name in apart if name in some} for some in settings]


def label(differs: dict[str, Any]) -> str:
    """Settings in a few words: an optimizer, scheduler or network by its name alone, a switch by whether it is on."""
    return " · ".join(_named(name, value) for name, value in differs.items())


def verdict(contenders: Sequence[Contender]) -> Verdict | None:
    """Who has the highest test accuracy, of those that did not diverge; None where there is no race or no winner yet.

    With several seeds a lead is clear where it is more than both standard deviations together.
    """
    if len(contenders) < 2 or is_training(run for one in contenders for run in one.runs):
        return None
    finished = [one for one in contenders if not one.diverged and one.epoch > 0]
    ranked = sorted(finished, key=lambda one: -one.accuracy.mean)
    if not ranked:
        return None
    first, *others = ranked
    if not others:  # the others diverged
        return Verdict(first, first.accuracy.mean, True)
    margin = first.accuracy.mean - others[0].accuracy.mean
    doubt = first.accuracy.std + others[0].accuracy.std or _CLEAR_FOR_ONE_SEED
    return Verdict(first, margin, margin > doubt)


def to_csv(runs: Sequence[Run], repo_ids: Sequence[str] = ()) -> str:
    """One row an epoch of every run: its number, the settings in which the runs differ, and the epoch's figures.

    Where some were published, also the repo of each, as of `compare`.
    """
    told = differences([run.config for run in runs])
    apart = [name for name in TrainConfig.__dataclass_fields__ if any(name in own for own in told)]
    measures = [name for name in EpochEnded.__dataclass_fields__ if name != "continued_with"]
    text = io.StringIO()
    table = csv.writer(text)
    published = any(repo_ids)
    table.writerow(["run", *(["repo_id"] if published else []), *apart, *measures])
    for number, (run, own) in enumerate(zip(runs, told, strict=True), 1):
        known = [number, *([repo_ids[number - 1]] if published else []), *(own.get(name, "") for name in apart)]
        for row in run.history:
            figures = asdict(row)
            table.writerow([*known, *(figures[name] for name in measures)])
    return text.getvalue()


def _named(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if name in ("model", "optimizer", "scheduler"):
        return value
    if isinstance(value, tuple):
        value = ", ".join(f"{part:g}" for part in value)
    return f"{name} {value:g}" if isinstance(value, (int, float)) else f"{name} {value}"
