"""What the tabs share: components that several of them read or fill, and how the page wires its own events."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import gradio as gr
from gradio.blocks import Block

from ui.parts.run_list import RunLists

PRIVATE = {"api_visibility": "private"}
# Handlers that never wait behind a training. They go through the queue all the same: an error that is raised outside of
# it does not reach the visitor.
AT_ONCE = {**PRIVATE, "concurrency_limit": None, "show_progress": "hidden"}


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The components that belong to no single tab.

    `visitor` holds the visitor's key and `had_runs` whether they have any runs, both kept by the browser. `notice`
    shows a sentence above the tabs, `query` holds the query of the page's link, and `file` hands out files.
    """

    page: gr.Blocks
    tabs: gr.Tabs
    visitor: gr.BrowserState
    had_runs: gr.BrowserState
    notice: gr.HTML
    query: gr.Textbox
    file: gr.DownloadButton
    lists: RunLists

    def download_on_click(
        self, button: gr.Button, handler: Callable[..., str], inputs: dict[str, Block], *, api_name: str
    ) -> None:
        """Makes a button hand out the file whose path `handler` returns.

        A DownloadButton whose file is made on its own click would need a second click.
        """
        click_file = "() => setTimeout(() => document.querySelector('#file').click(), 100)"
        made = button.click(handler, inputs_kwargs=inputs, outputs=self.file, api_name=api_name, **AT_ONCE)
        made.success(None, None, None, js=click_file, **AT_ONCE)


def components(*parts: Any) -> list[Block]:
    """The components in dataclasses, dicts, lists and components, in their order: the outputs of a handler."""
    found = []
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
