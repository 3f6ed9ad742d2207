"""The Inside tab: its list of runs, and its views."""

from typing import Any

import gradio as gr

from ui.i18n.words import i18n
from ui.lab import Lab
from ui.parts.messages import Updates
from ui.parts.run import run_list
from ui.parts.shared import AT_ONCE, Shared
from ui.run_index import is_key
from ui.tabs.inside import landscape, layers, sharpness
from ui.tabs.inside.choice import Choice
from ui.tabs.inside.mistakes import view as mistakes
from ui.tabs.inside.time_machine import view as time_machine

# The views by name: the title of each, and the function that adds it to the page being built.
VIEWS = {
    layers.NAME: ("Layers", layers.build),
    mistakes.NAME: ("Mistakes", mistakes.build),
    time_machine.NAME: ("Time machine", time_machine.build),
    landscape.NAME: ("Landscape", landscape.build),
    sharpness.NAME: ("Sharpness", sharpness.build),
}


def latest_race(lab: Lab, visitor: Any) -> list[str]:
    """The keys of the runs of the visitor's latest race; [] without one."""
    folders = next(iter(lab.runs.races_of(visitor).values()), [])
    return [folder.name for folder in folders][: run_list.MOST_COMPARED]


def still_chosen(lab: Lab, visitor: Any, names: Any, offered: list[str]) -> list[str]:
    """The runs that the visitor chose, without their deleted ones; [] if they were `offered` instead of chosen."""
    if not isinstance(names, list) or names == offered:
        return []
    own = {folder.name for folders in lab.runs.races_of(visitor).values() for folder in folders}
    return [name for name in names if not is_key(name) or name in own]


def build(lab: Lab, tab: gr.Tab, shared: Shared) -> gr.Radio:
    """Adds the content of the tab and its events to the page being built; opening the tab fills it.

    Returns the component that chooses among the views.
    """
    first = next(iter(VIEWS))
    runs = gr.Dropdown(
        [],
        value=[],
        multiselect=True,
        max_choices=run_list.MOST_COMPARED,
        label=i18n("Runs"),
        info=i18n("One run, or several to compare. Or type the name of a published one: owner/name."),
        allow_custom_value=True,
        elem_id="inside-runs",
    )
    view = gr.Radio(
        [(i18n(title), name) for name, (title, _) in VIEWS.items()],
        value=first,
        label=i18n("View"),
        show_label=False,
        container=False,
        elem_id="inside-view",
    )

    offered = gr.State([])

    def fill(visitor: Any, names: Any, latest: list[str]) -> Any:
        choices = run_list.single_runs(lab, visitor) + run_list.bundled_networks()
        kept, latest = still_chosen(lab, visitor, names, latest), latest_race(lab, visitor)
        return gr.update(choices=choices, value=kept or latest), latest

    opened = tab.select(
        fill,
        inputs_kwargs={"visitor": shared.visitor, "names": runs, "latest": offered},
        outputs=[runs, offered],
        api_name="_inside",
        **AT_ONCE,
    )
    # A typed name is no input to Gradio, but every choice is a selection, which comes before the value has changed.
    chosen = runs.select(lambda: None, None, None, api_name="_inside_chosen", **AT_ONCE)
    choice = Choice(opened=opened, chosen=chosen, visitor=shared.visitor, runs=runs, view=view, picture=gr.State(None))
    bodies: dict[str, gr.Column] = {}
    for name, (_, build_view) in VIEWS.items():
        with gr.Column(visible=name == first, elem_id=f"inside-{name}") as bodies[name]:
            build_view(lab, shared, choice)

    def turn_to(view: Any) -> Updates:
        return {body: gr.update(visible=name == view) for name, body in bodies.items()}

    view.change(
        turn_to, inputs_kwargs={"view": view}, outputs=list(bodies.values()), api_name="_inside_view", **AT_ONCE
    )
    return view
