"""The public endpoints, which gradio_client calls, and the types of their results."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, TypedDict, TypeVar, cast

import gradio as gr
from anyio import to_thread
from gradio.context import LocalContext
from gradio.events import api

from trainer.errors import UserError
from trainer.images.image_data import ImageData
from trainer.images.mirror import suited
from trainer.insight.landscape import NUM_IMAGES, NUM_POINTS, map_row
from trainer.insight.mistakes import bin_rows, class_rows, total_row, unfair_because
from trainer.learning.schedulers import MOST_BATCHES, preview
from trainer.learning.training_set import batches_per_epoch
from trainer.progress import ignore_progress
from trainer.runs.events import Event, StepLogged, json_fields
from trainer.runs.events import row as public_row
from trainer.runs.run import Run
from trainer.settings.config import SETTINGS, TrainConfig
from trainer.settings.lessons import LESSONS
from trainer.sweeps.axes import Cell, parse_axis
from trainer.sweeps.folder import result
from trainer.sweeps.results import best, best_row
from trainer.sweeps.runner import sweep_settings
from ui.jobs.insight import Inspected
from ui.jobs.listeners import MOST_UNREAD_BY_CLIENT, listener
from ui.jobs.queue import Job
from ui.lab import Lab
from ui.parts.messages import with_api_errors
from ui.parts.run.inspected import elsewhere, of_folder
from ui.stored_runs import bundled
from ui.tabs.classify.tab import look
from ui.tabs.inside.landscape import start_job as start_landscape

_SECONDS_BETWEEN_STEPS = 0.1
_MOST_SECONDS_OF_SEARCH = 120
_SECONDS_BETWEEN_LOOKS = 0.25

E = TypeVar("E")


class Guess(TypedDict):
    """The likeliest class, and the probability of every class, likeliest first."""

    label: str
    confidences: dict[str, float]


class Experiment(TypedDict):
    """A lesson: its settings, what its comparison runs change, what to look for, what happens, the notebook's values.

    `mended` is the first of the comparisons. A lesson that is a sweep has none; its `vary` has axes for /sweep.
    """

    name: str
    title: str
    settings: dict[str, Any]
    mended: dict[str, Any]
    comparisons: list[dict[str, Any]]
    vary: list[str]
    before: str
    after: str
    printed: list[float]
    printed_unit: str
    printed_at: list[int]


class PlannedStep(TypedDict):
    """The learning rate of one batch, counted from 1 over the whole run."""

    step: int
    lr: float


class TriedStep(TypedDict):
    """One batch of a range test; a loss that is not finite is None."""

    lr: float
    loss: float | None
    smoothed: float | None


class FoundLr(TypedDict):
    """A range test: the suggested lr and the lr where divergence starts (None without one), why, and all batches."""

    suggestion: float | None
    diverges_at: float | None
    reason: str
    rows: list[TriedStep]


# Functional, because "class" is no name of a field.
ClassMistakes = TypedDict(
    "ClassMistakes",
    {
        "class": str,
        "pictures": int,
        "recall": float | None,
        "precision": float | None,
        "taken_for": dict[str, int],
    },
)
"""A class: how many test pictures it has, and for which classes how many of them are taken; None without pictures."""


class Bin(TypedDict):
    """The pictures whose answer had a confidence from `low` up to `high`, and the accuracy among them."""

    low: float
    high: float
    pictures: int
    confidence: float
    accuracy: float


class Mistakes(TypedDict):
    """What a network takes the test pictures for; `note` says why the figures are no fair score, or is empty."""

    pictures: int
    accuracy: float
    calibration_error: float
    classes: list[ClassMistakes]
    bins: list[Bin]
    note: str


def add_endpoints(lab: Lab) -> None:
    """Adds the endpoints to the page being built."""

    @with_api_errors
    async def train(config: dict[str, Any], data: str = "") -> AsyncIterator[dict[str, Any]]:
        """Trains a new run and yields the rows of the public stream, with about ten steps a second.

        `config` contains the settings by name, {} for the defaults; `flip` is by default off for pictures that a mirror
        makes wrong, such as digits. `data` names the pictures: "" for the app's own,
        "synthetic", or a dataset on the Hub, if the app's owner allows it. `checkpoint` in the rows is the run's key.
        Closing the stream stops the run. The call fails if the run could not be saved.
        """
        if data is not None and not isinstance(data, str):
            raise UserError("data must be a text, such as the name of a dataset on the Hub.")
        TrainConfig.from_settings(config)  # refuses them before the images are loaded
        images = await to_thread.run_sync(lab.sets.load, data, ignore_progress) if data else await _images(lab)
        settings = TrainConfig.from_settings(suited(config, images)[0])
        rows: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        loop, folder, next_step = asyncio.get_running_loop(), lab.runs.new_run(), 0.0

        def put(_: int, event: Event) -> None:
            nonlocal next_step
            if isinstance(event, StepLogged):
                if time.monotonic() < next_step:
                    return
                next_step = time.monotonic() + _SECONDS_BETWEEN_STEPS
            if (row := public_row(event, folder.name)) is not None:
                loop.call_soon_threadsafe(rows.put_nowait, row)

        # In a thread: to check the settings takes longer the more pictures there are.
        start = partial(lab.train, _client(), [settings], images=images, folders=[folder], on_event=put)
        job = await to_thread.run_sync(start)
        async for row in _until_ended(lab, job, rows):
            yield row
        if problem := job.failure or job.runs[0].warning:  # the disk refused the run
            raise UserError(problem)

    @with_api_errors
    async def sweep(config: dict[str, Any], vary: list[str]) -> AsyncIterator[dict[str, Any]]:
        """Trains a sweep and yields the rows of the command line's --json: `refused`, `cell` and `best`.

        `config` contains the settings that all runs share, and `vary` what varies, such as ["lr=1e-4..1:9"]. Closing
        the stream stops the sweep. The call fails if not all runs have ended.
        """
        if not isinstance(vary, list) or len(vary) > len(SETTINGS) or not all(isinstance(text, str) for text in vary):
            raise UserError('What varies must be a list of texts, such as ["lr=1e-4..1:9", "optimizer=sgd,adamw"].')
        if not isinstance(config, dict):
            raise UserError('The settings must be an object of names and values, such as {"optimizer": "adam"}.')
        axes = [parse_axis(text) for text in vary]
        images = await _images(lab)
        shared, _ = sweep_settings(config, axes, images)
        for values, reason in (await to_thread.run_sync(lab.sweep_grid, shared, axes, images)).refused:
            yield {"event": "refused", **values, "reason": reason}
        rows: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def put(cell: Cell, run: Run) -> None:
            loop.call_soon_threadsafe(rows.put_nowait, {"event": "cell", **result(cell, run)})

        start = partial(lab.sweep, _client(), config, axes, folder=lab.runs.new_run(), on_end=put)
        job = await to_thread.run_sync(start)  # to check ten thousand runs takes seconds
        async for row in _until_ended(lab, job, rows):
            yield row
        for group in best(job.ended_runs, axes):
            yield {"event": "best", **best_row(group)}
        if len(job.ended_runs) < len(job.cells):
            unfinished = next((run.advice for run in job.runs.values() if run.advice), "The sweep was stopped.")
            raise UserError(job.failure or job.stopped_because or unfinished)

    @with_api_errors
    async def landscape(
        runs: list[str], random: bool = False, grid: int = NUM_POINTS, images: int = NUM_IMAGES
    ) -> AsyncIterator[dict[str, Any]]:
        """Computes a loss landscape and yields the rows of the command line's --json: `point`, at last `landscape`.

        Each run is a run's key, `repo_id`, or with `random` directions also a bundled name. `grid` is the number of
        points along each axis, `images` that of the training pictures. Closing the stream stops it.
        """
        if not isinstance(runs, list) or not runs or not all(isinstance(name, str) for name in runs):
            raise UserError("The runs must be a list of names, such as the checkpoint of a row of /train.")
        if type(grid) is not int or type(images) is not int:
            raise UserError("grid and images must be whole numbers.")
        await _images(lab)
        chosen = [_inspected(lab, name) for name in runs]
        rows: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        job = start_landscape(
            lab,
            _client(),
            chosen,
            is_random=bool(random),
            num_points=grid,
            num_images=images,
            on_row=lambda row: loop.call_soon_threadsafe(rows.put_nowait, row),
        )
        async for row in _until_ended(lab, job, rows):
            yield row
        if job.failure or job.found is None:
            raise UserError(job.failure)
        yield map_row(job.found)

    @with_api_errors
    async def mistakes(checkpoint: str) -> Mistakes:
        """Classifies the app's test pictures with a checkpoint: a run's key, a bundled name or `repo_id[@revision]`."""
        if not isinstance(checkpoint, str):
            raise UserError("The checkpoint must be a name, such as the checkpoint of a row of /train.")
        images, inspected = await _images(lab), _inspected(lab, checkpoint)
        job = lab.find_mistakes(_client(), inspected, key=checkpoint)
        async for _ in _until_ended(lab, job, asyncio.Queue()):
            pass
        if job.answers is None:
            raise UserError(job.failure)
        found = {
            **total_row(job.answers),
            "classes": class_rows(job.answers),
            "bins": bin_rows(job.answers),
            "note": unfair_because(inspected.folder, images) if inspected.folder else "",
        }
        return cast("Mistakes", found)

    @with_api_errors
    async def classify(image: gr.FileData, checkpoint: str) -> Guess:
        """Classifies an uploaded picture with a checkpoint: a run's key, a bundled name or `repo_id[@revision]`."""
        _, seen = await look(lab, image, checkpoint)
        return {"label": seen.label, "confidences": seen.confidences}

    @with_api_errors
    async def preview_lr(config: dict[str, Any]) -> list[PlannedStep]:
        """Returns the learning rate of every batch of a run with these settings on the app's images."""
        settings = TrainConfig.from_settings(config)
        per_epoch = batches_per_epoch(settings, await _images(lab))
        if settings.epochs * per_epoch > MOST_BATCHES:
            raise UserError(
                "This run has over {count} batches: use fewer epochs or a larger batch_size.",
                count=f"{MOST_BATCHES:,}",
            )

        def planned() -> list[PlannedStep]:
            return [{"step": step, "lr": lr} for step, lr in preview(settings, batches_per_epoch=per_epoch)]

        return await to_thread.run_sync(planned)

    @with_api_errors
    async def find_lr(config: dict[str, Any]) -> FoundLr:
        """Runs a range test with these settings on the app's images, to find a suitable lr. Changes no run."""
        TrainConfig.from_settings(config)
        settings = TrainConfig.from_settings(suited(config, await _images(lab))[0])
        job = lab.search(_client(), settings, most_seconds=_MOST_SECONDS_OF_SEARCH)
        async for _ in _until_ended(lab, job, asyncio.Queue()):
            pass
        if job.finding is None:
            raise UserError(job.failure)
        rows = [{name: row[name] for name in TriedStep.__annotations__} for row in map(json_fields, job.trials)]
        return cast("FoundLr", {**json_fields(job.finding), "rows": rows})

    def lessons() -> list[Experiment]:
        """Returns the lessons in order; the `settings` of each are a config for /train."""
        return [
            cast("Experiment", {**lesson.to_json(), "settings": lesson.config.settings()})
            for lesson in LESSONS.values()
        ]

    # Gradio ignores the type of an iterator; each row is a dict.
    for streaming in (train, sweep, landscape):
        streaming.__annotations__["return"] = dict[str, Any]
    api(train, api_name="train", concurrency_limit=None)
    api(sweep, api_name="sweep", concurrency_limit=None)
    api(landscape, api_name="landscape", concurrency_limit=None)
    api(find_lr, api_name="find_lr", concurrency_limit=None)
    api(mistakes, api_name="mistakes", concurrency_limit=None)
    api(classify, api_name="classify", concurrency_limit=None)
    api(lessons, api_name="lessons", concurrency_limit=4)
    api(preview_lr, api_name="preview_lr", concurrency_limit=4)


async def _images(lab: Lab) -> ImageData:
    """Waits until the images have loaded, and returns them. Raises UserError if there are none."""
    while (images := lab.loaded()) is None:
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
    return images


def _inspected(lab: Lab, name: str) -> Inspected:
    """The run or network of a client's request."""
    return elsewhere(name) if "/" in name or name in bundled() else of_folder(lab.runs.checkpoint(name), name)


def _client() -> str:
    """What identifies the client of the request being handled as the owner of a job."""
    request = LocalContext.request.get(None)
    return f"client {request.session_hash if request else None}"


async def _until_ended(lab: Lab, job: Job, events: asyncio.Queue[E]) -> AsyncIterator[E]:
    """Yields the events of a job until it ends; stops the job if the client leaves first."""
    is_listening = listener(MOST_UNREAD_BY_CLIENT)
    try:
        while is_listening():
            job.watched_at = time.monotonic()
            # Looked at before the wait: the job's last events may still be on their way from its thread.
            has_ended = job.ended.is_set()
            try:
                yield await asyncio.wait_for(events.get(), _SECONDS_BETWEEN_LOOKS / (5 if has_ended else 1))
            except TimeoutError:
                if has_ended:
                    return
    finally:
        if job.is_active:
            lab.jobs.end(job)
