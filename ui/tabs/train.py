"""Training on the page: a race of one or several settings, begun or resumed, shown as it goes."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from trainer.errors import UserError
from trainer.images.batches import num_batches
from trainer.images.image_data import ImageData, facts
from trainer.learning.checkpoint import Checkpoint, continued, resumed
from trainer.learning.loop import num_training_images, training_split
from trainer.learning.race import over_seeds
from trainer.learning.schedulers import preview
from trainer.runs import checkpoint
from trainer.runs.events import CheckpointReady, EpochEnded, Event
from trainer.runs.run import Run, is_training
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS
from ui.i18n.language import current_language
from ui.i18n.words import translate
from ui.lab import Lab, checked_visitor
from ui.parts.fields import read_config, row_changes
from ui.parts.messages import said, shown, turned_away
from ui.parts.run_list import NUM_CHOICES, choices
from ui.parts.run_view import NUM_RESULTS, results, status_line
from ui.queue import leave_queue

_shown = shown(
    NUM_RESULTS + NUM_CHOICES,
    "Not trained",
    "Something in the app went wrong. The run is kept up to its last whole epoch.",
)

_STOPPED = "It was stopped before it began."
MOST_PREVIEWED = 100_000  # batches: more would hold the page up for seconds
_SECONDS_BETWEEN_UPDATES = 1.0


def shown_config(names: Sequence[str], values: Sequence[Any]) -> TrainConfig:
    """The config that the widgets `names` show; ValueError with the sentence to say."""
    return read_config(dict(zip(names, values, strict=True)))


def single(shown: TrainConfig, *_: Any) -> list[TrainConfig]:
    """What Train trains: the settings shown, a race of one."""
    return [shown]


def side_by_side(shown: TrainConfig, race: Any, num_seeds: Any, lesson: Any) -> list[TrainConfig]:
    """What Start the race trains: every setting that was added, over the seeds."""
    seeds = int(num_seeds) if isinstance(num_seeds, int | float) and 0 < num_seeds < 100 else 0
    return over_seeds(contenders(race), seeds)


def with_fixed(shown: TrainConfig, race: Any, num_seeds: Any, lesson: Any) -> list[TrainConfig]:
    """What a lesson's own button trains: the settings shown, and beside them the same without the mistake."""
    if lesson not in LESSONS:
        raise UserError("Choose a lesson first.")
    fixed = shown.changed(LESSONS[lesson].fix)
    if fixed == shown:
        raise UserError("The settings shown have not the lesson's mistake any more: choose the lesson anew.")
    return over_seeds([shown, fixed], 1)


def contenders(race: Any) -> list[TrainConfig]:
    """The settings in the page's list for the race, which holds each as JSON; ValueError for anything else."""
    try:
        return [TrainConfig.from_settings(json.loads(text)) for text in race or []]
    except (TypeError, RecursionError, json.JSONDecodeError):
        raise UserError("The race's list is damaged: clear it, and add the settings anew.") from None


@said
def ask(
    lab: Lab, visitor: str, is_new: bool, *values: Any, names: tuple[str, ...], chosen=single, keeps: bool = True
) -> list[Any]:
    """A button that trains is pressed: the settings, where they count, are checked before the queue.

    So is whether the visitor has room for the runs, where it `keeps` any.

    The first value is when it was asked, which tells a Stop that comes later from one that came before.
    """
    checked_visitor(visitor)
    if is_new:
        configs = _asked_for(chosen, names, values)
        lab.limits.check(configs)
        if keeps:
            lab.check_room(visitor, len(configs))
        for config in configs:
            if lab.images is not None:
                training_split(config, lab.images)
    off, on = gr.update(interactive=False), gr.update(interactive=True)
    return [time.monotonic(), off, off, on]


@said
async def stop(lab: Lab, page: gr.Blocks, visitor: str) -> Any:
    """Stop is pressed: what trains ends at its next sign of life, what waits leaves the line at once."""
    lab.stop(visitor)
    leave_queue(page, LocalContext.request.get().session_hash, lambda name: turned_away(_title(name), _STOPPED))
    return gr.update(value=translate("Stopping …", current_language()), interactive=False)


@_shown
def train(
    lab: Lab, visitor: str, asked: float, *values: Any, names: tuple[str, ...], chosen=single
) -> Iterator[list[Any]]:
    """Trains new runs, one a setting and seed, and shows them as they go."""
    configs = _asked_for(chosen, names, values)
    images = yield from wait_for_images(lab, visitor, asked, _no_results())
    planned = plan(configs[0], images)
    events = lab.race([(config, None) for config in configs], images)
    folders = lab.new_race(visitor, len(configs))
    try:
        runs = [Run(config=config) for config in configs]
        with _writing(folders):
            keepers = _keepers(runs, folders, images)
            yield from _follow(lab, visitor, asked, events, keepers, planned, images, folders[0].name)
    finally:
        for folder in folders:
            checkpoint.discard_unused(folder)


@_shown
def resume(
    lab: Lab, visitor: str, asked: float, key: str | None, epochs: float | None, anew: bool, *values: Any, names
) -> Iterator[list[Any]]:
    """Goes on with the visitor's race `key`, to `epochs` in all; if `anew`, with the optimizer and scheduler shown.

    Of a race, every run goes on that has epochs left; `anew`, with the schedule shown and its own optimizer and lr.
    """
    folders = lab.own_race(visitor, key)
    images = yield from wait_for_images(lab, visitor, asked, _no_results())
    parts = ("optimizer", "scheduler") if len(folders) == 1 else ("scheduler",)
    changes = row_changes(shown_config(names, values[-len(names) :]), *parts) if anew else {}
    with _writing(folders):
        going_on = _going_on(folders, images, int(min(epochs or 0, 1e6)), changes)
        planned = []
        if len(folders) == 1:
            begun = going_on[0].schedule_from
            left = replace(going_on[0].config, epochs=going_on[0].config.epochs - begun)
            planned = [(begun + at, lr) for at, lr in plan(left, images)]
        places = list(going_on)
        trained = lab.race([(state.config, state) for state in going_on.values()], images)
        events = ((places[place], event) for place, event in trained)
        runs = [
            resumed(going_on[place]) if place in going_on else checkpoint.read_run(folder)
            for place, folder in enumerate(folders)
        ]
        keepers = _keepers(runs, folders, images, going_on)
        yield from _follow(lab, visitor, asked, events, keepers, planned, images, key)


def rest() -> list[Any]:
    """A training has ended, one way or another: the buttons as they were."""
    stop = gr.update(value=translate("Stop", current_language()), interactive=False)
    return [gr.update(interactive=True), gr.update(interactive=True), stop]


def refused(name: str) -> list[Any]:
    """The queue is full: that, where the status of what is called `name` is, and the buttons as they were."""
    return [turned_away(_title(name)), *rest()]


def plan(config: TrainConfig, images: ImageData | None) -> list[tuple[float, float]]:
    """The schedule as (epochs passed, lr): a point an epoch where lr moves once an epoch, else one a batch.

    Before the images are there it is that of CIFAR-10.
    """
    per_epoch = num_batches(num_training_images(config, images), config)
    if config.scheduler_unit == "epoch":
        points = [(step - 1, lr) for step, lr in preview(replace(config, zero_grad_every=1), num_batches=1)]
        return [*points, (config.epochs, points[-1][1])]
    if config.epochs * per_epoch > MOST_PREVIEWED:
        return []
    return [((step - 1) / per_epoch, lr) for step, lr in preview(config, num_batches=per_epoch)]


def wait_for_images(lab: Lab, visitor: str, asked: float, others: Sequence[Any]) -> Iterator[list[Any]]:
    """Yields how far the images have come, before `others` outputs, until they are there, and returns them.

    Raises ValueError where there are none, or where Stop was pressed while the training waited for them or its turn.
    """
    checked_visitor(visitor)
    language = current_language()
    while not lab.is_stopped(visitor, asked):
        if (images := lab.loaded()) is not None:
            return images
        fraction, doing = lab.loading
        yield [status_line("Waiting for the pictures", doing, fraction, language), *others]
        time.sleep(_SECONDS_BETWEEN_UPDATES)
    raise UserError(_STOPPED)


def _title(name: str) -> str:
    return "No lr was looked for" if name == "_find_lr" else "Not trained"


def _going_on(
    folders: Sequence[Path], images: ImageData, epochs: int, changes: dict[str, Any]
) -> dict[int, Checkpoint]:
    """The states that can be trained further, by their places in the race; ValueError where there is none."""
    race = [checkpoint.read_run(folder) for folder in folders]
    going_on = {}
    for place, (folder, run) in enumerate(zip(folders, race, strict=True)):
        _, data = checkpoint.read_facts(folder)
        if data["digest"] != images.digest:
            raise UserError("This run was trained on other pictures ({name}) than the app has now.", name=data["name"])
        total = max(epochs, run.config.epochs)
        is_over = run.epoch >= total or (run.status == "diverged" and not changes)
        if len(race) == 1 or not is_over:
            going_on[place] = continued(checkpoint.read(folder), epochs=total, changes=changes)
    if not going_on:
        raise UserError("Every run of this race has trained all its epochs; ask for more to go on.")
    after = {going_on.get(place, run).config for place, run in enumerate(race)}
    if len(after) < len({run.config for run in race}):
        raise UserError(
            "Some settings of this race would become the same: they differ in their schedule or epochs "
            "alone. Start a new race of more epochs instead."
        )
    return going_on


@contextmanager
def _writing(folders: Sequence[Path]) -> Iterator[None]:
    with ExitStack() as held:
        for folder in folders:
            held.enter_context(checkpoint.writing(folder))
        yield


def _asked_for(chosen, names: tuple[str, ...], values: Sequence[Any]) -> list[TrainConfig]:
    race, num_seeds, lesson = values[: -len(names)]
    return chosen(shown_config(names, values[-len(names) :]), race, num_seeds, lesson)


def _keepers(
    runs: Sequence[Run],
    folders: Sequence[Path],
    images: ImageData,
    going_on: Mapping[int, Checkpoint] | None = None,
) -> list[checkpoint.Keeper]:
    return [
        checkpoint.Keeper(run=run, folder=folder, data=facts(images), resume=(going_on or {}).get(place))
        for place, (run, folder) in enumerate(zip(runs, folders, strict=True))
    ]


def _follow(
    lab: Lab,
    visitor: str,
    asked: float,
    events: Iterator[tuple[int, Event]],
    keepers: list[checkpoint.Keeper],
    planned: list[tuple[float, float]],
    images: ImageData,
    key: str,
) -> Iterator[list[Any]]:
    language, runs = current_language(), [keeper.run for keeper in keepers]

    def update() -> list[Any]:
        return results(runs, images, language, planned=planned, live=is_training(runs))

    next_update = 0.0
    yield [*update(), *_unchanged()]
    stopped = partial(lab.is_stopped, visitor, asked)
    for _, event in checkpoint.record_race(events, keepers, stop=stopped):
        # The first checkpoint makes a run one that can be chosen; later ones change its label.
        if isinstance(event, CheckpointReady) and (len(runs) == 1 or event.epoch == 0):
            yield [*update(), *choices(lab, visitor, key, keep=event.epoch > 0)]
        # Of a race's epochs many end at once.
        elif (isinstance(event, EpochEnded) and len(runs) == 1) or time.monotonic() > next_update:
            yield [*update(), *_unchanged()]
            next_update = time.monotonic() + _SECONDS_BETWEEN_UPDATES
    yield [*update(), *choices(lab, visitor, key, keep=True)]


def _no_results() -> list[Any]:
    """The outputs that stand behind the status while nothing is trained yet."""
    return [*results([], None, current_language())[1:], *_unchanged()]


def _unchanged() -> list[Any]:
    return [gr.skip()] * NUM_CHOICES
