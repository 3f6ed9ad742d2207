"""A lab whose work runs in the thread of its job, on the CPU, and the part of a page that watches its jobs."""

from pathlib import Path

import gradio as gr
import torch

from ui.lab import Lab
from ui.parts import run_list, run_view
from ui.tabs.train import lr_finder
from ui.tabs.train.buttons import Buttons
from ui.tabs.train.live import LiveView


def run_here(work, stopping):
    """Runs work as a worker does, without a process."""
    for event in work.run(torch.device("cpu")):
        if stopping.is_set():
            return
        yield event


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
