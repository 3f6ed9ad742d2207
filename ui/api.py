"""The public endpoints, which gradio_client calls, and the types of their results."""

import time
from collections.abc import Iterator
from typing import Any, TypedDict, cast

import gradio as gr
from gradio.events import api

from trainer.errors import UserError
from trainer.images.image_data import ImageData, facts
from trainer.learning.schedulers import preview
from trainer.learning.training_set import batches_per_epoch
from trainer.runs import run_folder
from trainer.runs.events import StepLogged, json_fields
from trainer.runs.events import row as public_row
from trainer.runs.recorder import Recorder, record_race
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS
from ui.lab import Lab
from ui.parts.messages import with_api_errors
from ui.schedule import MOST_BATCHES
from ui.queue import TRAINING
from ui.tabs.classify import look

_SECONDS_BETWEEN_STEPS = 0.1
_MOST_SECONDS_OF_SEARCH = 120


class Guess(TypedDict):
    """The likeliest class, and the probability of every class, likeliest first."""

    label: str
    confidences: dict[str, float]


class Experiment(TypedDict):
    """A lesson: its settings, those that fix it (`mended`), what to look for, what happens, the notebook's values."""

    name: str
    title: str
    settings: dict[str, Any]
    mended: dict[str, Any]
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
    def train(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Trains a new run and yields the rows of the public stream, with about ten steps a second.

        `config` contains the settings by name, {} for the defaults. `checkpoint` in the rows is the run's key.
        """
        settings = TrainConfig.from_settings(config)
        images = _images(lab)
        events = lab.race([(settings, None)], images)
        folder = lab.new_run()
        recorders = [Recorder(run=Run(config=settings), folder=folder, data=facts(images))]
        last_step = 0.0
        with run_folder.writing(folder):
            for _, event in record_race(events, recorders):
                if isinstance(event, StepLogged):
                    if time.monotonic() - last_step < _SECONDS_BETWEEN_STEPS:
                        continue
                    last_step = time.monotonic()
                if (row := public_row(event, folder.name)) is not None:
                    yield row

    @with_api_errors
    async def classify(image: gr.FileData, checkpoint: str) -> Guess:
        """Classifies an uploaded picture with a checkpoint: a run's key, a bundled name or `repo_id[@revision]`."""
        _, seen = await look(lab, image, checkpoint)
        return {"label": seen.label, "confidences": seen.confidences}

    @with_api_errors
    def preview_lr(config: dict[str, Any]) -> list[PlannedStep]:
        """Returns the learning rate of every batch of a run with these settings on the app's images."""
        settings = TrainConfig.from_settings(config)
        per_epoch = batches_per_epoch(settings, _images(lab))
        if settings.epochs * per_epoch > MOST_BATCHES:
            raise UserError(
                "This run has over {count} batches: use fewer epochs or a larger batch_size.",
                count=f"{MOST_BATCHES:,}",
            )
        return [{"step": step, "lr": lr} for step, lr in preview(settings, batches_per_epoch=per_epoch)]

    @with_api_errors
    def find_lr(config: dict[str, Any]) -> FoundLr:
        """Runs a range test with these settings on the app's images, to find a suitable lr. Changes no run."""
        # A limit of its own: unlike a stream, this call continues after its client has left.
        found = lab.find_lr(TrainConfig.from_settings(config), _images(lab), seconds=_MOST_SECONDS_OF_SEARCH)
        *trials, finding = map(json_fields, found)
        rows = [{name: trial[name] for name in TriedStep.__annotations__} for trial in trials]
        return cast("FoundLr", {**finding, "rows": rows})

    def lessons() -> list[Experiment]:
        """Returns the lessons in order; the `settings` of each are a config for /train."""
        return [
            cast("Experiment", {**lesson.to_json(), "settings": lesson.config.settings()})
            for lesson in LESSONS.values()
        ]

    # Gradio ignores the type of an iterator; each row is a dict.
    train.__annotations__["return"] = dict[str, Any]
    api(train, api_name="train", concurrency_id=TRAINING, concurrency_limit=1)
    api(find_lr, api_name="find_lr", concurrency_id=TRAINING, concurrency_limit=1)
    api(classify, api_name="classify", concurrency_limit=None)
    api(lessons, api_name="lessons", concurrency_limit=4)
    api(preview_lr, api_name="preview_lr", concurrency_limit=4)


def _images(lab: Lab) -> ImageData:
    """Waits until the images have loaded, and returns them. Raises UserError if there are none."""
    while (images := lab.loaded()) is None:
        time.sleep(0.2)
    return images
