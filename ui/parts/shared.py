"""Components that several tabs read, fill or contain, and the options of the page's events."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import gradio as gr
from gradio.blocks import Block

from ui.i18n.words import i18n
from ui.parts.run.run_list import RunLists

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
# Events that never wait behind a training. They use the queue all the same: outside of it an error does not reach the
# visitor.
# Their progress is shown on no component. Otherwise the browser would update every output of all earlier events at each
# message of any event, and the event that opens the page has more than a hundred outputs.
AT_ONCE: dict[str, Any] = {
    **PRIVATE,
    "concurrency_limit": None,
    "show_progress": "hidden",
    "show_progress_on": [],
}

Inputs = Mapping[str, Block]  # the inputs of a handler, by the names of its parameters


@dataclass
class Displayed:
    """What one open page displays; a gr.State keeps it, and the handlers of the page change it.

    `race` is the key of the race that the visitor chose, None to follow the latest. `lesson` is the name of the lesson
    that they chose since, "" without one: until it is trained, no other result is displayed. `job` identifies the last
    job that the page displayed, `listed` what the lists were filled from.
    """

    race: str | None = None
    lesson: str = ""
    job: int | None = None
    listed: tuple[Any, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The components that belong to no single tab.

    `visitor` holds the visitor's key and `had_runs` whether they have any runs; the browser remembers both. `displayed`
    holds a Displayed. `notice` shows a sentence above the tabs, `images_note` what the visitor trains on, and `file`
    serves files to download. The address follows `query`, the query of the page's link, `plan`, the text of a sweep's
    plan, and `chosen`, the key of the run that the visitor chose or "".
    """

    page: gr.Blocks
    tabs: gr.Tabs
    visitor: gr.BrowserState
    had_runs: gr.BrowserState
    displayed: gr.State
    notice: gr.HTML
    images_note: gr.HTML
    query: gr.Textbox
    plan: gr.Textbox
    chosen: gr.Textbox
    file: gr.DownloadButton
    lists: RunLists

    def download_on_click(
        self, button: gr.Button, handler: Callable[..., Any], inputs: Inputs, *, api_name: str
    ) -> None:
        """Makes a button download the file whose path `handler` returns.

        A DownloadButton whose file is created on its own click would need a second click.
        """
        click_file = "() => setTimeout(() => document.querySelector('#file').click(), 100)"
        made = button.click(handler, inputs_kwargs=dict(inputs), outputs=self.file, api_name=api_name, **AT_ONCE)
        made.success(None, None, None, js=click_file, **AT_ONCE)


def components(*parts: Any) -> list[Block]:
    """The components in dataclasses, dicts, lists and components, in order: the outputs of a handler."""
    found: list[Block] = []
    for part in parts:
        if isinstance(part, Block):
            found.append(part)
        elif is_dataclass(part):
            found += components(*(getattr(part, field.name) for field in fields(part)))
        elif isinstance(part, dict):
            found += components(*part.values())
        elif isinstance(part, list | tuple):
            found += components(*part)
    return found


def sent_with(event: gr.EventData, name: str) -> Any:
    """Returns what a browser sent with an event under this name; None without it, as in a handcrafted request."""
    return event._data.get(name) if isinstance(event._data, dict) else None


def code_panel(name: str) -> tuple[gr.Button, gr.Code]:
    """Adds a panel for a plain PyTorch script; returns the button that writes the script, and its component."""
    with gr.Accordion(i18n("As PyTorch code"), open=False, elem_id=f"{name}-panel"):
        button = gr.Button(i18n("Write the script"), size="sm", elem_id=f"show-{name}")
        script = gr.Code(language="python", show_label=False, elem_id=name, max_lines=40)
    return button, script
