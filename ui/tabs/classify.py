"""The Classify tab: the classes that a trained network predicts for a picture."""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
import torch
from anyio import CapacityLimiter, to_thread

from trainer.errors import UserError
from trainer.images.image_data import ImageData
from trainer.networks.model import OptimizerLabModel
from trainer.networks.predict import Prediction
from trainer.networks.predict import classify as classify_picture
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts.checkpoints import open_model
from ui.parts.markup import advice
from ui.parts.messages import Updates
from ui.parts.shared import AT_ONCE, PRIVATE, Shared, components
from ui.uploads import uploaded

# How many pictures are decoded and classified at a time: a large one takes memory. Waiting for the Hub does not count.
_AT_A_TIME = CapacityLimiter(4)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The components of the answer: a sentence, the likeliest classes, and the picture as the network gets it."""

    says: gr.HTML
    label: gr.Label
    seen: gr.Image


def build(lab: Lab, shared: Shared) -> None:
    """Adds the content of the tab and its events to the page being built."""
    network = shared.lists.networks
    with gr.Row():
        with gr.Column(min_width=300):
            network.render()
            picture = picture_input(height=300, elem_id="picture")
        with gr.Column(min_width=300):
            answer = Answer(
                says=gr.HTML(invitation("en"), elem_id="says"),
                label=gr.Label(num_top_classes=5, label=i18n("What the network thinks"), elem_id="label"),
                seen=gr.Image(
                    label=i18n("What the network really sees"),
                    format="png",
                    interactive=False,
                    height=260,
                    buttons=[],
                    elem_id="seen",
                ),
            )
    or_a_sample = i18n("Or pick a test picture (only runs with train_split = test were trained on these):")
    gr.HTML("<div class='note'>" + or_a_sample + "</div>")
    gallery = samples_gallery(lab, picture, columns=10, elem_id="samples", api_name="_sample")

    def load() -> Iterator[Updates]:
        says: Updates = {answer.says: invitation(current_language())}
        for images in lab.until_loaded():
            yield {**says, gallery: samples(images)}
            says = {}  # only once: the visitor may have classified a picture since

    shared.page.load(load, None, [answer.says, gallery], api_name="_load_samples", **AT_ONCE)
    gr.on(
        [picture.change, network.change],
        partial(classify, lab, answer),
        inputs_kwargs={"picture": picture, "name": network},
        outputs=components(answer),
        preprocess=False,
        api_name="_classify",
        concurrency_limit=None,
        **PRIVATE,
    )


def picture_input(*, height: int, elem_id: str) -> gr.Image:
    """Adds the input for a visitor's picture to the page being built.

    Its handlers have `preprocess=False` and pass the file to `uploaded`: gr.Image would open an untrusted picture with
    Pillow.
    """
    return gr.Image(
        label=i18n("Your picture"),
        sources=["upload", "webcam", "clipboard"],
        type="filepath",
        format="png",
        image_mode=None,
        height=height,
        buttons=[],
        elem_id=elem_id,
    )


def samples_gallery(lab: Lab, picture: gr.Image, *, columns: int, elem_id: str, api_name: str) -> gr.Gallery:
    """Adds the gallery of test pictures to the page being built; a click makes one of them the picture."""
    gallery = gr.Gallery(
        show_label=False,
        columns=columns,
        height=150,
        object_fit="contain",
        allow_preview=False,
        buttons=[],
        format="png",
        elem_id=elem_id,
    )

    def press(event: gr.SelectData) -> Any:
        return sample(lab, event.index)

    gallery.select(press, None, picture, api_name=api_name, **AT_ONCE)
    return gallery


def invitation(language: str) -> str:
    """The sentence to show without a picture, as HTML."""
    choose = translate("Choose a picture: a file, the webcam, the clipboard, or a test picture below.", language)
    only = translate(
        "A network knows only the classes it was trained on, and takes every picture for one of them.", language
    )
    return f"<div class='status'>{choose} <span class='quiet'>{only}</span></div>"


async def classify(lab: Lab, answer: Answer, picture: Any, name: str | None) -> Updates:
    """Updates that show the predictions of the chosen checkpoint for a picture.

    An error is shown in place of the sentence, not as a message, so that it stays as long as the picture.
    """
    language = current_language()
    if picture is None:
        return {answer.says: invitation(language), answer.label: None, answer.seen: None}
    try:
        if not name:
            raise UserError("There is no trained network yet: press Train, and come back after the first epoch.")
        model, seen = await look(lab, picture, name)
    except UserError as error:
        explained = f"<div class='status'>{advice(translate(str(error), language))}</div>"
        return {answer.says: explained, answer.label: None, answer.seen: None}
    return {
        answer.says: _sentence(model, seen, language),
        answer.label: seen.confidences,
        answer.seen: seen.seen.permute(1, 2, 0).numpy(),
    }


def _sentence(model: OptimizerLabModel, seen: Prediction, language: str) -> str:
    likely = seen.confidences[seen.label]
    sure = translate("It says" if likely > 0.5 else "It is not sure; its best guess is", language)
    only = translate(
        "It knows only these {count} classes: {names}. It takes every picture for one of them.",
        language,
        count=len(model.class_names),
        names=", ".join(model.class_names),
    )
    sentence = f"{sure} <b>{html.escape(seen.label)}</b>, {likely:.1%}. <span class='quiet'>{html.escape(only)}</span>"
    return f"<div class='status'>{sentence}</div>"


async def look(lab: Lab, picture: Any, name: Any) -> tuple[OptimizerLabModel, Prediction]:
    """The network of a name (see `open_model`), and its prediction for an uploaded picture.

    Raises UserError if the network cannot be opened or the picture cannot be read.
    """
    file = uploaded(picture)
    model = await open_model(lab, name)
    return model, await to_thread.run_sync(classify_picture, model, file, limiter=_AT_A_TIME)


def sample(lab: Lab, index: int) -> Any:
    """The test picture at an index of the gallery, uint8 [size, size, 3]; None if there is none."""
    pictures = samples(lab.images)
    return pictures[index][0] if index in range(len(pictures)) else None


def samples(images: ImageData | None) -> list[tuple[Any, str]]:
    """The first test picture, uint8 [size, size, 3], and the name of each of the first ten classes."""
    found: list[tuple[Any, str]] = []
    if images is None:
        return found
    for label, name in enumerate(images.class_names[:10]):
        indices = torch.nonzero(images.test.labels == label)
        if len(indices):
            found.append((images.test.images[int(indices[0])].permute(1, 2, 0).numpy(), name))
    return found
