"""Training on the page: starts or resumes one run or a race, and shows it while it trains."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.images.image_data import ImageData, facts
from trainer.learning.checkpoint import Checkpoint, continued, resumed
from trainer.learning.race import over_seeds
from trainer.runs import run_folder
from trainer.runs.events import CheckpointReady, EpochEnded, Event
from trainer.runs.reader import read_checkpoint, read_run, read_settings
from trainer.runs.recorder import Recorder, record_race
from trainer.runs.run import Run, is_training
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS
from ui.i18n.language import current_language
from ui.lab import Lab, checked_visitor
from ui.parts import run_list
from ui.parts.fields import read_config, row_changes
from ui.parts.markup import status_line
from ui.parts.messages import Updates
from ui.parts.run_list import RunLists
from ui.parts.run_view import RunView
from ui.schedule import planned_lrs
from ui.tabs.train.race import read_contenders

BROKEN = "Something in the app went wrong. The run is saved up to its last full epoch."
STOPPED = "It was stopped before it started."
_SECONDS_BETWEEN_UPDATES = 1.0
_POLL_SECONDS = 0.5  # for the training of another page


def single(**settings: Any) -> list[TrainConfig]:
    """The configs for Train: the page's settings, as a race of one."""
    return [read_config(settings)]


def side_by_side(*, contenders: Any, num_seeds: Any) -> list[TrainConfig]:
    """The configs for Start the race: every contender with every seed."""
    seeds = int(num_seeds) if isinstance(num_seeds, int | float) and 0 < num_seeds < 100 else 0
    return over_seeds(read_contenders(contenders), seeds)


def with_fixed(*, lesson: Any, **settings: Any) -> list[TrainConfig]:
    """The configs for a lesson's button: the page's settings, with and without the lesson's mistake."""
    config = read_config(settings)
    if lesson not in LESSONS:
        raise UserError("Choose a lesson first.")
    fixed = config.changed(LESSONS[lesson].fix)
    if fixed == config:
        raise UserError("The page's settings no longer contain the lesson's mistake: choose the lesson again.")
    return over_seeds([config, fixed], 1)


def train(
    lab: Lab,
    view: RunView,
    lists: RunLists,
    *,
    visitor: str,
    requested_at: float,
    configs: Callable[..., list[TrainConfig]] = single,
    **values: Any,
) -> Iterator[Updates]:
    """Trains new runs of `configs(**values)`; yields updates that show them."""
    new = configs(**values)
    images = yield from wait_for_images(lab, visitor, requested_at, view.status, _without_runs(view))
    planned = planned_lrs(new[0], images)
    events = lab.race([(config, None) for config in new], images)
    folders = lab.new_race(visitor, len(new))
    runs = [Run(config=config) for config in new]
    try:
        with _writing(folders):
            yield from _watch(
                record_race(
                    events,
                    _recorders(runs, folders, images),
                    stop=partial(lab.is_stopped, visitor, requested_at),
                ),
                runs,
                show=partial(view.show, runs, images, current_language(), planned=planned),
                offer=partial(lists.offer, lab, visitor, folders[0].name),
            )
    finally:
        for folder in folders:
            run_folder.discard_unused(folder)


def resume(
    lab: Lab,
    view: RunView,
    lists: RunLists,
    *,
    visitor: str,
    requested_at: float,
    race: str | None,
    total_epochs: float | None,
    uses_settings: bool,
    **settings: Any,
) -> Iterator[Updates]:
    """Resumes the visitor's `race` up to `total_epochs`; yields updates that show it.

    With `uses_settings`, a single run takes the page's optimizer and scheduler; the runs of a race take the page's
    scheduler, and each keeps its own optimizer and lr. Runs that have no epochs left stay as they are.
    """
    folders = lab.own_race(visitor, race)
    images = yield from wait_for_images(lab, visitor, requested_at, view.status, _without_runs(view))
    parts = ("optimizer", "scheduler") if len(folders) == 1 else ("scheduler",)
    changes = row_changes(read_config(settings), *parts) if uses_settings else {}
    with _writing(folders):
        resumable = _resumable_checkpoints(folders, images, int(min(total_epochs or 0, 1e6)), changes)
        planned: list[tuple[float, float]] = []
        if len(folders) == 1:
            start = resumable[0].schedule_from
            rest = replace(resumable[0].config, epochs=resumable[0].config.epochs - start)
            planned = [(start + epochs, lr) for epochs, lr in planned_lrs(rest, images)]
        indices = list(resumable)
        events = lab.race([(state.config, state) for state in resumable.values()], images)
        runs = [
            resumed(resumable[index]) if index in resumable else read_run(folder)
            for index, folder in enumerate(folders)
        ]
        yield from _watch(
            record_race(
                ((indices[index], event) for index, event in events),
                _recorders(runs, folders, images, resumable),
                stop=partial(lab.is_stopped, visitor, requested_at),
            ),
            runs,
            show=partial(view.show, runs, images, current_language(), planned=planned),
            offer=partial(lists.offer, lab, visitor, race),
        )


def follow(lab: Lab, view: RunView, lists: RunLists, visitor: str, was_training: bool) -> Iterator[Updates]:
    """Yields updates that show the training of another page of the visitor, until it ends.

    `was_training`: whether a run was training when this page was opened. If so, its end is shown even if it has already
    ended.
    """
    if not was_training:
        yield gr.skip()
    language = current_language()
    while was_training:
        race, runs = run_list.latest(lab, visitor)
        was_training = is_training(runs)
        yield {**view.show(runs, lab.images, language), **lists.offer(lab, visitor, race, keep=True)}
        if was_training:
            time.sleep(_POLL_SECONDS)


def wait_for_images(
    lab: Lab, visitor: str, requested_at: float, status: gr.HTML, others: Updates
) -> Generator[Updates, None, ImageData]:
    """Yields updates of `status` with the progress of loading the images, and `others`; returns the images.

    Raises UserError if there are none, or if Stop was pressed after `requested_at`.
    """
    checked_visitor(visitor)
    language = current_language()
    while not lab.is_stopped(visitor, requested_at):
        if (images := lab.loaded()) is not None:
            return images
        fraction, doing = lab.loading
        yield {**others, status: status_line("Waiting for the pictures", doing, fraction, language)}
        time.sleep(_SECONDS_BETWEEN_UPDATES)
    raise UserError(STOPPED)


def _without_runs(view: RunView) -> Updates:
    """Updates that empty a view, except its status."""
    updates = view.show([], None, current_language())
    del updates[view.status]
    return updates


def _watch(
    events: Iterator[tuple[int, Event]],
    runs: Sequence[Run],
    *,
    show: Callable[..., Updates],
    offer: Callable[..., Updates],
) -> Iterator[Updates]:
    """Yields updates of the view (`show`) and the lists (`offer`) for events that have already changed `runs`."""
    next_update = 0.0
    yield show(live=is_training(runs))
    for _, event in events:
        # From the first checkpoint on, a list can offer the run; later ones change its title.
        if isinstance(event, CheckpointReady) and (len(runs) == 1 or event.epoch == 0):
            yield {**show(live=is_training(runs)), **offer(keep=event.epoch > 0)}
        # Many epochs of a race end at about the same time.
        elif (isinstance(event, EpochEnded) and len(runs) == 1) or time.monotonic() > next_update:
            yield show(live=is_training(runs))
            next_update = time.monotonic() + _SECONDS_BETWEEN_UPDATES
    yield {**show(live=is_training(runs)), **offer(keep=True)}


def _resumable_checkpoints(
    folders: Sequence[Path], images: ImageData, epochs: int, changes: dict[str, Any]
) -> dict[int, Checkpoint]:
    """The checkpoints to resume, by their index in the race.

    Raises UserError if there are none, if they were trained on other images, or if settings would become the same.
    """
    race = [read_run(folder) for folder in folders]
    resumable = {}
    for index, (folder, run) in enumerate(zip(folders, race, strict=True)):
        _, data = read_settings(folder)
        if data["digest"] != images.digest:
            raise UserError(
                "This run was trained on other pictures ({name}) than those the app uses now.", name=data["name"]
            )
        total = max(epochs, run.config.epochs)
        is_over = run.epoch >= total or (run.status == "diverged" and not changes)
        if len(race) == 1 or not is_over:
            resumable[index] = continued(read_checkpoint(folder), epochs=total, changes=changes)
    if not resumable:
        raise UserError("Every run of this race has trained all its epochs; choose a larger total to continue.")
    states: list[Run | Checkpoint] = [resumable.get(index, run) for index, run in enumerate(race)]
    after = {state.config for state in states}
    if len(after) < len({run.config for run in race}):
        raise UserError(
            "Some settings of this race would become the same: they differ only in their schedule or epochs. "
            "Start a new race with more epochs instead."
        )
    return resumable


@contextmanager
def _writing(folders: Sequence[Path]) -> Iterator[None]:
    """Holds the locks of all folders until the with block ends."""
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(run_folder.writing(folder))
        yield


def _recorders(
    runs: Sequence[Run],
    folders: Sequence[Path],
    images: ImageData,
    resumable: Mapping[int, Checkpoint] | None = None,
) -> list[Recorder]:
    return [
        Recorder(run=run, folder=folder, data=facts(images), resume=(resumable or {}).get(index))
        for index, (run, folder) in enumerate(zip(runs, folders, strict=True))
    ]
