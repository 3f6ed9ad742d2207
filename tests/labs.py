"""A lab whose work runs in the thread of its job, on the CPU, and the part of a page that watches its jobs."""

from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import anyio
import gradio as gr
import torch

from ui.lab import Lab
from ui.parts.run import run_list, run_view
from ui.tabs.train.buttons import Buttons
from ui.tabs.train.live import LiveView
from ui.tabs.train.setup import lr_finder

T = TypeVar("T")


def run_here(work, stopping):
    """Runs work as a worker does, without a process."""
    for event in work.run(torch.device("cpu")):
        if stopping.is_set():
            return
        yield event


def in_event_loop(call: Callable[[], T]) -> T:
    """Returns the result of a call that builds a page: outside of an event loop Gradio would leave a new one open."""

    async def run() -> T:
        return call()

    return anyio.run(run)


def make_lab(folder: Path, **options) -> Lab:
    """A lab with its runs in `folder`."""
    return Lab(checkpoints=folder, device=torch.device("cpu"), run=run_here, **options)


def live_view() -> LiveView:
    """The components of a page that its jobs change, without the page."""
    buttons = Buttons(train=gr.Button(), resume=gr.Button(), stop=gr.Button())
    return LiveView(
        view=run_view.build(),
        lists=run_list.build(),
        buttons=buttons,
        finder=lr_finder.build(),
        ended=gr.State(None),
        chosen=gr.Textbox(),
    )


def bare(kind: type) -> Any:
    """Components by the types of a dataclass's fields, and of the dataclasses in it, without a page."""
    if not is_dataclass(kind):
        return kind()
    return kind(**{name: bare(part) for name, part in get_type_hints(kind).items()})
