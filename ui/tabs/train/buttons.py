"""The buttons that start and stop a training, and the sentence beside each on why it did not start one."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.events import Dependency

from ui.i18n.language import current_language
from ui.i18n.words import translate
from ui.jobs.queue import sentence_of
from ui.jobs.trainings import LrSearch, Training
from ui.lab import Lab
from ui.parts.markup import advice
from ui.parts.messages import Updates, with_page_errors
from ui.parts.shared import AT_ONCE
from ui.visitors import checked_visitor

STARTS: dict[str, Any] = {"elem_classes": ["starts"]}
"""The options of a button that shows that it waits from its click until the server answers."""

# For the load of the page. Not an event of Gradio's, which would run only after those that are on their way.
_WAIT_ON_CLICK = """() => addEventListener("click", ({ target }) => {
  const button = target.closest(".starts");
  if (button && !button.disabled) button.classList.add("waiting");
})"""
_ANSWERED = """() =>
  document.querySelectorAll(".starts.waiting").forEach((button) => button.classList.remove("waiting"))"""


@dataclass(frozen=True, kw_only=True)
class Buttons:
    """The buttons that a training changes."""

    train: gr.Button
    resume: gr.Button
    stop: gr.Button

    def show(self, *, is_training: bool, can_stop: bool) -> Updates:
        """Updates for a visitor with or without a training, and with or without a job to stop."""
        ready = gr.update(interactive=not is_training)
        stop = gr.update(value=translate("Stop", current_language()), interactive=can_stop)
        return {self.train: ready, self.resume: ready, self.stop: stop}


def refusal(elem_id: str) -> gr.HTML:
    """Adds the place for a sentence beside a button: why it did not do what it says."""
    return gr.HTML(visible=False, elem_id=elem_id)


def refuse_beside(place: gr.HTML, handler: Callable[..., Updates]) -> Callable[..., Updates]:
    """Wraps the handler of a button so that a UserError becomes a sentence in `place`, which success empties.

    Any other error is logged, and the sentence is a general one.
    """

    @functools.wraps(handler)
    def refusing(**values: Any) -> Updates:
        try:
            return {place: gr.update(visible=False), **handler(**values)}
        except Exception as error:
            words = advice(translate(sentence_of(error), current_language()))
            return {place: gr.update(value=f"<div role='alert'>{words}</div>", visible=True)}

    return refusing


def wait_on_click(page: gr.Blocks) -> None:
    """Makes the buttons with STARTS show that they wait from a click on; `answered` ends it."""
    page.load(None, None, None, js=_WAIT_ON_CLICK, api_name="_wait_on_click", **AT_ONCE)


def answered(click: Dependency) -> None:
    """Makes the buttons show that they do not wait any more, once the server has answered the click."""
    click.then(None, None, None, js=_ANSWERED, **AT_ONCE)


def stop_on_click(lab: Lab, button: gr.Button, visitor: gr.BrowserState) -> None:
    """Makes a button stop the visitor's trainings and searches, whichever page started them."""

    @with_page_errors
    def stop(visitor: str) -> Any:
        lab.jobs.stop(checked_visitor(visitor), Training, LrSearch)
        return gr.update(value=translate("Stopping …", current_language()), interactive=False)

    button.click(stop, visitor, button, api_name="_stop", **AT_ONCE)
