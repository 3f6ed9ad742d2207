"""The Time machine tab: what the network of a run predicts for one picture after each epoch."""

import base64
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from trainer.errors import UserError
from trainer.hub import repositories, retry
from trainer.images.picture import read_picture
from trainer.insight import timeline
from trainer.insight.timeline import Gap, Moment, Timeline
from trainer.networks.model import OptimizerLabModel
from trainer.runs.comparison import compare
from trainer.runs.run import Run
from ui.charts import run_charts
from ui.charts.live import SMALL, live_chart
from ui.charts.time_machine import HEIGHT, bars_chart, class_colors, lines_chart, shares
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.login import own_token
from ui.parts import run_list
from ui.parts.checkpoints import in_hub_thread, in_thread, open_published
from ui.parts.markup import advice, note
from ui.parts.messages import Updates
from ui.parts.run_view import NUM_CLASSES
from ui.parts.shared import AT_ONCE, Shared, components
from ui.run_index import is_key
from ui.tabs import classify
from ui.uploads import uploaded

_SECONDS_BETWEEN_UPDATES = 0.4

_MACHINE = """<div class="machine" hidden>
  <div class="now"><canvas></canvas><div><b class="name"></b><div class="says"></div></div></div>
  <div class="drive"><button type="button"></button><input type="range" min="0" step="1"></div>
</div>"""
_FILTERS = """<canvas role="img"></canvas><p class="changed"></p><p class="note what"></p>"""


@dataclass(frozen=True, kw_only=True)
class Journey:
    """The components that a walk fills: a sentence, the machine with its controls, and the charts."""

    says: gr.HTML
    machine: gr.HTML
    lines: gr.HTML
    bars: gr.HTML
    accuracy: gr.HTML

    def explain(self, says: str) -> Updates:
        """Updates that show a sentence, as HTML, and no epochs: without frames time_machine.js hides the charts."""
        return {self.says: says, self.machine: {}}


def build(lab: Lab, tab: gr.Tab, shared: Shared) -> None:
    """Adds the content of the tab and its events to the page being built; opening the tab fills it."""
    with gr.Row(elem_id="time-machine"):
        with gr.Column(scale=3, min_width=280, elem_id="travel"):
            run = gr.Dropdown(
                [],
                label=i18n("Run"),
                info=i18n("One of your runs. Or type the name of a published one: owner/name."),
                allow_custom_value=True,
                elem_id="travelled",
            )
            picture = classify.picture_input(height=220, elem_id="travel-picture")
            gr.HTML("<div class='note'>" + i18n("Or a test picture:") + "</div>")
            gallery = classify.samples_gallery(
                lab, picture, columns=5, elem_id="travel-samples", api_name="_travel_sample"
            )
        with gr.Column(scale=7, min_width=320, elem_id="journey"):
            journey = _build_journey()

    def fill(visitor: Any, name: Any) -> Updates:
        return {run: list_runs(lab, visitor, name), gallery: classify.samples(lab.images)}

    num_opened = gr.State(0)  # how often the tab was opened with a picture chosen, or with none to choose

    def choose_picture(chosen: Any, times: int) -> Updates:
        first = None if chosen else classify.sample(lab, 0)
        return {num_opened: times + 1} if first is None else {picture: first}

    options: dict[str, Any] = {"preprocess": False, **AT_ONCE}
    filled = tab.select(
        fill,
        inputs_kwargs={"visitor": shared.visitor, "name": run},
        outputs=[run, gallery],
        api_name="_travel",
        **options,
    )
    # After the run is set: it changes either the picture or the state, which starts a walk with the page's run.
    filled.success(
        choose_picture,
        inputs_kwargs={"chosen": picture, "times": num_opened},
        outputs=[picture, num_opened],
        api_name="_travel_picture",
        **options,
    )
    gr.on(
        [run.input, picture.change, num_opened.change],
        partial(walk, lab, journey),
        inputs_kwargs={"visitor": shared.visitor, "name": run, "picture": picture, "turn": gr.State([0])},
        outputs=components(journey),
        trigger_mode="multiple",
        api_name="_walk",
        **options,
    )


def _build_journey() -> Journey:
    machine = gr.HTML(
        {},
        html_template=_MACHINE,
        js_on_load=(Path(__file__).parent / "time_machine.js").read_text(encoding="utf-8"),
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
            with gr.Column(scale=2, min_width=260):
                gr.HTML("", html_template=_FILTERS, js_on_load=None, elem_id="filters")
    return Journey(says=says, machine=machine, lines=lines, bars=bars, accuracy=accuracy)


def list_runs(lab: Lab, visitor: Any, name: Any) -> Any:
    """The update of the list of the visitor's runs, which chooses the latest if no run is chosen."""
    runs = run_list.single_runs(lab, visitor)
    latest: dict[str, Any] = {} if name or not runs else {"value": runs[0][1]}
    return gr.update(choices=runs, **latest)


async def walk(
    lab: Lab, journey: Journey, *, visitor: Any, name: Any, picture: Any, turn: list[int]
) -> AsyncIterator[Updates]:
    """Yields updates that show what each epoch's network predicts for the picture; each update adds epochs.

    A UserError is explained in place of the epochs. All inputs are checked, as a handcrafted request may send anything.
    `turn` counts the walks of a page, which may run at the same time: an earlier walk ends without another update.
    """
    turn[0] += 1
    own_turn = turn[0]
    async for updates in _walk(lab, journey, visitor, name, picture):
        if turn[0] != own_turn:
            yield gr.skip()  # Gradio sends the last update again at the end
            return
        yield updates


async def _walk(lab: Lab, journey: Journey, visitor: Any, name: Any, picture: Any) -> AsyncIterator[Updates]:
    language = current_language()
    if name and picture is None:
        choose = "Choose a picture: a file, the webcam, the clipboard, or a test picture below."
        yield journey.explain(note(translate(choose, language)))
        return
    yield {
        journey.says: note(translate("Finding the epochs", language)),
        journey.machine: {"run": name, "waiting": True},
    }
    call = in_thread if is_key(name) else in_hub_thread
    try:
        if not name:
            raise UserError("Train a network first, or type the name of a published run, to see its epochs.")
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


def _timeline(lab: Lab, visitor: Any, name: Any) -> Timeline:
    if is_key(name) or not isinstance(name, str):
        return timeline.of_folder(lab.own_run(visitor, name))

    def open_model(repo_id: str, revision: str, **_: Any) -> OptimizerLabModel:
        return open_published(f"{repo_id}@{revision}", torch.device("cpu"))

    with retry.short_timeouts():
        repo_id, _ = repositories.split_revision(name.strip())
        return repositories.open_timeline(repo_id, token=own_token(), open_model=open_model)


def _some(steps: Iterator[Moment | Gap]) -> tuple[list[Moment | Gap], bool]:
    """The steps of a walk until the next update is due, and whether there may be more."""
    start, found = time.monotonic(), list[Moment | Gap]()
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
        journey.machine: _machine(epochs.run, moments, name, language, more=more),
        **{getattr(journey, chart): value for chart, value in charts.items()},
    }


def _charts(epochs: Timeline | None, moments: Sequence[Moment], language: str) -> dict[str, Any]:
    """The charts of a Journey, by name; empty ones without a timeline."""
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


def _machine(run: Run, moments: Sequence[Moment], name: str, language: str, *, more: bool) -> dict[str, Any]:
    """The value of the machine, which time_machine.js shows; it contains class names as text, never as HTML."""
    colors, (first, *_), latest = class_colors(moments), moments, moments[-1]
    count, _, side, _ = latest.filters.shape
    what = translate(
        "Each square is one of the {count} filters of the first layer, {side} pixels wide: the small pattern that it "
        "looks for everywhere in a picture. Grey means a weight of 0. Untrained filters are noise; training turns "
        "those that help to distinguish the classes into edges and spots of colour.",
        language,
        count=count,
        side=side,
    )
    return {
        "run": name,
        "more": more,
        "seen": _as_text(latest.prediction.seen.permute(1, 2, 0)),
        "seen_side": latest.prediction.seen.shape[-1],
        "frames": [
            {
                "epoch": moment.epoch,
                "name": translate("Epoch {epoch}", language, epoch=moment.epoch),
                "says": _sentence(run, moment, language),
                "shares": shares(moment, colors),
                "filters": _as_text(_as_pictures(moment.filters)),
                "filter_side": moment.filters.shape[-1],
                "num_filters": len(moment.filters),
                "changed": _changed(first, moment, language),
            }
            for moment in moments
        ],
        "words": {
            "play": translate("Play", language),
            "pause": translate("Pause", language),
            "slider": translate("epoch", language),
            "filters": what,
        },
    }


def _sentence(run: Run, moment: Moment, language: str) -> str:
    says = {"label": moment.prediction.label, "share": f"{moment.prediction.confidences[moment.prediction.label]:.1%}"}
    if moment.epoch >= len(run.history):
        return translate("It says {label}, {share}.", language, **says)
    return translate(
        "It says {label}, {share}. Its test accuracy is {accuracy}.",
        language,
        accuracy=f"{run.history[moment.epoch].test_accuracy:.1%}",
        **says,
    )


def _changed(first: Moment, moment: Moment, language: str) -> str:
    """How much the filters changed since the first epoch: the norm of the change relative to their norm then."""
    if moment.epoch == 0:
        return translate("The filters of the first layer, randomly initialized", language)
    if moment is first or moment.filters.shape != first.filters.shape:
        return translate("The filters of the first layer", language)
    change = float((moment.filters - first.filters).norm() / first.filters.norm().clamp(min=1e-12))
    return translate(
        "The filters of the first layer, changed since epoch {epoch} by {change} of their size",
        language,
        epoch=first.epoch,
        change=f"{change:.0%}",
    )


def _as_pictures(filters: torch.Tensor) -> torch.Tensor:
    """Filters as pictures, uint8 [filters, h, w, 3]: grey is 0, and weights are clipped at the 99th percentile.

    All filters of an epoch have the same scale, so that filters with small weights look grey.
    """
    large = filters.abs().flatten().quantile(0.99).clamp(min=1e-12)
    return (filters / large * 127.5 + 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)


def _as_text(pixels: torch.Tensor) -> str:
    return base64.b64encode(pixels.contiguous().numpy().tobytes()).decode()


def _left_out(gaps: Sequence[Gap], language: str) -> str:
    if not gaps:
        return note("")
    template = "Epoch {epoch} is left out: {reason}"
    if len(gaps) > 1:
        template = "{count} epochs are left out, the first is epoch {epoch}: {reason}"
    sentence = translate(template, language, count=len(gaps), epoch=gaps[0].epoch, reason=gaps[0].reason)
    return advice(sentence)
