"""The public endpoints, which gradio_client calls, and the types of their results."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, TypedDict, TypeVar, cast

import gradio as gr
from anyio import to_thread
from gradio.context import LocalContext
from gradio.events import api

from trainer.errors import UserError
from trainer.images.image_data import ImageData
from trainer.learning.schedulers import MOST_BATCHES, preview
from trainer.learning.training_set import batches_per_epoch
from trainer.runs.events import Event, StepLogged, json_fields
from trainer.runs.events import row as public_row
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS
from ui.jobs.listeners import MOST_UNREAD_BY_CLIENT, listener
from ui.jobs.queue import Job
from ui.lab import Lab
from ui.parts.messages import with_api_errors
from ui.tabs.classify import look

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

    `mended` is the first of the comparisons.
    """

    name: str
    title: str
    settings: dict[str, Any]
    mended: dict[str, Any]
    comparisons: list[dict[str, Any]]
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


def add_endpoints(lab: Lab) -> None:
    """Adds the endpoints to the page being built."""

    @with_api_errors
    async def train(config: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Trains a new run and yields the rows of the public stream, with about ten steps a second.

        `config` contains the settings by name, {} for the defaults. `checkpoint` in the rows is the run's key. Closing
        the stream stops the run. The call fails if the run could not be saved.
        """
        settings = TrainConfig.from_settings(config)
        await _images(lab)
        rows: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        loop, folder, next_step = asyncio.get_running_loop(), lab.new_run(), 0.0

        def put(_: int, event: Event) -> None:
            nonlocal next_step
            if isinstance(event, StepLogged):
                if time.monotonic() < next_step:
                    return
                next_step = time.monotonic() + _SECONDS_BETWEEN_STEPS
            if (row := public_row(event, folder.name)) is not None:
                loop.call_soon_threadsafe(rows.put_nowait, row)

        job = lab.train(_client(), [settings], folders=[folder], on_event=put)
        async for row in _until_ended(lab, job, rows):
            yield row
        if problem := job.failure or job.runs[0].warning:  # the disk refused the run
            raise UserError(problem)

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
        settings = TrainConfig.from_settings(config)
        await _images(lab)
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
    train.__annotations__["return"] = dict[str, Any]
    api(train, api_name="train", concurrency_limit=None)
    api(find_lr, api_name="find_lr", concurrency_limit=None)
    api(classify, api_name="classify", concurrency_limit=None)
    api(lessons, api_name="lessons", concurrency_limit=4)
    api(preview_lr, api_name="preview_lr", concurrency_limit=4)


async def _images(lab: Lab) -> ImageData:
    """Waits until the images have loaded, and returns them. Raises UserError if there are none."""
    while (images := lab.loaded()) is None:
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
    return images


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
