"""The gallery: what others published on the Hub, as their cards tell it, and what one can do with it."""

import asyncio
import html
import logging
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from trainer.errors import UserError
from trainer.hub import repositories, retry
from trainer.hub.repositories import Listed
from trainer.runs import checkpoint
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.login import own_token
from ui.parts import run_list
from ui.parts.checkpoints import aside, at_once, open_run
from ui.parts.messages import said
from ui.parts.run_view import advice, results
from ui.tabs import compare

_logger = logging.getLogger(__name__)

_SECONDS_KEPT, _SECONDS_REFRESHED = 30.0, 2.0
_SECONDS_TO_SLOW = 3.0

# A button's name is the event that its press becomes.
_BUTTONS = {"select": "Classify with it", "apply": "Compare its curve", "download": "Load among my runs"}
_PRESSED = """element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (button) trigger(button.name, {repo_id: button.value});
});"""


class Answer(NamedTuple):
    """What the Hub said: the checkpoints, or the sentence why there are none; `at` seconds of `time.monotonic`."""

    at: float
    listed: Sequence[Listed]
    failure: str = ""


class Catalogue:
    """What is published, asked of the Hub by one for all: a class of thirty that opens the gallery asks once."""

    def __init__(self):
        self._answers: dict[bool, asyncio.Task[Answer]] = {}

    def ask(self, *, best: bool, seconds: float) -> asyncio.Task[Answer]:
        """The answer, on its way or no older than `seconds`; to be called in an event loop."""
        answer = self._answers.get(best)
        if answer is None or (answer.done() and _is_old(answer.result(), seconds)):
            answer = self._answers[best] = asyncio.create_task(_answer(best))
        return answer


def _is_old(answer: Answer, seconds: float) -> bool:
    return time.monotonic() - answer.at > (min(seconds, _SECONDS_REFRESHED) if answer.failure else seconds)


async def _answer(best: bool) -> Answer:
    try:
        listed, failure = await aside(_listed, best), ""
    except ValueError as error:
        listed, failure = [], str(error)
    except Exception:  # or it would be the answer for ever
        _logger.exception("The gallery could not be listed.")
        listed, failure = [], "Something in the app went wrong."
    return Answer(time.monotonic(), listed, failure)


def _listed(best: bool) -> list[Listed]:
    with retry.hurried():
        return repositories.list_published(best=best)  # nobody's token: all visitors see the same


def build(
    lab: Lab,
    tab: gr.Tab,
    tabs: gr.Tabs,
    visitor: gr.BrowserState,
    network: gr.Dropdown,
    compared: gr.Dropdown,
    shown: Sequence[gr.components.Component],
) -> None:
    """The tab's content, and what its presses do to the others: the network to classify with, the runs compared, and
    `shown`, the visitor's runs. It fills itself when it is opened."""
    catalogue = Catalogue()
    gr.Markdown(i18n("Published with this app, by anyone. Figures are what their authors claim: nobody checked them."))
    with gr.Row(elem_id="gallery-order"):
        order = gr.Radio(
            [(i18n("Newest first"), "newest"), (i18n("Best claim first"), "best")],
            value="newest",
            label=i18n("Order"),
            show_label=False,
            container=False,
            elem_id="order",
        )
        refresh = gr.Button(i18n("Refresh"), size="sm", scale=0, min_width=110, elem_id="refresh")
    listed = gr.HTML(js_on_load=_PRESSED, elem_id="published")

    at_once = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "hidden"}
    for pressed, seconds, name in (
        (tab.select, _SECONDS_KEPT, "_gallery"),
        (order.input, _SECONDS_KEPT, "_order"),
        (refresh.click, _SECONDS_REFRESHED, "_refresh"),
    ):
        pressed(
            partial(show, catalogue, seconds=seconds), order, listed,
            trigger_mode="always_last", api_name=name, **at_once,
        )  # fmt: skip

    def classify(event: gr.EventData) -> list[Any]:
        return [gr.Tabs(selected="classify"), _repo_id(event)]

    async def compare(keys: list[str] | None, event: gr.EventData) -> list[Any]:
        return [gr.Tabs(selected="compare"), await add(keys, _repo_id(event))]

    async def load_it(visitor: str, event: gr.EventData) -> list[Any]:
        return [gr.Tabs(selected="train"), *await load(lab, visitor, _repo_id(event))]

    listed.select(said(classify), None, [tabs, network], api_name="_classify_with", **at_once)
    listed.apply(said(compare), compared, [tabs, compared], api_name="_compare_with", **at_once)
    listed.download(said(load_it), visitor, [tabs, *shown], api_name="_load_published", **at_once)


async def show(catalogue: Catalogue, order: str | None, *, seconds: float) -> AsyncIterator[str]:
    """The list, as HTML, of an answer no older than `seconds`; until there is one, that it is being waited for."""
    language = current_language()
    answer = catalogue.ask(best=order == "best", seconds=seconds)
    if not answer.done():
        yield _note(translate("Asking the Hub …", language))
        done, _ = await asyncio.wait({answer}, timeout=_SECONDS_TO_SLOW)
        if not done:
            yield _note(translate("The Hub is slow to answer; everything else here works meanwhile.", language))
    yield draw(await asyncio.shield(answer), language)


def draw(answer: Answer, language: str) -> str:
    """The checkpoints with their buttons, or why there are none, as HTML."""
    if answer.failure:
        return advice(translate(answer.failure, language))
    if not answer.listed:
        return _note(translate("Nobody has published a checkpoint of this app yet: yours can be the first.", language))
    return "<ul class='published'>" + "".join(_item(one, language) for one in answer.listed) + "</ul>"


def _item(one: Listed, language: str) -> str:
    def escaped(text: str) -> str:
        return html.escape(text, quote=True)

    if one.accuracy is None:
        claim = translate("claims no accuracy", language)
    elif one.data:
        form = "claims {accuracy} of the test pictures of {data} right"
        claim = translate(form, language, accuracy=f"{one.accuracy:.1%}", data=one.data)
    else:
        claim = translate("claims {accuracy} right", language, accuracy=f"{one.accuracy:.1%}")
    told = " · ".join([f"{name} {value}" for name, value in one.settings.items()] + [one.updated[:10]])
    buttons = "".join(
        f"<button name='{name}' value='{escaped(one.repo_id)}'>{escaped(translate(does, language))}</button>"
        for name, does in _BUTTONS.items()
    )
    return (
        f"<li><div><a href='{escaped(repositories.page_of(one.repo_id))}' target='_blank' "
        f"rel='noopener noreferrer nofollow'>{escaped(one.repo_id)}</a> {escaped(claim)}<br>"
        f"<span class='quiet'>{escaped(told)}</span></div>"
        f"<div class='does'>{buttons}</div></li>"
    )


def _note(sentence: str) -> str:
    return f"<div class='note' role='status'>{html.escape(sentence)}</div>"


def _repo_id(event: gr.EventData) -> str:
    told = event._data.get("repo_id") if isinstance(event._data, dict) else None
    return repositories.check_repo_id(told if isinstance(told, str) else "")


async def add(keys: list[str] | None, repo_id: str) -> list[str]:
    """What is compared, a published run now among it. Raises ValueError with one sentence where it cannot be read."""
    keys = compare.checked([*(key for key in keys or [] if key != repo_id), repo_id])
    await aside(open_run, repo_id)
    return keys


async def load(lab: Lab, visitor: str, repo_id: str) -> list[Any]:
    """Loads a published run among the visitor's own, to look at and to resume; what then is shown of their runs.

    Raises ValueError with one sentence; there is no run more then.
    """
    await at_once(lab.check_room, visitor, 1)
    language = current_language()
    gr.Info(translate("Loading {repo} …", language, repo=repo_id))
    # It ends by itself: each of its few files is given up on where the Hub falls silent.
    folder, can_resume = await aside(_load, lab, visitor, repo_id, seconds=None)
    if not can_resume:
        gr.Info(translate("{repo} can be looked at and classified with, but not resumed.", language, repo=repo_id))

    def shown() -> list[Any]:
        return [
            *results(run_list.read_all([folder]), lab.images, language),
            *run_list.choices(lab, visitor, folder.name),
        ]

    return await at_once(shown)


def _load(lab: Lab, visitor: str, repo_id: str) -> tuple[Path, bool]:
    (folder,) = lab.new_race(visitor, 1)
    try:
        with retry.hurried():
            can_resume = repositories.load(repo_id, folder, token=own_token())
        if not checkpoint.is_run(folder):
            raise UserError("{repo} holds a network but no run: classify with it.", repo=repo_id)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, can_resume
