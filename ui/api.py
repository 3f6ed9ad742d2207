"""The public endpoints, typed: what gradio_client sees, and nothing else."""

import time
from collections.abc import Iterator
from typing import Any, TypedDict

import gradio as gr

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
from ui.parts.schedule import MOST_BATCHES
from ui.queue import TRAINING
from ui.tabs.classify import look

_SECONDS_BETWEEN_STEPS = 0.1
_MOST_SECONDS_OF_SEARCH = 120


class Guess(TypedDict):
    """The likeliest class, and the probability of every class, likeliest first."""

    label: str
    confidences: dict[str, float]


class Experiment(TypedDict):
    """A lesson: its settings, what fixes it (`mended`), what to look for, what happened, and the notebook's figures."""

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
    """One batch of a range test; None for a loss that is no finite number."""

    lr: float
    loss: float | None
    smoothed: float | None


class FoundLr(TypedDict):
    """A range test: the lr to take, where divergence begins (None: nothing, nowhere), why, and every batch of it."""

    suggestion: float | None
    diverges_at: float | None
    reason: str
    rows: list[TriedStep]


def add_endpoints(lab: Lab) -> None:
    """Adds the endpoints to the Blocks being built."""

    @with_api_errors
    def train(config: dict) -> Iterator[dict]:
        """Trains a new run; one row of the public stream at a time. Of the steps it sends about ten a second.

        `config` holds the settings by name, {} for the defaults. The rows' `checkpoint` is the run's key.
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
        """What a checkpoint (a run's key, a bundled one's name, `repo_id[@revision]`) sees in an uploaded picture."""
        _, seen = await look(lab, image, checkpoint)
        return {"label": seen.label, "confidences": seen.confidences}

    @with_api_errors
    def preview_lr(config: dict) -> list[PlannedStep]:
        """The learning rate of every batch of a run with these settings on the app's images."""
        settings = TrainConfig.from_settings(config)
        per_epoch = batches_per_epoch(settings, _images(lab))
        if settings.epochs * per_epoch > MOST_BATCHES:
            raise UserError(
                "This run has over {count} batches: use fewer epochs or a larger batch_size.",
                count=f"{MOST_BATCHES:,}",
            )
        return [{"step": step, "lr": lr} for step, lr in preview(settings, batches_per_epoch=per_epoch)]

    @with_api_errors
    def find_lr(config: dict) -> FoundLr:
        """The range test with these settings, on the app's images: which lr suits them. Touches no run."""
        # Unlike a stream, this would go on for a client that left long ago.
        found = lab.find_lr(TrainConfig.from_settings(config), _images(lab), seconds=_MOST_SECONDS_OF_SEARCH)
        *trials, finding = map(json_fields, found)
        return {**finding, "rows": [{name: trial[name] for name in TriedStep.__annotations__} for trial in trials]}

    def lessons() -> list[Experiment]:
        """The lessons, in their order; `settings` of each are a config for /train."""
        return [{**lesson.to_json(), "settings": lesson.config.settings()} for lesson in LESSONS.values()]

    # Gradio reads an iterator's hint as no type at all; each row is a dict.
    train.__annotations__["return"] = dict[str, Any]
    gr.api(train, api_name="train", concurrency_id=TRAINING, concurrency_limit=1)
    gr.api(find_lr, api_name="find_lr", concurrency_id=TRAINING, concurrency_limit=1)
    gr.api(classify, api_name="classify", concurrency_limit=None)
    gr.api(lessons, api_name="lessons", concurrency_limit=4)
    gr.api(preview_lr, api_name="preview_lr", concurrency_limit=4)


def _images(lab: Lab) -> ImageData:
    while (images := lab.loaded()) is None:
        time.sleep(0.2)
    return images
