"""The runs and the view that a visitor chose in the Inside tab."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from gradio.events import Dependency

from trainer.errors import UserError
from trainer.images.image_data import ImageData
from trainer.runs.layers import read_layers
from trainer.runs.reader import read_run
from trainer.runs.run import Run
from ui.lab import Lab
from ui.parts.run import run_list
from ui.parts.run.checkpoints import in_hub_thread, in_thread, open_layers, open_run
from ui.parts.run.run_list import MOST_COMPARED
from ui.parts.shared import AT_ONCE, Inputs, components
from ui.run_index import is_key
from ui.stored_runs import bundled


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A test picture by its index, and the name of a run; `token` makes each request for it another one."""

    run: str
    index: int
    token: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The components that hold the choice; `opened` is the event after which they are filled.

    `chosen` is the event after which the visitor has chosen other runs.

    `picture` holds the test picture to show in the time machine, a Picture or None.

    A run's name is its key if it is the visitor's own, its repo if it is published, and the name of a network that
    comes with the app.
    """

    opened: Dependency
    chosen: Dependency
    visitor: gr.BrowserState
    runs: gr.Dropdown
    view: gr.Radio
    picture: gr.State

    def on_change(
        self, show: Callable[..., Any], inputs: Inputs, outputs: Any, *, api_name: str, **options: Any
    ) -> None:
        """Calls a view's `show(visitor=…, names=…, view=…, **inputs)` when the tab is opened or the choice changes."""
        options = {
            "fn": show,
            "inputs_kwargs": {"visitor": self.visitor, "names": self.runs, "view": self.view, **inputs},
            "outputs": components(outputs),
            **AT_ONCE,
            **options,
        }
        self.opened.success(api_name=f"{api_name}_opened", **options)
        self.chosen.success(api_name=f"{api_name}_chosen", **options)
        self.view.input(api_name=api_name, **{"trigger_mode": "always_last", **options})


def checked(names: Any) -> list[str]:
    """Returns the names of the chosen runs. Raises UserError if there are none, or too many."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError("Choose a run first.")
    if not names:
        raise UserError("Choose a run, or type the name of a published one; without any, train a network first.")
    if len(names) > MOST_COMPARED:
        raise UserError("Compare up to {most} runs at a time.", most=MOST_COMPARED)
    return names


def single(lab: Lab, visitor: Any, names: Sequence[str], chosen: Any) -> tuple[str, dict[str, Any]]:
    """Returns the name of the run that a view of a single one displays, and the update of the view's list of runs."""
    name = chosen if chosen in names else names[0]
    titles = {key: title for title, key in run_list.single_runs(lab, visitor)}
    choices = [(titles.get(each, each), each) for each in names]
    return name, gr.update(choices=choices, value=name, visible=len(names) > 1)


def images_of(lab: Lab, visitor: Any, name: str) -> ImageData:
    """Returns the images that a run was trained on, if they are the visitor's, or else the app's own.

    Raises UserError if these have not loaded.
    """
    return (lab.images_of_run(visitor, name) if is_key(name) else None) or lab.ready_images()


def check_is_run(name: str) -> None:
    """Raises UserError for a network that comes with the app, of which there are only the weights."""
    if name in bundled():
        raise UserError("{name} comes with the app as weights only: choose a run that was trained here.", name=name)


async def run_with_layers(lab: Lab, visitor: Any, name: str) -> Run:
    """Returns a run with what was measured in its layers. Raises UserError if there is no such run, or nothing was."""
    check_is_run(name)
    if "/" in name:
        run, layers = await in_hub_thread(open_run, name), await in_hub_thread(open_layers, name)
    else:
        folder = lab.runs.own_run(visitor, name)
        run, layers = await in_thread(read_run, folder), await in_thread(read_layers, folder)
    if not layers:
        raise UserError("Nothing was measured in the layers of this run; train it again to see them.")
    return replace(run, layers=layers)
