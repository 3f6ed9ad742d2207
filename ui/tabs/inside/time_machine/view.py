"""The view of a run over time: at each epoch, its answer for a picture, its filters, its layers and its mistakes."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import gradio as gr
import torch
from torch import Tensor

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
            gallery, pressed = samples_gallery(
                lab, picture, columns=5, elem_id="travel-samples", api_name="_travel_sample"
            )
        with gr.Column(scale=7, min_width=320, elem_id="journey"):
            journey = build_journey()
    walks = gr.State(Walks())
    inputs: Inputs = {"run": run, "picture": picture, "walks": walks}
    outputs = [journey, run, picture, gallery]
    opening = partial(open_view, lab, journey, run, picture, gallery)
    choice.on_change(opening, inputs, outputs, api_name="_travel", preprocess=False, trigger_mode="multiple")
    requested = choice.picture.change(
        partial(open_picture, lab, run, picture, gallery),
        inputs_kwargs={"visitor": choice.visitor, "names": choice.runs, "requested": choice.picture},
        outputs=[run, picture, gallery],
        api_name="_travel_with",
        **AT_ONCE,
    )
    for api_name, event in {
        "_walk": run.input,
        "_walk_with_own": picture.input,
        "_walk_with_sample": pressed.success,
        "_walk_with_requested": requested.success,
    }.items():
        event(
            partial(walk, lab, journey),
            inputs_kwargs={"visitor": choice.visitor, "names": choice.runs, **inputs},
            outputs=components(journey),
            preprocess=False,
            trigger_mode="multiple",
            api_name=api_name,
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

    A page without a picture gets the first test picture.
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
        picture = updates[chosen_picture] = _picture_file(torch.from_numpy(first).permute(2, 0, 1))
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
    """Updates that choose a run and a test picture of the app."""
    if requested is None:
        return gr.skip()
    list_of_runs = single(lab, visitor, checked(names), requested.run)[1]
    images = images_of(lab, visitor, requested.run)
    file = _picture_file(images.test.images[requested.index])
    return {runs: list_of_runs, chosen_picture: file, gallery: samples(lab.images)}


def _picture_file(picture: Tensor) -> str:
    """The path of a PNG with a picture, uint8 [3, height, width]."""
    path = download_path("picture.png")
    torchvision().io.write_png(picture.contiguous(), str(path))
    return str(path)
