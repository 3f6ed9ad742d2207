"""A walk through the epochs of a run: what each network predicts for a picture, and what it mistakes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import gradio as gr

from trainer.errors import UserError
from trainer.images.picture import read_picture
from trainer.insight import timeline
from trainer.insight.mistakes import Answers, sample
from trainer.insight.timeline import Gap, Moment, Timeline
from trainer.runs.events import LayersMeasured
from trainer.runs.layers import read_layers
from ui.charts.inside.time_machine import class_colors, score_rows
from ui.i18n.language import current_language
from ui.i18n.words import translate
from ui.lab import Lab
from ui.parts.markup import advice, note
from ui.parts.messages import Updates
from ui.parts.run.checkpoints import in_hub_thread, in_thread, open_layers, open_timeline
from ui.run_index import is_key
from ui.server.uploads import uploaded
from ui.tabs.inside.choice import check_is_run, checked, images_of
from ui.tabs.inside.time_machine.journey import Journey

# A picture that the app chooses changes twice: the browser adds its address.
_SECONDS_BEFORE_START = 0.3
_SECONDS_BETWEEN_UPDATES = 0.4
_NUM_PICTURES = 300  # test pictures that each epoch's network classifies

_CLASSIFYING = "Classifying the picture: epoch {epoch} of {epochs}"
_CLASSIFYING_SOME = "Classifying some test pictures: epoch {epoch} of {epochs}"
_STOPPED = "Stopped at epoch {epoch} of {epochs}."

T = TypeVar("T")


@dataclass
class Walks:
    """What one open page has walked through; a gr.State keeps it.

    `latest` counts the walks, which may run at the same time; the visitor has stopped the one with the number
    `stopped`. `scores` has the mistakes of the epochs of the run `scored`: they do not depend on the visitor's picture.
    """

    latest: int = 0
    stopped: int = 0
    scored: tuple[Any, ...] = ()
    scores: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    def begin(self) -> int:
        """Returns the number of a new walk, which ends the others."""
        self.latest += 1
        return self.latest

    @property
    def is_stopped(self) -> bool:
        """Whether the visitor has stopped the latest walk."""
        return self.stopped == self.latest


def stop(walks: Walks) -> None:
    """Lets the latest walk end before its next epoch."""
    walks.stopped = walks.latest


async def walk(
    lab: Lab,
    journey: Journey,
    *,
    visitor: Any,
    names: Any,
    run: Any,
    picture: Any,
    walks: Walks,
    number: int | None = None,
) -> AsyncIterator[Updates]:
    """Yields updates that show what each epoch's network predicts for the picture; each update adds epochs.

    A UserError is explained in place of the epochs. All inputs are checked, as a handcrafted request may send anything.
    An earlier walk of the same page ends without another update; `number` is that of a walk that has begun already.
    """
    own = number or walks.begin()
    await asyncio.sleep(_SECONDS_BEFORE_START)
    if walks.latest != own:
        yield gr.skip()
        return
    async for updates in _walk(lab, journey, visitor, names, run, picture, walks):
        if walks.latest != own:
            yield gr.skip()  # Gradio sends the last update again at the end
            return
        yield updates


async def _walk(
    lab: Lab, journey: Journey, visitor: Any, names: Any, run: Any, picture: Any, walks: Walks
) -> AsyncIterator[Updates]:
    language = current_language()
    try:
        names = checked(names)
        name = run if run in names else names[0]
        check_is_run(name)
        if picture is None:
            choose = "Choose a picture: a file, the webcam, the clipboard, or a test picture."
            yield journey.explain(note(translate(choose, language)))
            return
        yield {
            **journey.say(note(translate("Finding the epochs", language))),
            **({} if walks.scored[:1] == (name,) else journey.show_scores([], [], language)),
            journey.machine: {"run": name, "waiting": True},
        }
        call = in_thread if is_key(name) else in_hub_thread
        pixels = await in_thread(read_picture, uploaded(picture))
        epochs = await call(_timeline, lab, visitor, name)
    except UserError as error:
        yield journey.explain(advice(translate(str(error), language)))
        return
    steps = timeline.walk(epochs, pixels)
    seen: list[Moment | Gap] = []
    moments: list[Moment] = []
    more = True
    while more:
        try:
            found, more = await call(_some, steps)
        except UserError as error:  # the Hub is too slow
            left = epochs.epochs[len(seen) :]
            found, more = [Gap(epoch=epoch, reason=str(error)) for epoch in left], False
        seen += found
        moments += [step for step in found if isinstance(step, Moment)]
        more = more and not walks.is_stopped
        says = _progress(_CLASSIFYING, seen[-1].epoch, epochs, language) if more else _outcome(seen, epochs, language)
        shown = partial(journey.show_epochs, more=more)
        charts = await in_thread(shown, epochs, moments, name, language) if moments else {journey.machine: {}}
        yield {**journey.say(says, more=more), **charts}
    if len(seen) < len(epochs.epochs):
        return
    async for updates in _walk_mistakes(lab, journey, visitor, epochs, moments, name, walks):
        yield {**journey.say(_outcome(seen, epochs, language)), **updates}


async def _walk_mistakes(
    lab: Lab,
    journey: Journey,
    visitor: Any,
    epochs: Timeline,
    moments: Sequence[Moment],
    name: str,
    walks: Walks,
) -> AsyncIterator[Updates]:
    """Yields updates that add the mistakes of each epoch; none if the networks do not fit the run's test pictures."""
    language = current_language()
    classes = tuple(class_colors(moments))
    key = (name, len(epochs.run.history), classes)
    if walks.scored != key:
        walks.scored, walks.scores = key, {}
    scores = walks.scores  # another walk may replace it
    left = [moment.epoch for moment in moments if moment.epoch not in scores]
    call = in_thread if is_key(name) else in_hub_thread
    steps = _answers(lab, visitor, name, epochs, left)
    more, epoch = bool(left), epochs.epochs[0]
    while True:
        rows = [row for found in scores.values() for row in found]
        updates = await in_thread(journey.show_scores, rows, classes, language)
        is_stopped = more and walks.is_stopped
        if is_stopped:
            updates |= journey.say(_progress(_STOPPED, epoch, epochs, language))
        elif more:
            updates |= journey.say(_progress(_CLASSIFYING_SOME, epoch, epochs, language), more=True)
        yield updates
        if is_stopped or not more:
            return
        try:
            answered, more = await call(_some, steps)
        except UserError:  # the rest of the view is complete without mistakes
            answered, more = [], False
        for epoch, answers in answered:
            scores[epoch] = score_rows(epoch, answers, classes)


def _answers(
    lab: Lab, visitor: Any, name: str, epochs: Timeline, chosen: Sequence[int]
) -> Iterator[tuple[int, Answers]]:
    """Yields the chosen epochs with their networks' answers for some test pictures. Raises UserError if none fit."""
    yield from timeline.walk_mistakes(epochs, chosen, sample(images_of(lab, visitor, name), _NUM_PICTURES))


def _progress(template: str, epoch: int, epochs: Timeline, language: str) -> str:
    return note(translate(template, language, epoch=epoch, epochs=epochs.epochs[-1]))


def _outcome(seen: Sequence[Moment | Gap], epochs: Timeline, language: str) -> str:
    """The sentence after a walk: at which epoch it was stopped, or which epochs it left out."""
    if len(seen) < len(epochs.epochs):
        return _progress(_STOPPED, seen[-1].epoch, epochs, language)
    gaps = [step for step in seen if isinstance(step, Gap)]
    if not gaps:
        return note("")
    template = "Epoch {epoch} is left out: {reason}"
    if len(gaps) > 1:
        template = "{count} epochs are left out, the first is epoch {epoch}: {reason}"
    sentence = translate(template, language, count=len(gaps), epoch=gaps[0].epoch, reason=gaps[0].reason)
    return advice(sentence)


def _timeline(lab: Lab, visitor: Any, name: str) -> Timeline:
    if is_key(name):
        folder = lab.runs.own_run(visitor, name)
        return _with_layers(timeline.of_folder(folder), partial(read_layers, folder))

    name = name.strip()
    return _with_layers(open_timeline(name), partial(open_layers, name))


def _with_layers(epochs: Timeline, read: Callable[[], list[LayersMeasured]]) -> Timeline:
    """The timeline with what was measured in the layers of its run, if anything was."""
    with suppress(UserError):
        return replace(epochs, run=replace(epochs.run, layers=read()))
    return epochs


def _some(steps: Iterator[T]) -> tuple[list[T], bool]:
    """The steps of a walk until the next update is due, and whether there may be more."""
    start, found = time.monotonic(), list[T]()
    for step in steps:
        found.append(step)
        if time.monotonic() - start > _SECONDS_BETWEEN_UPDATES:
            return found, True
    return found, False
