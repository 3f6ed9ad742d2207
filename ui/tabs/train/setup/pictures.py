"""The choice of the pictures to train on, and a visitor's own: named, dropped, pasted or taken with the webcam."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
import torch
from gradio.blocks import Block
from gradio.events import Dependency
from torch import Tensor

from trainer.errors import UserError
from trainer.images.image_data import OWN, ImageData, imbalance
from trainer.images.mirror import why_unflipped
from trainer.progress import Steps, ignore_progress, run_in_thread
from trainer.settings.presets import FIRST
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts.form import fields
from ui.parts.markup import advice, note, status_line
from ui.parts.messages import Updates, with_page_errors
from ui.parts.pictures import data_url
from ui.parts.run import run_view
from ui.parts.shared import AT_ONCE, Shared, components
from ui.picture_sets import BATCH_OF_FEW, DATASETS, DEFAULT, FEW, Draft
from ui.server.uploads import name_of, uploaded
from ui.tabs.train.setup import webcam
from ui.visitors import checked_visitor

Suited = Mapping[str, Block]  # the widgets of the settings that depend on the pictures, by name

_MOST_SAMPLES = 12
_FOR_FEW = "frozen"  # of `pretrained`


@dataclass(frozen=True, kw_only=True)
class PicturesView:
    """The choice of a set, what is in it, and the inputs for the visitor's own pictures."""

    choice: gr.Dropdown
    about: gr.HTML
    own: gr.Column
    class_name: gr.Textbox
    files: gr.File
    webcam: gr.HTML
    delete: gr.Button
    note: gr.HTML


def build(note: gr.HTML) -> PicturesView:
    """Adds the choice to the page being built, whose `note` says what the visitor trains on."""
    sets: list[Any] = [(i18n("The app's pictures"), DEFAULT), (i18n("Drawn shapes"), "synthetic"), *DATASETS.items()]
    sets.append((i18n("Your own pictures"), OWN))
    with gr.Group(elem_id="picture-sets"):
        choice = gr.Dropdown(
            sets,
            value=DEFAULT,
            label=i18n("Pictures"),
            info=i18n("What to train on; also any image dataset on the Hub, as owner/name."),
            allow_custom_value=True,
            elem_id="pictures-choice",
        )
        about = gr.HTML(visible=False, elem_id="pictures-about")
        with gr.Column(visible=False, elem_id="pictures-own") as own:
            class_name = gr.Textbox(
                label=i18n("Class"), placeholder=i18n("such as cat"), max_lines=1, max_length=100, elem_id="class-name"
            )
            files = gr.File(
                label=i18n("Drop or paste pictures, or a zip"),
                file_count="multiple",
                file_types=["image", ".zip"],
                height=140,
                elem_id="class-files",
            )
            recorder = webcam.build()
            gr.HTML(
                "<div class='note'>"
                + i18n(
                    "A zip has a folder for each class. Nobody else can see your pictures. They are stored as 32×32 "
                    "pixels, and are not published with a network."
                )
                + "</div>"
            )
            delete = gr.Button(i18n("Delete my pictures"), size="sm", elem_id="delete-pictures")
    return PicturesView(
        choice=choice,
        about=about,
        own=own,
        class_name=class_name,
        files=files,
        webcam=recorder,
        delete=delete,
        note=note,
    )


def wire(lab: Lab, view: PicturesView, shared: Shared, panel: fields.Panel) -> list[Dependency]:
    """Adds the events of the choice, which also sets the settings that suit the pictures; returns those events."""
    suited: Suited = {name: panel.widgets[name] for name in ("flip", "batch_size", "epochs", "pretrained")}
    visitor: dict[str, Block] = {"visitor": shared.visitor}
    outputs = components(view, suited)
    shared.page.load(
        partial(show, lab, view), inputs_kwargs=visitor, outputs=components(view), api_name="_load_pictures", **AT_ONCE
    )
    chosen = view.choice.input(
        partial(choose, lab, view, suited),
        inputs_kwargs={**visitor, "choice": view.choice},
        outputs=outputs,
        api_name="_choose_pictures",
        **AT_ONCE,
    )
    added = view.files.upload(
        partial(add, lab, view, suited),
        inputs_kwargs={**visitor, "class_name": view.class_name, "files": view.files},
        outputs=outputs,
        preprocess=False,
        api_name="_add_pictures",
        **AT_ONCE,
    )

    def add_uploaded(visitor: str, class_name: Any, event: gr.EventData) -> Any:
        files = event._data.get("files") if isinstance(event._data, dict) else None
        return add(lab, view, suited, visitor=visitor, class_name=class_name, files=files)

    recorded = webcam.on_upload(
        view.webcam,
        add_uploaded,
        inputs={**visitor, "class_name": view.class_name},
        outputs=outputs,
        api_name="_record_pictures",
    )
    deleted = view.delete.click(
        partial(delete, lab, view, suited),
        inputs_kwargs=visitor,
        outputs=outputs,
        api_name="_delete_pictures",
        **AT_ONCE,
    )
    return [chosen, added, recorded, deleted]


def suited_settings(images: ImageData) -> dict[str, Any]:
    """Returns settings that suit the pictures: what a mirror makes wrong is not mirrored, and few pictures take small
    batches, more epochs and convolutions that are trained already.
    """
    few = len(images.train.labels) < FEW
    return {
        "flip": not why_unflipped(images),
        "batch_size": BATCH_OF_FEW if few else FIRST.batch_size,
        "epochs": 30 if few else FIRST.epochs,
        "pretrained": _FOR_FEW if few else FIRST.pretrained,
    }


def show(lab: Lab, view: PicturesView, *, visitor: str) -> Any:
    """Updates that show the visitor's choice when the page is opened."""
    language = current_language()
    try:
        owner = lab.owner(visitor)
    except UserError:  # a new visitor, whose key arrives with the next event
        return gr.skip()
    choice = lab.sets.choice(owner)
    images: ImageData | None = None
    with suppress(UserError):  # own pictures that are too few
        images = lab.sets.images(owner)
    about = _set(images, language) if images else ""
    if choice == OWN:
        about = _own(lab.sets.draft(owner), images, [], language)
    return {view.choice: choice, view.own: gr.update(visible=choice == OWN), **_about(view, about)}


@with_page_errors
def choose(lab: Lab, view: PicturesView, suited: Suited, *, visitor: str, choice: Any) -> Iterator[Updates]:
    """Makes a set the visitor's choice: yields the progress of loading it, then what is in it."""
    language, owner = current_language(), lab.owner(checked_visitor(visitor))
    try:
        source = choice.strip() if isinstance(choice, str) else DEFAULT
        yield {view.own: gr.update(visible=source == OWN)}
        if source == OWN:
            yield _use_own(lab, view, suited, owner, lab.sets.draft(owner), [])
            return
        steps = Steps(run_in_thread(partial(lab.sets.choose, owner, source), math.inf))
        for report in steps:
            if report:
                fraction, doing = report
                yield _about(view, status_line("Loading", translate(doing, language), fraction, language))
        images = steps.value
        yield {**_about(view, _set(images, language) if images else ""), **_chosen(lab, view, suited, images)}
    except UserError as error:
        lab.sets.choose(owner, DEFAULT, ignore_progress)
        yield {view.choice: DEFAULT, **_about(view, advice(translate(str(error), language)))}


@with_page_errors
def add(lab: Lab, view: PicturesView, suited: Suited, *, visitor: str, class_name: Any, files: Any) -> Any:
    """Adds pictures to a class of the visitor's own, or takes all of them from a zip."""
    language = current_language()
    empty: Updates = {view.files: None}
    if not files:
        return gr.skip()
    owner = lab.owner(checked_visitor(visitor))
    sent = files if isinstance(files, list) else [files]
    paths = [uploaded(file) for file in sent]
    try:
        if any(path.suffix.lower() == ".zip" for path in paths):
            if len(paths) > 1:
                raise UserError("Add a zip on its own, without other files.")
            draft, remarks = lab.sets.add_zip(owner, paths[0], ignore_progress)
        else:
            draft, skipped = lab.sets.add(owner, class_name if isinstance(class_name, str) else "", paths)
            known_as = dict(zip(paths, map(name_of, sent), strict=True))
            names = ", ".join(known_as[path] for path in skipped[:10])
            remarks = [translate("Skipped: {names}.", language, names=names)] if skipped else []
        return {**empty, **_use_own(lab, view, suited, owner, draft, remarks)}
    except UserError as error:
        refused = advice(translate(str(error), language))
        return {**empty, **_about(view, refused + _classes(lab.sets.draft(owner)))}
    finally:
        for path in paths:  # only what the network sees is kept
            with suppress(OSError):
                path.unlink()


@with_page_errors
def delete(lab: Lab, view: PicturesView, suited: Suited, *, visitor: str) -> Updates:
    """Deletes the visitor's own pictures; the app's own pictures become the choice."""
    lab.sets.delete(lab.owner(checked_visitor(visitor)))
    return {
        view.choice: DEFAULT,
        view.own: gr.update(visible=False),
        **_about(view, note(translate("Your pictures are deleted.", current_language()))),
        **_chosen(lab, view, suited, None),
    }


def _use_own(lab: Lab, view: PicturesView, suited: Suited, owner: str, draft: Draft, remarks: Sequence[str]) -> Updates:
    """Updates that show a visitor's own pictures, which become the set to train on once they are enough."""
    images = lab.sets.choose(owner, OWN, ignore_progress)
    updates = _chosen(lab, view, suited, images) if images else {}
    return {view.choice: OWN, **_about(view, _own(draft, images, remarks, current_language())), **updates}


def _chosen(lab: Lab, view: PicturesView, suited: Suited, images: ImageData | None) -> Updates:
    """Updates for a choice, None for the app's own pictures: the page's note and the settings that suit them."""
    images = images or lab.images
    updates: Updates = {view.note: run_view.images_note(images, lab.loading, lab.failure, current_language())}
    if images is None:
        return updates
    return updates | {suited[name]: value for name, value in suited_settings(images).items()}


def _about(view: PicturesView, content: str) -> Updates:
    return {view.about: gr.update(value=content, visible=bool(content))}


def _set(images: ImageData, language: str) -> str:
    return _remarks(_about_classes(images, language)) + _samples(
        images.class_names, images.train.images.permute(0, 2, 3, 1), images.train.labels
    )


def _own(draft: Draft, images: ImageData | None, remarks: Sequence[str], language: str) -> str:
    """What is in a visitor's own pictures; `images` is the set to train on, None if they are too few."""
    sentences = list(remarks)
    if images:
        sentences += _about_classes(images, language)
    elif draft.lacks:
        sentences.append(translate(str(draft.lacks), language))
    return _remarks(sentences) + _classes(draft)


def _classes(draft: Draft) -> str:
    return _samples(draft.class_names, draft.images, draft.labels)


def _about_classes(images: ImageData, language: str) -> list[str]:
    """What to know of the classes before training, in sentences; "" where there is nothing."""
    return [translate(sentence, language) for sentence in (imbalance(images), why_unflipped(images))]


def _remarks(sentences: Sequence[str]) -> str:
    text = " ".join(filter(None, sentences))
    return note(text) if text else ""


def _samples(class_names: Sequence[str], pixels: Tensor, labels: Tensor) -> str:
    """One picture of each class with the class's number of pictures, as HTML; of many classes the first ones."""
    counts = torch.bincount(labels, minlength=len(class_names)).tolist()
    tiles = []
    for label, (name, count) in enumerate(zip(class_names, counts, strict=True)):
        if label == _MOST_SAMPLES:
            tiles.append(f"<figure><figcaption>… {len(class_names) - label}</figcaption></figure>")
            break
        picture = pixels[int((labels == label).nonzero()[0])] if count else torch.full((32, 32, 3), 200).byte()
        source, caption = data_url(picture.permute(2, 0, 1)), f"{html.escape(name)} <b>{count:,}</b>"
        tiles.append(f"<figure><img alt='' src='{source}'><figcaption>{caption}</figcaption></figure>")
    return f"<div class='samples'>{''.join(tiles)}</div>" if tiles else ""
