"""The view of a run over time: at each epoch, its answer for a picture, its filters, its layers and its mistakes."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import gradio as gr

from trainer.images.picture import torchvision
from ui.i18n.words import i18n
from ui.lab import Lab
from ui.parts.messages import Updates
from ui.parts.pictures import picture_input, sample_picture, samples, samples_gallery
from ui.parts.run.run_list import download_path
from ui.parts.shared import AT_ONCE, Inputs, Shared, components
from ui.tabs.inside.choice import Choice, Picture, checked, images_of, single
from ui.tabs.inside.time_machine.journey import Journey, build_journey
from ui.tabs.inside.time_machine.walk import Walks, stop, walk

NAME = "time-machine"


def build(lab: Lab, shared: Shared, choice: Choice) -> None:
    """Adds the view and its events to the page being built."""
    with gr.Row(elem_id="time-machine"):
        with gr.Column(scale=3, min_width=280, elem_id="travel"):
            run = gr.Dropdown([], label=i18n("Run"), visible=False, elem_id="travelled")
            picture = picture_input(height=220, elem_id="travel-picture")
            gr.HTML("<div class='note'>" + i18n("Or a test picture:") + "</div>")
            gallery = samples_gallery(lab, picture, columns=5, elem_id="travel-samples", api_name="_travel_sample")
        with gr.Column(scale=7, min_width=320, elem_id="journey"):
            journey = build_journey()
    walks = gr.State(Walks())
    inputs: Inputs = {"run": run, "picture": picture, "walks": walks}
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
    journey.stop.click(stop, walks, None, api_name="_stop_walk", **AT_ONCE)


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
    number = walks.begin()  # before the page gets the lists, which takes time: the choice may change meanwhile
    updates: Updates = {gallery: samples(lab.images)}
    if isinstance(names, list) and names:
        updates[runs] = single(lab, visitor, names, run)[1]
    first = None if picture else sample_picture(lab, 0)
    if first is not None:
        yield {**updates, chosen_picture: first}
        return
    yield updates
    chosen = {"visitor": visitor, "names": names, "run": run, "picture": picture}
    async for epochs in walk(lab, journey, **chosen, walks=walks, number=number):
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
    """Updates that choose a run and one of its test pictures, whose event starts the walk."""
    if requested is None:
        return gr.skip()
    list_of_runs = single(lab, visitor, checked(names), requested.run)[1]
    images = images_of(lab, visitor, requested.run)
    # A path of its own, so that the component has changed even if it shows this picture already.
    path = download_path("picture.png")
    torchvision().io.write_png(images.test.images[requested.index].contiguous(), str(path))
    return {runs: list_of_runs, chosen_picture: str(path), gallery: samples(lab.images)}
