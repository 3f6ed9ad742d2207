"""The view of a run over time: at each epoch, its answer for a picture, its filters, its layers and its mistakes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from trainer.errors import UserError
from trainer.images.picture import read_picture, torchvision
from trainer.insight import timeline
from trainer.insight.mistakes import sample
from trainer.insight.timeline import Gap, Moment, Timeline
from trainer.runs.comparison import compare
from trainer.runs.events import LayersMeasured
from trainer.runs.layers import read_layers
from ui.charts import run_charts
from ui.charts.inside.time_machine import HEIGHT, bars_chart, class_colors, lines_chart, score_rows, scores_chart
from ui.charts.live import SMALL, live_chart
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts.markup import advice, note
from ui.parts.messages import Updates
from ui.parts.pictures import picture_input, sample_picture, samples, samples_gallery
from ui.parts.run.checkpoints import in_hub_thread, in_thread, open_layers, open_timeline
from ui.parts.run.run_list import download_path
from ui.parts.run.run_view import NUM_CLASSES
from ui.parts.shared import AT_ONCE, Inputs, Shared, components
from ui.run_index import is_key
from ui.server.uploads import uploaded
from ui.tabs.inside.choice import Choice, Picture, check_is_run, checked, single
from ui.tabs.inside.time_machine.frames import machine_value

NAME = "time-machine"

# A picture that the app chooses changes twice: the browser adds its address.
_SECONDS_BEFORE_START = 0.3
_SECONDS_BETWEEN_UPDATES = 0.4
_NUM_PICTURES = 300  # test pictures that each epoch's network classifies

# A class for a chart without data. One that is not `visible` would forget the epoch that the slider has fed in.
_HIDDEN = "hidden-chart"

T = TypeVar("T")

_MACHINE = """<div class="machine" hidden>
  <div class="now"><canvas></canvas><div><b class="name"></b><div class="says"></div></div></div>
  <div class="drive"><button type="button"></button><input type="range" min="0" step="1"></div>
</div>"""
_FILTERS = """<canvas role="img"></canvas><p class="changed"></p><p class="note what"></p>"""
_LAYERS = """<p class="changed"></p><div class="epochs race"><table></table></div>"""


@dataclass(frozen=True, kw_only=True)
class Journey:
    """The components that a walk fills: a sentence, the machine with its controls, and the charts."""

    says: gr.HTML
    machine: gr.HTML
    lines: gr.HTML
    bars: gr.HTML
    accuracy: gr.HTML
    scores: gr.HTML

    def explain(self, says: str) -> Updates:
        """Updates that show a sentence, as HTML, and no epochs: without frames machine.js hides the charts."""
        return {self.says: says, self.machine: {}}


@dataclass
class Walks:
    """What one open page has walked through; a gr.State keeps it.

    `latest` counts the walks, which may run at the same time. `scores` has the mistakes of the epochs of the run
    `scored`: they do not depend on the visitor's picture.
    """

    latest: int = 0
    scored: tuple[Any, ...] = ()
    scores: dict[int, list[dict[str, Any]]] = field(default_factory=dict)


def build(lab: Lab, shared: Shared, choice: Choice) -> None:
    """Adds the view and its events to the page being built."""
    with gr.Row(elem_id="time-machine"):
        with gr.Column(scale=3, min_width=280, elem_id="travel"):
            run = gr.Dropdown([], label=i18n("Run"), visible=False, elem_id="travelled")
            picture = picture_input(height=220, elem_id="travel-picture")
            gr.HTML("<div class='note'>" + i18n("Or a test picture:") + "</div>")
            gallery = samples_gallery(lab, picture, columns=5, elem_id="travel-samples", api_name="_travel_sample")
        with gr.Column(scale=7, min_width=320, elem_id="journey"):
            journey = _build_journey()
    inputs: Inputs = {"run": run, "picture": picture, "walks": gr.State(Walks())}
    outputs = [journey, run, picture, gallery]
    opening = partial(open_view, lab, journey, run, picture, gallery)
    choice.on_change(opening, inputs, outputs, api_name="_travel", preprocess=False, trigger_mode="multiple")
    choice.picture.change(
        partial(open_picture, lab, run, picture, gallery),
        inputs_kwargs={"visitor": choice.visitor, "names": choice.runs, "requested": choice.picture},
        outputs=[run, picture, gallery],
        api_name="_travel_with",
        **AT_ONCE,
    )
    gr.on(
        [run.input, picture.change],
        partial(walk, lab, journey),
        inputs_kwargs={"visitor": choice.visitor, "names": choice.runs, **inputs},
        outputs=components(journey),
        preprocess=False,
        trigger_mode="multiple",
        api_name="_walk",
        **AT_ONCE,
    )


def _build_journey() -> Journey:
    machine = gr.HTML(
        {},
        html_template=_MACHINE,
        js_on_load=(Path(__file__).parent / "machine.js").read_text(encoding="utf-8"),
        elem_id="machine",
    )
    says = gr.HTML(elem_id="travel-says")
    empty = _charts(None, [], "en")
    with gr.Column(elem_id="moments"):
        with gr.Row():
            with gr.Column(scale=3, min_width=280):
                lines = live_chart(empty["lines"], height=HEIGHT, label="How sure the network was", elem_id="lines")
            with gr.Column(scale=2, min_width=260):
                bars = live_chart(empty["bars"], height=HEIGHT, label="How sure it was at this epoch", elem_id="bars")
        with gr.Row():
            with gr.Column(scale=3, min_width=280):
                accuracy = live_chart(
                    empty["accuracy"], height=SMALL, label="Test accuracy per epoch", elem_id="learned"
                )
                gr.HTML("", html_template=_LAYERS, js_on_load=None, elem_id="layer-figures")
            with gr.Column(scale=2, min_width=260):
                gr.HTML("", html_template=_FILTERS, js_on_load=None, elem_id="filters")
                scores = live_chart(
                    scores_chart([], [], "en"),
                    height=HEIGHT,
                    label="Mistakes at this epoch",
                    elem_id="epoch-mistakes",
                    elem_classes=_HIDDEN,
                )
    return Journey(says=says, machine=machine, lines=lines, bars=bars, accuracy=accuracy, scores=scores)


async def open_view(
    lab: Lab,
    journey: Journey,
    runs: gr.Dropdown,
    chosen_picture: gr.Image,
    gallery: gr.Gallery,
    *,
    visitor: Any,
    names: Any,
    view: Any,
    run: Any,
    picture: Any,
    walks: Walks,
) -> AsyncIterator[Updates]:
    """Yields updates that fill the view's lists and, as `walk` does, the epochs.

    A page without a picture gets the first test picture, whose event starts the walk.
    """
    if view != NAME:
        yield gr.skip()
        return
    updates: Updates = {gallery: samples(lab.images)}
    if isinstance(names, list) and names:
        updates[runs] = single(lab, visitor, names, run)[1]
    first = None if picture else sample_picture(lab, 0)
    if first is not None:
        yield {**updates, chosen_picture: first}
        return
    yield updates
    async for epochs in walk(lab, journey, visitor=visitor, names=names, run=run, picture=picture, walks=walks):
        yield epochs


def open_picture(
    lab: Lab,
    runs: gr.Dropdown,
    chosen_picture: gr.Image,
    gallery: gr.Gallery,
    *,
    visitor: Any,
    names: Any,
    requested: Picture | None,
) -> Updates:
    """Updates that choose a run and a test picture of the app, whose event starts the walk."""
    if requested is None:
        return gr.skip()
    images = lab.ready_images()
    # A name of its own, so that the component has changed even if it shows this picture already.
    path = download_path(f"{requested.token}.png")
    torchvision().io.write_png(images.test.images[requested.index].contiguous(), str(path))
    list_of_runs = single(lab, visitor, checked(names), requested.run)[1]
    return {runs: list_of_runs, chosen_picture: str(path), gallery: samples(images)}


async def walk(
    lab: Lab, journey: Journey, *, visitor: Any, names: Any, run: Any, picture: Any, walks: Walks
) -> AsyncIterator[Updates]:
    """Yields updates that show what each epoch's network predicts for the picture; each update adds epochs.

    A UserError is explained in place of the epochs. All inputs are checked, as a handcrafted request may send anything.
    An earlier walk of the same page ends without another update.
    """
    walks.latest += 1
    own = walks.latest
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
            choose = "Choose a picture: a file, the webcam, the clipboard, or a test picture below."
            yield journey.explain(note(translate(choose, language)))
            return
        yield {
            journey.says: note(translate("Finding the epochs", language)),
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
    more = True
    while more:
        try:
            found, more = await call(_some, steps)
        except UserError as error:  # the Hub is too slow
            left = epochs.epochs[len(seen) :]
            found, more = [Gap(epoch=epoch, reason=str(error)) for epoch in left], False
        seen += found
        yield await in_thread(partial(_show, more=more), journey, epochs, seen, name, language)
    async for updates in _walk_mistakes(lab, journey, epochs, seen, name, walks):
        yield updates


async def _walk_mistakes(
    lab: Lab, journey: Journey, epochs: Timeline, seen: Sequence[Moment | Gap], name: str, walks: Walks
) -> AsyncIterator[Updates]:
    """Yields updates that add the mistakes of each epoch; none if the networks do not fit the app's test pictures."""
    language, images = current_language(), lab.images
    moments = [step for step in seen if isinstance(step, Moment)]
    classes = tuple(class_colors(moments))
    key = (name, len(epochs.run.history), classes)
    if walks.scored != key:
        walks.scored, walks.scores = key, {}
    scores = walks.scores  # another walk may replace it
    left = [moment.epoch for moment in moments if moment.epoch not in scores]
    steps = timeline.walk_mistakes(epochs, left, sample(images, _NUM_PICTURES)) if images else iter(())
    call = in_thread if is_key(name) else in_hub_thread
    more = True
    while True:
        rows = [row for found in scores.values() for row in found]
        chart = await in_thread(scores_chart, rows, classes, language)
        yield {journey.scores: gr.update(value=chart, elem_classes=[] if rows else [_HIDDEN])}
        if not more:
            return
        try:
            found, more = await call(_some, steps)
        except UserError:  # the rest of the view is complete without mistakes
            return
        scores |= {epoch: score_rows(epoch, answers, classes) for epoch, answers in found}


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


def _show(
    journey: Journey, epochs: Timeline, seen: Sequence[Moment | Gap], name: str, language: str, *, more: bool
) -> Updates:
    """Updates that show the steps `seen` so far; with `more`, the walk continues."""
    moments = [step for step in seen if isinstance(step, Moment)]
    gaps = [step for step in seen if isinstance(step, Gap)]
    if more:
        progress = translate("epoch {epoch} of {epochs}", language, epoch=seen[-1].epoch, epochs=epochs.epochs[-1])
        says = note(progress)
    else:
        says = _left_out(gaps, language)
    if not moments:
        return journey.explain(says)
    charts = _charts(epochs, moments, language)
    return {
        journey.says: says,
        journey.machine: machine_value(epochs.run, moments, name, language, more=more),
        **{getattr(journey, chart): value for chart, value in charts.items()},
    }


def _charts(epochs: Timeline | None, moments: Sequence[Moment], language: str) -> dict[str, Any]:
    """The charts that a walk fills first, by name; empty ones without a timeline."""
    last = max(epochs.epochs[-1], epochs.run.epoch, 1) if epochs else 1
    accuracy = run_charts.accuracy_chart(
        compare([epochs.run] if epochs else []),
        epochs=last,
        num_classes=len(moments[0].class_names) if moments else NUM_CLASSES,
        height=SMALL,
        language=language,
    )
    return {
        "lines": lines_chart(moments, last, language),
        "bars": bars_chart(moments, language),
        "accuracy": accuracy,
    }


def _left_out(gaps: Sequence[Gap], language: str) -> str:
    if not gaps:
        return note("")
    template = "Epoch {epoch} is left out: {reason}"
    if len(gaps) > 1:
        template = "{count} epochs are left out, the first is epoch {epoch}: {reason}"
    sentence = translate(template, language, count=len(gaps), epoch=gaps[0].epoch, reason=gaps[0].reason)
    return advice(sentence)
