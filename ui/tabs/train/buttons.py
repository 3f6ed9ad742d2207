"""The buttons that start and stop a training, and the sentence beside each on why it did not start one."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.i18n.language import current_language
from ui.i18n.words import translate
from ui.jobs.queue import sentence_of
from ui.lab import Lab, checked_visitor
from ui.parts.markup import advice
from ui.parts.messages import Updates, with_page_errors
from ui.parts.shared import AT_ONCE


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
            return {place: gr.update(value=advice(translate(sentence_of(error), current_language())), visible=True)}

    return refusing


def stop_on_click(lab: Lab, button: gr.Button, visitor: gr.BrowserState) -> None:
    """Makes a button stop the visitor's jobs, whichever page started them."""

    @with_page_errors
    def stop(visitor: str) -> Any:
        lab.jobs.stop(checked_visitor(visitor))
        return gr.update(value=translate("Stopping …", current_language()), interactive=False)

    button.click(stop, visitor, button, api_name="_stop", **AT_ONCE)
