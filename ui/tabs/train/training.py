"""What the page's buttons train: the settings of a single run, of a race or of a lesson, or a run to resume."""

from collections.abc import Callable
from typing import Any, cast

from trainer.errors import UserError
from trainer.learning.race import over_seeds
from trainer.runs.reader import read_settings
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS
from ui.lab import Lab
from ui.parts.form.fields import read_config, row_changes
from ui.tabs.train.setup.race import read_contenders
from ui.visitors import checked_visitor


def single(**settings: Any) -> list[TrainConfig]:
    """The configs for Train: the page's settings, as a race of one."""
    return [read_config(settings)]


def side_by_side(*, contenders: Any, num_seeds: Any) -> list[TrainConfig]:
    """The configs for Start the race: every contender with every seed."""
    seeds = int(num_seeds) if isinstance(num_seeds, int | float) and 0 < num_seeds < 100 else 0
    return over_seeds(read_contenders(contenders), seeds)


def with_comparisons(*, lesson: Any, **settings: Any) -> list[TrainConfig]:
    """The configs for a lesson's button: the page's settings, and those of the lesson's comparison runs."""
    config = read_config(settings)
    if lesson not in LESSONS:
        raise UserError("Choose a lesson first.")
    compared = [config.changed(changes) for changes in LESSONS[lesson].comparisons]
    if config in compared:
        raise UserError("The page's settings are no longer those of the lesson: choose the lesson again.")
    return over_seeds([config, *compared], 1)


def train(lab: Lab, *, visitor: str, configs: Callable[..., list[TrainConfig]] = single, **values: Any) -> None:
    """Starts a job that trains `configs(**values)` in new runs of the visitor. Raises UserError if it cannot."""
    lab.train(checked_visitor(visitor), configs(**values), is_alone=True)


def resume(
    lab: Lab,
    *,
    visitor: str,
    race: str | None,
    total_epochs: float | None,
    uses_settings: bool = False,
    has_constant_lr: bool = False,
    **settings: Any,
) -> None:
    """Starts a job that resumes the visitor's `race` up to `total_epochs`. Raises UserError if it cannot.

    With `uses_settings`, a single run takes the page's optimizer and scheduler; the runs of a race take the page's
    scheduler, and each keeps its own optimizer and lr. With `has_constant_lr`, the scheduler becomes constant, and the
    lr of a single run a tenth of its own.
    """
    folders = lab.runs.own_race(checked_visitor(visitor), race)
    is_single = len(folders) == 1
    changes: dict[str, Any] = {}
    if uses_settings:
        changes = row_changes(read_config(settings), *(("optimizer", "scheduler") if is_single else ("scheduler",)))
    elif has_constant_lr:
        config, _ = read_settings(folders[0])
        changes = {"scheduler": "constant", **({"lr": cast("float", config.lr) / 10} if is_single else {})}
    lab.resume(visitor, race, total_epochs=int(min(total_epochs or 0, 1e6)), changes=changes)
