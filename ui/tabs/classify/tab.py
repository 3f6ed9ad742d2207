"""The Classify tab: the classes that a trained network predicts for a picture."""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from anyio import to_thread

from trainer.errors import UserError
from trainer.networks.model import OptimizerLabModel
from trainer.networks.predict import Prediction
from trainer.networks.predict import classify as classify_picture
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts.markup import advice
from ui.parts.messages import Updates, with_page_errors
from ui.parts.pictures import AT_A_TIME, picture_input, samples, samples_gallery
from ui.parts.run.checkpoints import open_model
from ui.parts.shared import AT_ONCE, PRIVATE, Inputs, Shared, components, sent_with
from ui.server.uploads import uploaded
from ui.tabs.classify import several
from ui.tabs.classify.why import seen_only, why


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The components of the answer: a sentence, the likeliest classes, and where the network looked.

    `given` holds the name of the network and its Prediction, or None.
    """

    says: gr.HTML
    label: gr.Label
    looks: gr.HTML
    given: gr.State


def build(lab: Lab, tab: gr.Tab, shared: Shared) -> None:
    """Adds the content of the tab and its events to the page being built; opening the tab fills its gallery."""
    network = shared.lists.networks
    with gr.Row():
        with gr.Column(min_width=300):
            network.render()
            picture = picture_input(height=300, elem_id="picture")
            or_a_sample = i18n("Or pick a test picture (only runs with train_split = test were trained on these):")
            gr.HTML("<div class='note'>" + or_a_sample + "</div>")
            gallery = samples_gallery(lab, picture, columns=5, elem_id="samples", api_name="_sample")
        with gr.Column(min_width=300):
            answer = Answer(
                says=gr.HTML(invitation("en"), elem_id="says"),
                label=gr.Label(num_top_classes=5, label=i18n("What the network thinks"), elem_id="label"),
                looks=gr.HTML(elem_id="looks"),
                given=gr.State(None),
            )
    several.build(lab, shared)

    def invite() -> str:
        return invitation(current_language())

    def fill() -> Iterator[Any]:
        yield from map(samples, lab.until_loaded())

    shared.page.load(invite, None, answer.says, api_name="_load_invitation", **AT_ONCE)
    tab.select(fill, None, gallery, api_name="_load_samples", **AT_ONCE)
    classified = gr.on(
        [picture.change, network.change],
        partial(classify, lab, answer),
        inputs_kwargs={"picture": picture, "name": network},
        outputs=components(answer),
        preprocess=False,
        api_name="_classify",
        concurrency_limit=None,
        **PRIVATE,
    )
    given: Inputs = {"given": answer.given}
    classified.success(
        partial(explain, lab, answer), inputs_kwargs=dict(given), outputs=answer.looks, api_name="_why", **AT_ONCE
    )

    async def press(given: Any, event: gr.EventData) -> Updates:
        return await explain(lab, answer, given=given, label=sent_with(event, "value"))

    answer.label.select(
        press,
        inputs_kwargs=dict(given),
        outputs=answer.looks,
        trigger_mode="always_last",
        api_name="_why_class",
        **AT_ONCE,
    )


def invitation(language: str) -> str:
    """The sentence to show without a picture, as HTML."""
    choose = translate("Choose a picture: a file, the webcam, the clipboard, or a test picture.", language)
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
        return _nothing(answer, invitation(language))
    try:
        if not name:
            raise UserError("There is no trained network yet: press Train, and come back after the first epoch.")
        model, seen = await look(lab, picture, name)
    except UserError as error:
        return _nothing(answer, f"<div class='status'>{advice(translate(str(error), language))}</div>")
    return {
        answer.says: _sentence(model, seen, language),
        answer.label: seen.confidences,
        answer.looks: seen_only(seen, language),
        answer.given: (name, seen),
    }


def _nothing(answer: Answer, says: str) -> Updates:
    return {answer.says: says, answer.label: None, answer.looks: "", answer.given: None}


@with_page_errors
async def explain(lab: Lab, answer: Answer, *, given: Any, label: Any = None) -> Updates:
    """Updates that show where the network looked for the class `label`, or for its answer."""
    if given is None:
        return gr.skip()
    name, prediction = given
    model = await open_model(lab, name)
    chosen = label if label in model.class_names else prediction.label
    looks = await to_thread.run_sync(why, model, prediction, chosen, current_language(), limiter=AT_A_TIME)
    return {answer.looks: looks}


def _sentence(model: OptimizerLabModel, seen: Prediction, language: str) -> str:
    sure = translate("It is not sure; its best guess is" if seen.is_unsure else "It says", language)
    unsure = translate(
        "The picture may show nothing that it knows: the app's own networks are surer on nine of ten test pictures.",
        language,
    )
    only = translate(
        "It knows only these {count} classes: {names}. It takes every picture for one of them.",
        language,
        count=len(model.class_names),
        names=", ".join(model.class_names),
    )
    sentence = f"{sure} <b>{html.escape(seen.label)}</b>, {seen.confidences[seen.label]:.1%}."
    more = html.escape(f"{unsure} {only}" if seen.is_unsure else only)
    return f"<div class='status'>{sentence} <span class='quiet'>{more}</span></div>"


async def look(lab: Lab, picture: Any, name: Any) -> tuple[OptimizerLabModel, Prediction]:
    """The network of a name (see `open_model`), and its prediction for an uploaded picture.

    Raises UserError if the network cannot be opened or the picture cannot be read.
    """
    file = uploaded(picture)
    model = await open_model(lab, name)
    return model, await to_thread.run_sync(classify_picture, model, file, limiter=AT_A_TIME)
