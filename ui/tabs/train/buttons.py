"""The buttons that start and stop a training."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.context import LocalContext
from gradio.events import Dependency

from trainer.learning.training_set import training_split
from trainer.settings.config import TrainConfig
from ui.i18n.language import current_language
from ui.i18n.words import translate
from ui.lab import Lab, checked_visitor
from ui.parts.messages import Updates, end_in_status, not_started, waiting, with_page_errors
from ui.parts.shared import AT_ONCE, PRIVATE, Inputs, components
from ui.queue import TRAINING, leave_queue
from ui.tabs.train.training import STOPPED

_TITLES = {"_find_lr": "Search not started"}
_NOT_TRAINED = "Not trained"


@dataclass(frozen=True, kw_only=True)
class Buttons:
    """The buttons that a training changes."""

    train: gr.Button
    resume: gr.Button
    stop: gr.Button

    def while_training(self) -> Updates:
        """Updates for a training that runs or waits."""
        off, on = gr.update(interactive=False), gr.update(interactive=True)
        return {self.train: off, self.resume: off, self.stop: on}

    def at_rest(self) -> Updates:
        """Updates for a page on which nothing trains."""
        on = gr.update(interactive=True)
        stop = gr.update(value=translate("Stop", current_language()), interactive=False)
        return {self.train: on, self.resume: on, self.stop: stop}


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training that a button starts.

    `check` is called with `check_inputs` before the training joins the queue, and raises an error if they are invalid.
    `handler` trains with `inputs` and the time of the request, and yields updates of `outputs`; `status`, one of the
    outputs, shows the state of the training. `broken` is the sentence for an error in the app itself.
    """

    name: str
    check: Callable[..., None]
    check_inputs: Inputs
    handler: Callable[..., Iterator[Updates]]
    inputs: Inputs = field(default_factory=dict)
    outputs: Sequence[Block]
    status: gr.HTML
    broken: str

    @property
    def title(self) -> str:
        """The title of the status if the training does not start."""
        return _title(f"_{self.name}")


def start_on_click(
    button: gr.Button, training: Training, buttons: Buttons, *, visitor: gr.BrowserState, cancels: Dependency
) -> Dependency:
    """Makes a button check a training, queue it, and reset the buttons at its end.

    Returns the event of the training.
    """
    name, status = training.name, training.status
    # One per button: a click on another button would overwrite a shared time, and an earlier Stop would then no longer
    # end the training that waits.
    requested_at = gr.State(0.0)

    def request(**values: Any) -> Updates:
        training.check(**values)
        return {requested_at: time.monotonic(), **buttons.while_training()}

    def refuse() -> Updates:
        return {status: not_started(training.title), **buttons.at_rest()}

    requested = button.click(
        request,
        inputs_kwargs={"visitor": visitor, **training.check_inputs},
        outputs=components(requested_at, buttons),
        cancels=cancels,
        api_name=f"_ask_{name}",
        **AT_ONCE,
    )
    # A separate event, because `request` may raise: Gradio shows "Error" in all outputs of a handler that raises.
    queued = requested.success(waiting, None, status, api_name=f"_wait_{name}", **AT_ONCE)
    trained = queued.success(
        end_in_status(training.handler, status, title=training.title, broken=training.broken),
        inputs_kwargs={"visitor": visitor, "requested_at": requested_at, **training.inputs},
        outputs=training.outputs,
        api_name=f"_{name}",
        concurrency_id=TRAINING,
        concurrency_limit=1,
        show_progress="minimal",
        show_progress_on=status,
        **PRIVATE,
    )
    trained.success(buttons.at_rest, None, components(buttons), api_name=f"_rest_{name}_ended", **AT_ONCE)
    # A full queue refuses the training before its handler runs.
    trained.failure(refuse, None, components(status, buttons), api_name=f"_rest_{name}_refused", **AT_ONCE)
    return trained


def stop_on_click(lab: Lab, page: gr.Blocks, button: gr.Button, visitor: gr.BrowserState) -> None:
    """Makes a button stop the visitor's trainings, and remove waiting ones from the queue at once."""

    def status(api_name: str) -> str:
        return not_started(_title(api_name), STOPPED)

    @with_page_errors
    async def stop(visitor: str) -> Any:
        lab.stop(visitor)
        request = LocalContext.request.get()
        if request is not None and request.session_hash:
            leave_queue(page, request.session_hash, status)
        return gr.update(value=translate("Stopping …", current_language()), interactive=False)

    button.click(stop, visitor, button, api_name="_stop", **AT_ONCE)


@with_page_errors
def check(
    lab: Lab,
    *,
    visitor: str,
    configs: Callable[..., list[TrainConfig]],
    uses_settings: bool = True,
    keeps_runs: bool = True,
    **values: Any,
) -> None:
    """Checks a training before it joins the queue; a message on the page explains why it cannot be trained.

    If it `uses_settings`, it checks the settings that `configs(**values)` returns. If it also `keeps_runs`, the number
    of the visitor's runs must stay within the limit.
    """
    checked_visitor(visitor)
    if not uses_settings:
        return
    requested = configs(**values)
    lab.limits.check(requested)
    if keeps_runs:
        lab.check_room(visitor, len(requested))
    for config in requested:
        if lab.images is not None:
            training_split(config, lab.images)


def _title(api_name: str) -> str:
    return _TITLES.get(api_name, _NOT_TRAINED)
