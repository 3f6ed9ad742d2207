"""What the page does: widgets to config, events to updates. Each function takes the Lab and one visitor's values."""

import functools
import html
import itertools
import shutil
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from gradio.utils import get_upload_folder

from trainer import checkpoint
from trainer.config import TrainConfig
from trainer.data import ImageData, facts, num_batches
from trainer.events import CheckpointReady, EpochEnded, Event
from trainer.loop import training_split
from trainer.model import OptimizerLabModel
from trainer.predict import classify as classify_picture
from trainer.run import Run
from trainer.schedule import preview, spans_run
from ui import plots
from ui.fields import read_config, row_changes
from ui.lab import Lab, bundled, checked_visitor, is_key, new_visitor

_SECONDS_BETWEEN_UPDATES = 0.5
_MOST_PREVIEWED = 200_000  # batches: more would hold the page up for seconds
_SECONDS_TO_LET_GO = 15.0  # what a training needs to notice that its page was left

# How many components `results` and `_choices` fill.
_NUM_RESULTS, _NUM_CHOICES = 5, 2

# Numbers of CIFAR-10, for what is drawn before the images are there.
_NUM_IMAGES, _NUM_CLASSES = 50_000, 10

INVITATION = """<div class='status'>Choose a picture: a file, the webcam, the clipboard, or a test picture below.
<span class='quiet'>A network knows only the classes it learned; to it, every picture is one of them.</span></div>"""

_STATUS = {
    "training": ("Training", "in another tab"),
    "completed": ("Done", ""),
    "stopped": ("Stopped", "its last whole epoch is kept; Resume goes on from there"),
    "diverged": ("Diverged", "the last epoch with a sound loss is kept"),
    "out_of_time": ("Out of time", "Resume goes on from its last epoch"),
    "interrupted": ("Interrupted", "the page was left or the app ended; Resume goes on from its last epoch"),
}


def said(handler: Callable) -> Callable:
    """The handler with a user's mistake (ValueError) told as a message, in its one sentence."""

    @functools.wraps(handler)
    def telling(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return telling


def shown(handler: Callable) -> Callable:
    """The generator, which trains, with whatever ends it early told where the run's status stands, to stay there.

    It never raises: what resets the buttons comes after it, and Gradio runs nothing after an error.
    """

    @functools.wraps(handler)
    def telling(*args, **kwargs):
        try:
            yield from handler(*args, **kwargs)
        except ValueError as error:
            yield [_stopped_short(str(error)), *_unchanged(_NUM_RESULTS - 1 + _NUM_CHOICES)]
        except Exception:
            traceback.print_exc()
            sentence = "Something in the app went wrong. The run is kept up to its last whole epoch."
            yield [_stopped_short(sentence), *_unchanged(_NUM_RESULTS - 1 + _NUM_CHOICES)]

    return telling


def load(lab: Lab, visitor: str | None) -> Iterator[list[Any]]:
    """A page is opened: the visitor's key, their latest run with its curves, and how the images are coming along."""
    visitor = visitor if is_key(visitor) else new_visitor()
    begun = time.monotonic()
    while True:
        folder = next(iter(lab.runs_of(visitor)), None)
        run = _read(folder)
        images = lab.images
        yield [
            visitor,
            images_note(lab),
            *results(run, images),
            *_choices(lab, visitor, folder),
            samples(images),
        ]
        # A reloaded page's own training still runs until its next event finds nobody there.
        letting_go = run is not None and run.status == "training" and time.monotonic() - begun < _SECONDS_TO_LET_GO
        if (images is not None or lab.failure) and not letting_go:
            return
        time.sleep(_SECONDS_BETWEEN_UPDATES)


@said
def ask(lab: Lab, visitor: str, anew: bool, *values: Any, names: tuple[str, ...]) -> list[Any]:
    """Train or Resume is pressed: the settings, where they count, are checked before the queue; the buttons answer.

    The first value is when it was asked, which tells a Stop that comes later from one that came before.
    """
    checked_visitor(visitor)
    if anew:
        config = _config(names, values)
        if lab.images is not None:
            training_split(config, lab.images)
    return [time.monotonic(), gr.update(interactive=False), gr.update(interactive=False), gr.update(interactive=True)]


@said
def stop(lab: Lab, visitor: str) -> Any:
    """Stop is pressed."""
    lab.stop(visitor)
    return gr.update(value="Stopping …", interactive=False)


def rest() -> list[Any]:
    """A training has ended, one way or another: the buttons as they were."""
    return [gr.update(interactive=True), gr.update(interactive=True), gr.update(value="Stop", interactive=False)]


@shown
def train(lab: Lab, visitor: str, asked: float, *values: Any, names: tuple[str, ...]) -> Iterator[list[Any]]:
    """Trains a new run and shows it as it goes."""
    config = _config(names, values)
    images = yield from _images(lab, visitor, asked)
    planned = _planned(config, images)
    events = lab.train(config, images, None)
    folder = lab.new_run(visitor)
    try:
        with checkpoint.writing(folder):
            yield from _follow(lab, visitor, asked, events, Run(config=config), planned, images, folder)
    finally:
        if not checkpoint.is_run(folder):  # refused or left before it began
            shutil.rmtree(folder, ignore_errors=True)


@shown
def resume(
    lab: Lab, visitor: str, asked: float, key: str | None, epochs: float | None, anew: bool, *values: Any, names
) -> Iterator[list[Any]]:
    """Goes on with the visitor's run `key`, to `epochs` in all; if `anew`, with the optimizer and scheduler shown."""
    folder = lab.own_run(visitor, key)
    images = yield from _images(lab, visitor, asked)
    with checkpoint.writing(folder):
        kept = checkpoint.read(folder)
        if kept.data.get("digest") != images.digest:
            raise ValueError(f"This run was trained on other pictures ({kept.data.get('name')}) than the app has now.")
        changes = row_changes(_config(names, values)) if anew else {}
        total = max(int(min(epochs or 0, 1e6)), kept.config.epochs)
        kept = checkpoint.continued(kept, epochs=total, changes=changes, spans_run=spans_run(kept.config))
        begun = kept.schedule_from
        rest = replace(kept.config, epochs=kept.config.epochs - begun)
        planned = [(begun + at, lr) for at, lr in _planned(rest, images)]
        events = lab.train(kept.config, images, kept)
        run = Run(config=kept.config, history=list(kept.history))
        yield from _follow(lab, visitor, asked, events, run, planned, images, folder)


@said
def show(lab: Lab, visitor: str, key: str | None) -> list[Any]:
    """A run is chosen from the visitor's: its curves."""
    return results(_read(lab.own_run(visitor, key)) if key else None, lab.images)


@said
def delete(lab: Lab, visitor: str, key: str | None) -> list[Any]:
    """Deletes the visitor's run and shows the latest that is left."""
    if key:
        checkpoint.delete(lab.own_run(visitor, key))
    folder = next(iter(lab.runs_of(visitor)), None)
    return [*results(_read(folder), lab.images), *_choices(lab, visitor, folder)]


@said
def download(lab: Lab, visitor: str, key: str | None) -> str:
    """The path of a zip of the visitor's run, as it could be put on the Hub."""
    if not key:
        raise ValueError("Train something first: then there is a checkpoint to download.")
    folder = lab.own_run(visitor, key)
    # In Gradio's own folder, from which alone it gives files out, and which it clears.
    path = Path(tempfile.mkdtemp(dir=_made(get_upload_folder()))) / "optimizer-lab-checkpoint.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in checkpoint.pack(folder).items():
            archive.writestr(name, content)
    return str(path)


def draw_preview(lab: Lab, *values: Any, names: tuple[str, ...]) -> list[Any]:
    """The schedule that the settings plan, drawn by what trains, and a word on it: what is wrong, where they are."""
    try:
        config = _config(names, values) if values else TrainConfig()
        planned = _planned(config, lab.images)
    except ValueError as error:
        return [plots.lr_chart([], None, epochs=TrainConfig().epochs, height=130), _advice(str(error))]
    word = ""
    if config.scheduler == "plateau":
        word = "Drawn where it begins: plateau lowers lr by the loss, which only training tells."
    elif not planned:
        word = f"Too long to draw: over {_MOST_PREVIEWED:,} batches."
    return [plots.lr_chart(planned, None, epochs=config.epochs, height=130), f"<div class='note'>{word}</div>"]


def classify(lab: Lab, picture: Any, name: str | None) -> list[Any]:
    """What the chosen checkpoint sees in a picture: a sentence, the likeliest classes, the picture it got.

    A mistake is told in the sentence's place: it stays as long as the picture does.
    """
    if picture is None:
        return [INVITATION, None, None]
    try:
        if not name:
            raise ValueError("There is no trained network yet: press Train, and come back after its first epoch.")
        model = OptimizerLabModel.from_pretrained(lab.checkpoint(name)).to(lab.device)
        seen = classify_picture(model, uploaded(picture))
    except ValueError as error:
        return [f"<div class='status'>{_advice(str(error))}</div>", None, None]
    likely = seen.confidences[seen.label]
    sure = "It says" if likely > 0.5 else "It is not sure; its best guess is"
    known = ", ".join(map(html.escape, model.class_names))
    only = f"It knows only these {len(model.class_names)}: {known}; to it, every picture is one of them."
    sentence = f"{sure} <b>{html.escape(seen.label)}</b>, {likely:.1%}. <span class='quiet'>{only}</span>"
    return [f"<div class='status'>{sentence}</div>", seen.confidences, seen.seen.permute(1, 2, 0).numpy()]


def sample(lab: Lab, index: int) -> Any:
    """The test picture that was pressed, uint8 [size, size, 3], as the picture to classify; None if there is none."""
    pictures = samples(lab.images)
    return pictures[index][0] if index in range(len(pictures)) else None


def samples(images: ImageData | None) -> list[tuple[Any, str]]:
    """The first test picture of each of the first ten classes, with its name, for the gallery."""
    found = []
    for label, name in enumerate(images.class_names[:10]) if images else ():
        places = torch.nonzero(images.test.labels == label)
        if len(places):
            found.append((images.test.images[int(places[0])].permute(1, 2, 0).numpy(), name))
    return found


def uploaded(value: Any) -> Path:
    """The file a visitor uploaded; ValueError for any other path, which a hand-made request can hold."""
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError("Send a picture file.")
    real = Path(path).resolve()
    if not real.is_relative_to(Path(get_upload_folder()).resolve()) or not real.is_file():
        raise ValueError("Send a picture file.")
    return real


def images_note(lab: Lab) -> str:
    """Which pictures the app trains on, or how far they have come, as HTML."""
    if lab.failure:
        return _advice(f"There are no pictures to train on: {lab.failure}")
    if lab.images is not None:
        return f"<div class='note'>{html.escape(lab.images.note)}</div>"
    fraction, doing = lab.loading
    return f"<div class='note'>{html.escape(doing)} … {fraction:.0%}{_bar(fraction)}</div>"


def results(run: Run | None, images: ImageData | None, planned: list[tuple[float, float]] | None = None) -> list[Any]:
    """The right side of the page for a run, or for none yet: status, three charts and the table."""
    epochs = run.config.epochs if run else TrainConfig().epochs
    num_classes = len(images.class_names) if images else _NUM_CLASSES
    return [
        status(run),
        plots.loss_chart(run, epochs=epochs, num_classes=num_classes),
        plots.accuracy_chart(run, epochs=epochs, num_classes=num_classes),
        plots.lr_chart(planned or [], run, epochs=epochs, height=190),
        table(run),
    ]


def status(run: Run | None, *, live: bool = False) -> str:
    """The run's state and progress bar, as HTML; `live` while it is trained for this page."""
    if run is None:
        return _status("Ready.", "Press Train: the settings are good as they are.", 0)
    if live and not run.history:
        return _status("Starting", "measuring the untrained network", run.evaluated)
    title, more = _STATUS[run.status]
    words = [f"epoch {run.epoch} of {run.config.epochs}"]
    if live:
        more = f"testing {run.evaluated:.0%}" if run.evaluated else ""
        words = [f"epoch {min(run.config.epochs, run.epoch + 1)} of {run.config.epochs}"]
        if run.last_step is not None:
            words.append(f"loss {run.curve.points[-1].smoothed:.3f}")
        if run.seconds_left is not None:
            words.append(f"about {_duration(run.seconds_left)} left")
    if run.epoch:
        words.append(f"best test accuracy {run.best.test_accuracy:.1%} (epoch {run.best.epoch})")
    text = " · ".join([*words, *filter(None, [more])])
    return _status(title, text, run.epochs_passed / run.config.epochs, run.advice, run.warning)


def table(run: Run | None) -> str:
    """The epochs, the latest first, as an HTML table in a box of fixed height."""
    heads = ("epoch", "train loss", "test loss", "test accuracy", "lr", "seconds", "images/s")
    best = run.best.epoch if run and run.epoch else None
    rows = "".join(_table_row(row, row.epoch == best) for row in reversed(run.history)) if run else ""
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<div class='epochs'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _follow(
    lab: Lab,
    visitor: str,
    asked: float,
    events: Iterator[Event],
    run: Run,
    planned: list[tuple[float, float]],
    images: ImageData,
    folder: Path,
) -> Iterator[list[Any]]:
    def update() -> list[Any]:
        return [status(run, live=run.status == "training"), *results(run, images, planned)[1:]]

    last_update = 0.0
    yield [*update(), *_unchanged()]
    stopped = partial(lab.is_stopped, visitor, asked)
    for event in checkpoint.record(events, run, folder, facts(images), stop=stopped):
        if isinstance(event, CheckpointReady):
            # The first makes the run one that can be chosen; later ones its label.
            yield [*update(), *_choices(lab, visitor, folder)]
        elif isinstance(event, EpochEnded) or time.monotonic() - last_update > _SECONDS_BETWEEN_UPDATES:
            yield [*update(), *_unchanged()]
            last_update = time.monotonic()
    yield [*update(), *_choices(lab, visitor, folder)]


def _images(lab: Lab, visitor: str, asked: float) -> Iterator[list[Any]]:
    """Yields how far the images have come until they are there, and returns them.

    Raises ValueError where there are none, or where Stop was pressed while the training waited for them or its turn.
    """
    checked_visitor(visitor)
    while not lab.is_stopped(visitor, asked):
        if lab.failure:
            raise ValueError(f"There are no pictures to train on: {lab.failure}")
        if lab.images is not None:
            return lab.images
        fraction, doing = lab.loading
        yield [_status("Waiting for the pictures", doing, fraction), *results(None, None)[1:], *_unchanged()]
        time.sleep(_SECONDS_BETWEEN_UPDATES)
    raise ValueError("It was stopped before it began.")


def _config(names: tuple[str, ...], values: tuple[Any, ...]) -> TrainConfig:
    return read_config(dict(zip(names, values, strict=True)))


def _planned(config: TrainConfig, images: ImageData | None) -> list[tuple[float, float]]:
    """The schedule as (epochs passed, lr): a point an epoch where lr moves once an epoch, else one a batch."""
    count = len(training_split(config, images).labels) if images else config.num_images or _NUM_IMAGES
    per_epoch = num_batches(count, config)
    if config.scheduler_unit == "epoch":
        points = [(step - 1, lr) for step, lr in preview(replace(config, zero_grad_every=1), num_batches=1)]
        return [*points, (config.epochs, points[-1][1])]
    if config.epochs * per_epoch > _MOST_PREVIEWED:
        return []
    return [((step - 1) / per_epoch, lr) for step, lr in preview(config, num_batches=per_epoch)]


def _read(folder: Path | None) -> Run | None:
    if folder is None:
        return None
    try:
        return checkpoint.read_run(folder)
    except ValueError:
        return None


def _unchanged(count: int = _NUM_CHOICES) -> list[Any]:
    return [gr.skip()] * count


def _stopped_short(sentence: str) -> str:
    return _status("Not trained", "", 0, sentence)


def _status(title: str, text: str, share: float, *advice: str) -> str:
    advised = "".join(_advice(sentence) for sentence in advice if sentence)
    return f"<div class='status'><b>{title}</b> {html.escape(text)}{_bar(share)}{advised}</div>"


def _choices(lab: Lab, visitor: str, chosen: Path | None) -> list[Any]:
    """The two lists of checkpoints: the visitor's runs, and those with the bundled ones to classify with."""
    runs = [(_title(folder), folder.name) for folder in itertools.islice(lab.runs_of(visitor), 50)]
    own = chosen.name if chosen else (runs[0][1] if runs else None)
    shipped = [(f"{name}, comes with the app", name) for name in bundled()]
    there = [key for _, key in runs + shipped]
    classifier = own or (there[0] if there else None)
    return [gr.update(choices=runs, value=own), gr.update(choices=runs + shipped, value=classifier)]


def _title(folder: Path) -> str:
    run = _read(folder)
    if run is None:
        return f"damaged run {folder.name[:6]}"
    accuracy = f"{run.best.test_accuracy:.1%}" if run.best else "new"
    return f"{run.config.optimizer}, {run.config.scheduler}, {run.epoch} of {run.config.epochs} epochs: {accuracy}"


def _table_row(row: EpochEnded, best: bool) -> str:
    def shown(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    cells = (
        f"{row.epoch}{' ★' if best else ''}",
        shown(row.train_loss, ".4f"),
        shown(row.test_loss, ".4f"),
        shown(row.test_accuracy, ".2%"),
        shown(row.lr, ".3g"),
        shown(row.seconds, ".1f"),
        shown(row.images_per_second, ",.0f"),
    )
    return f"<tr{' class=best' if best else ''}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _advice(sentence: str) -> str:
    return f"<div class='advice'>{html.escape(sentence)}</div>"


def _bar(share: float) -> str:
    percent = 100 * min(1.0, max(0.0, share))
    return (
        f"<div class='track' role='progressbar' aria-valuemin='0' aria-valuemax='100' aria-valuenow='{percent:.0f}'>"
        f"<div class='fill' style='width:{percent:.2f}%'></div></div>"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _made(folder: str) -> str:
    Path(folder).mkdir(parents=True, exist_ok=True)
    return folder
