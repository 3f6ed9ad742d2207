"""The Gallery tab: the runs published on the Hub, as their cards describe them."""

import asyncio
import html
import logging
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from trainer.errors import BROKEN, UserError
from trainer.hub import repositories, retry
from trainer.hub.repositories import PublishedCheckpoint
from trainer.runs import run_folder
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.login import own_token
from ui.parts.markup import advice
from ui.parts.messages import Updates, with_page_errors
from ui.parts.run import run_list
from ui.parts.run.checkpoints import in_hub_thread, in_thread, open_run
from ui.parts.run.run_list import RunLists
from ui.parts.run.run_view import RunView
from ui.parts.shared import AT_ONCE, Displayed, Shared, components, sent_with
from ui.tabs import compare

_logger = logging.getLogger(__name__)

_SECONDS_CACHED, _SECONDS_REFRESHED = 30.0, 2.0
_SECONDS_TO_SLOW = 3.0

# The name of a button is the event that a click on it triggers.
_BUTTONS = {"select": "Classify with it", "apply": "Compare its curve", "download": "Load into my runs"}
_PRESSED = """element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (button) trigger(button.name, {repo_id: button.value});
});"""


class Answer(NamedTuple):
    """The Hub's answer: the checkpoints, or the reason why there are none; `at` in seconds of `time.monotonic`."""

    at: float
    listed: Sequence[PublishedCheckpoint]
    failure: str = ""


class Catalogue:
    """The published runs, requested from the Hub once for all visitors who open the gallery at about the same time."""

    def __init__(self) -> None:
        self._answers: dict[bool, asyncio.Task[Answer]] = {}

    def ask(self, *, best: bool, seconds: float) -> asyncio.Task[Answer]:
        """Returns the task of an answer that is pending or at most `seconds` old. Call it in an event loop."""
        answer = self._answers.get(best)
        if answer is None or (answer.done() and _is_old(answer.result(), seconds)):
            answer = self._answers[best] = asyncio.create_task(_answer(best))
        return answer


def _is_old(answer: Answer, seconds: float) -> bool:
    return time.monotonic() - answer.at > (min(seconds, _SECONDS_REFRESHED) if answer.failure else seconds)


async def _answer(best: bool) -> Answer:
    try:
        listed, failure = await in_hub_thread(_listed, best), ""
    except UserError as error:
        listed, failure = [], str(error)
    except Exception:  # an error would stay the answer for ever
        _logger.exception("The gallery could not be listed.")
        listed, failure = [], BROKEN
    return Answer(time.monotonic(), listed, failure)


def _listed(best: bool) -> list[PublishedCheckpoint]:
    with retry.short_timeouts():
        return repositories.list_published(best=best)  # without a token: all visitors see the same


def build(lab: Lab, tab: gr.Tab, shared: Shared, view: RunView) -> None:
    """Adds the content of the tab and its events to the page being built; `view` shows a loaded run."""
    catalogue = Catalogue()
    gr.Markdown(i18n("Anyone can publish with this app. The figures are reported by the authors and are not checked."))
    with gr.Row(elem_id="gallery-order"):
        order = gr.Radio(
            [(i18n("Newest first"), "newest"), (i18n("Highest reported accuracy"), "best")],
            value="newest",
            label=i18n("Order"),
            show_label=False,
            container=False,
            elem_id="order",
        )
        refresh = gr.Button(i18n("Refresh"), size="sm", scale=0, min_width=110, elem_id="refresh")
    published = gr.HTML(js_on_load=_PRESSED, elem_id="published")
    for event, seconds, name in (
        (tab.select, _SECONDS_CACHED, "_gallery"),
        (order.input, _SECONDS_CACHED, "_order"),
        (refresh.click, _SECONDS_REFRESHED, "_refresh"),
    ):
        show_list = partial(show, catalogue, seconds=seconds)
        event(show_list, order, published, trigger_mode="always_last", api_name=name, **AT_ONCE)
    _wire_buttons(lab, published, shared, view)


def _wire_buttons(lab: Lab, published: gr.HTML, shared: Shared, view: RunView) -> None:
    """Makes the buttons of each entry classify with its network, compare its curve, and load its run."""
    tabs, lists = shared.tabs, shared.lists

    def classify_with(event: gr.EventData) -> Updates:
        return {tabs: gr.Tabs(selected="classify"), lists.networks: _repo_id(event)}

    async def compare_with(names: list[str] | None, event: gr.EventData) -> Updates:
        return {tabs: gr.Tabs(selected="compare"), lists.compared: await add(names, _repo_id(event))}

    async def load_published(visitor: str, displayed: Displayed, event: gr.EventData) -> Updates:
        updates = await load(lab, view, lists, visitor, _repo_id(event))
        displayed.race = updates[lists.races]["value"]
        return {tabs: gr.Tabs(selected="train"), **updates}

    published.select(
        with_page_errors(classify_with), None, [tabs, lists.networks], api_name="_classify_with", **AT_ONCE
    )
    published.apply(
        with_page_errors(compare_with),
        inputs_kwargs={"names": lists.compared},
        outputs=[tabs, lists.compared],
        api_name="_compare_with",
        **AT_ONCE,
    )
    published.download(
        with_page_errors(load_published),
        inputs_kwargs={"visitor": shared.visitor, "displayed": shared.displayed},
        outputs=components(tabs, view, lists),
        api_name="_load_published",
        **AT_ONCE,
    )


async def show(catalogue: Catalogue, order: str | None, *, seconds: float) -> AsyncIterator[str]:
    """Yields the list from an answer at most `seconds` old, as HTML, after notes that the page waits for the Hub."""
    language = current_language()
    answer = catalogue.ask(best=order == "best", seconds=seconds)
    if not answer.done():
        yield _note(translate("Loading the list from the Hub …", language))
        done, _ = await asyncio.wait({answer}, timeout=_SECONDS_TO_SLOW)
        if not done:
            yield _note(translate("The Hub is slow to answer; the rest of the page works meanwhile.", language))
    yield draw(await asyncio.shield(answer), language)


def draw(answer: Answer, language: str) -> str:
    """The checkpoints with their buttons, or the reason why there are none, as HTML."""
    if answer.failure:
        return advice(translate(answer.failure, language))
    if not answer.listed:
        return _note(translate("No checkpoint of this app has been published yet: yours can be the first.", language))
    return "<ul class='published'>" + "".join(_item(one, language) for one in answer.listed) + "</ul>"


def _item(one: PublishedCheckpoint, language: str) -> str:
    def escaped(text: str) -> str:
        return html.escape(text, quote=True)

    if one.accuracy is None:
        reported = translate("no reported accuracy", language)
    elif one.data:
        template = "reported test accuracy {accuracy} on {data}"
        reported = translate(template, language, accuracy=f"{one.accuracy:.1%}", data=one.data)
    else:
        reported = translate("reported accuracy {accuracy}", language, accuracy=f"{one.accuracy:.1%}")
    facts = " · ".join([f"{name} {value}" for name, value in one.settings.items()] + [one.updated[:10]])
    buttons = "".join(
        f"<button name='{name}' value='{escaped(one.repo_id)}'>{escaped(translate(label, language))}</button>"
        for name, label in _BUTTONS.items()
    )
    return (
        f"<li><div><a href='{escaped(repositories.page_url(one.repo_id))}' target='_blank' "
        f"rel='noopener noreferrer nofollow'>{escaped(one.repo_id)}</a> {escaped(reported)}<br>"
        f"<span class='quiet'>{escaped(facts)}</span></div>"
        f"<div class='does'>{buttons}</div></li>"
    )


def _note(sentence: str) -> str:
    return f"<div class='note' role='status'>{html.escape(sentence)}</div>"


def _repo_id(event: gr.EventData) -> str:
    repo_id = sent_with(event, "repo_id")
    return repositories.check_repo_id(repo_id if isinstance(repo_id, str) else "")


async def add(names: list[str] | None, repo_id: str) -> list[str]:
    """The names of the compared runs with a published one added. Raises UserError if it cannot be read."""
    names = compare.checked([*(name for name in names or [] if name != repo_id), repo_id])
    await in_hub_thread(open_run, repo_id)
    return names


async def load(lab: Lab, view: RunView, lists: RunLists, visitor: str, repo_id: str) -> Updates:
    """Loads a published run into the visitor's own; returns updates that show it.

    Raises UserError if it cannot be loaded; no run is left then.
    """
    await in_thread(lab.runs.check_room, visitor, 1)
    language = current_language()
    gr.Info(translate("Loading {repo} …", language, repo=repo_id))
    # Without a time limit: the download of each of its few files ends if the Hub stops answering.
    folder, can_resume = await in_hub_thread(_load, lab, visitor, repo_id, seconds=None)
    if not can_resume:
        gr.Info(translate("You can view {repo} and classify with it, but not resume it.", language, repo=repo_id))

    def show_run() -> Updates:
        runs = run_list.read_all([folder])
        return {**view.show(runs, lab.images, language), **lists.offer(lab, visitor, folder.name)}

    return await in_thread(show_run)


def _load(lab: Lab, visitor: str, repo_id: str) -> tuple[Path, bool]:
    (folder,) = lab.runs.new_race(visitor, 1)
    try:
        with retry.short_timeouts():
            can_resume = repositories.load(repo_id, folder, token=own_token())
        if not run_folder.is_run(folder):
            raise UserError("{repo} contains a network but no run: you can only classify with it.", repo=repo_id)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, can_resume
