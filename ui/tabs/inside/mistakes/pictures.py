"""The test pictures in a field of the confusion matrix, or those for which two networks have different answers."""

import html
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.images.image_data import ImageData
from trainer.insight.mistakes import Answers
from ui.i18n.language import current_language
from ui.i18n.words import translate
from ui.lab import Lab
from ui.parts.markup import note
from ui.parts.messages import Updates, with_page_errors
from ui.parts.run.checkpoints import in_thread
from ui.stored_runs import bundled
from ui.tabs.inside.choice import Choice, Picture, checked, images_of
from ui.tabs.inside.mistakes.answers import answers_of, chosen_run
from ui.tabs.inside.time_machine.view import NAME as TIME_MACHINE

_MOST_PICTURES = 60  # in the gallery
_MOST_PROBABILITIES = 3  # of a picture


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The components that show pictures: what they are, and the gallery; `indices` holds their indices."""

    says: gr.HTML
    gallery: gr.Gallery
    indices: gr.State


def build_pictures() -> Pictures:
    """Adds the components to the page being built."""
    says = gr.HTML(elem_id="confusion-field")
    gallery = gr.Gallery(
        show_label=False,
        visible=False,
        columns=6,
        object_fit="contain",
        allow_preview=False,
        buttons=[],
        format="png",
        elem_id="confused-pictures",
    )
    return Pictures(says=says, gallery=gallery, indices=gr.State([]))


async def show_field(lab: Lab, pictures: Pictures, visitor: Any, names: Any, run: Any, pressed: Any) -> Updates:
    """Updates that show the pictures of a field of the matrix, "row column"."""
    language, name = current_language(), chosen_run(lab, names, run)
    answers = await answers_of(lab, visitor, name)
    count = len(answers.class_names)
    try:
        true, taken = (int(part) for part in str(pressed).split())
        if not (0 <= true < count and 0 <= taken < count):
            raise ValueError
    except ValueError:
        raise UserError("There is no such field.") from None
    indices = answers.pictures_in(true, taken)
    sentence = translate(
        "{count} pictures of {true} taken for {taken}, the surest first",
        language,
        count=len(indices),
        true=answers.class_names[true],
        taken=answers.class_names[taken],
    )
    captions = [_probabilities(answers, index) for index in indices[:_MOST_PICTURES]]
    images = await in_thread(images_of, lab, visitor, name)
    return _gallery(images, pictures, name, indices, captions, sentence)


@with_page_errors
async def show_differences(lab: Lab, pictures: Pictures, *, visitor: Any, names: Any, run: Any, other: Any) -> Updates:
    """Updates that show the pictures for which two networks have different answers."""
    language, names = current_language(), checked(names)
    if run not in names or other not in names:
        raise UserError("Choose two runs first.")
    one, two = await answers_of(lab, visitor, run), await answers_of(lab, visitor, other)
    if set(one.class_names) != set(two.class_names):
        raise UserError("The two networks know different classes.")
    images, others = [await in_thread(images_of, lab, visitor, name) for name in (run, other)]
    if images.digest != others.digest:
        raise UserError("The two networks were trained on different pictures.")
    indices = one.differs_from(two)
    right = sum(bool(one.predicted[index] == one.labels[index]) for index in indices)
    other_right = sum(bool(two.predicted[index] == two.labels[index]) for index in indices)
    sentence = translate(
        "The two disagree on {count} pictures: the first is right on {right} of them, the second on {other}.",
        language,
        count=len(indices),
        right=right,
        other=other_right,
    )
    captions = [
        f"{one.class_names[one.labels[index]]}: {_probabilities(one, index, 1)} / {_probabilities(two, index, 1)}"
        for index in indices[:_MOST_PICTURES]
    ]
    return _gallery(images, pictures, run, indices, captions, sentence)


def travel_with(lab: Lab, choice: Choice, names: Any, run: Any, indices: list[int], place: Any) -> Updates:
    """Updates that open the time machine with a displayed picture and its run."""
    name = chosen_run(lab, names, run)
    if name in bundled() or type(place) is not int or not 0 <= place < len(indices):
        return gr.skip()
    picture = Picture(run=name, index=indices[place], token=secrets.token_hex(4))
    return {choice.view: TIME_MACHINE, choice.picture: picture}


def _gallery(
    images: ImageData,
    pictures: Pictures,
    name: str,
    indices: Sequence[int],
    captions: Sequence[str],
    sentence: str,
) -> Updates:
    language = current_language()
    link = translate("Press a picture to follow it over the epochs.", language)
    tested = images.test.images
    shown = [
        (tested[index].permute(1, 2, 0).numpy(), caption) for index, caption in zip(indices, captions, strict=False)
    ]
    more = note(link) if shown and name not in bundled() else ""
    return {
        pictures.says: f"<div class='note'><b>{html.escape(sentence)}</b></div>{more}",
        pictures.gallery: gr.update(value=shown, visible=bool(shown)),
        pictures.indices: list(indices[:_MOST_PICTURES]),
    }


def _probabilities(answers: Answers, index: int, most: int = _MOST_PROBABILITIES) -> str:
    """The likeliest classes of a picture with their probabilities."""
    likeliest = answers.probabilities[index].topk(min(most, len(answers.class_names)))
    pairs = zip(likeliest.values.tolist(), likeliest.indices.tolist(), strict=True)
    return " · ".join(f"{answers.class_names[number]} {share:.1%}" for share, number in pairs)
