"""The race: the list of settings to train side by side, and the buttons that fill it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gradio as gr
from gradio.events import Dependency

from trainer.errors import UserError
from trainer.learning.race import MAX_SEEDS, MAX_SETTINGS
from trainer.runs.comparison import fewest_differences, label
from trainer.settings.config import TrainConfig
from trainer.settings.fields import label_of
from trainer.settings.lessons import zero_grad_lab
from ui.i18n.words import i18n
from ui.parts.form import fields
from ui.parts.messages import Updates, with_page_errors
from ui.parts.shared import AT_ONCE
from ui.tabs.train.buttons import STARTS, refusal


@dataclass(frozen=True, kw_only=True)
class Race:
    """The panel: the list of contenders, the number of seeds, the start button, and the buttons that fill the list."""

    panel: gr.Accordion
    contenders: gr.Dropdown
    num_seeds: gr.Slider
    start: gr.Button
    refused: gr.HTML
    add: gr.Button
    every: gr.Number
    fill: gr.Button


def build(add: gr.Button) -> Race:
    """Adds the panel to the page being built; `add` is the button that adds the page's settings to the list."""
    with gr.Accordion(i18n("Race: settings side by side"), open=False, elem_id="race-panel") as panel:
        return Race(
            panel=panel,
            contenders=gr.Dropdown(
                [],
                value=[],
                multiselect=True,
                max_choices=MAX_SETTINGS,
                label=i18n("Settings in the race"),
                info=i18n("All start from the same weights and train on the same batches. × removes one."),
                elem_id="race",
            ),
            add=add,
            num_seeds=gr.Slider(
                1,
                MAX_SEEDS,
                value=1,
                step=1,
                label=i18n("seeds per setting"),
                info=i18n(
                    "With several seeds, each result is a mean ± standard deviation, which tells how much is due to "
                    "chance."
                ),
                elem_id="seeds",
            ),
            start=gr.Button(i18n("Start the race"), variant="primary", elem_id="start-race", **STARTS),
            refused=refusal("refused-race"),
            every=gr.Number(
                4,
                precision=0,
                minimum=2,
                label=i18n("zero_grad lab: clear every … batches"),
                info=i18n(
                    "Fills the race with four versions of the current settings: gradients cleared after every batch, "
                    "after every N batches, never, and after every batch with batches N times as large."
                ),
                elem_id="every",
            ),
            fill=gr.Button(i18n("Set up the zero_grad lab"), size="sm", elem_id="zero-grad-lab"),
        )


def fill_on_click(race: Race, widgets: Mapping[str, fields.Widget]) -> list[Dependency]:
    """Makes the panel's buttons fill the list from the settings in `widgets`; returns the events that change it."""
    added = race.add.click(
        partial(add_settings, race),
        inputs_kwargs={"contenders": race.contenders, **widgets},
        outputs=[race.contenders, race.panel],
        api_name="_add_to_race",
        **AT_ONCE,
    )
    removed = race.contenders.input(
        relabel,
        inputs_kwargs={"contenders": race.contenders},
        outputs=race.contenders,
        api_name="_relabel_race",
        **AT_ONCE,
    )
    filled = race.fill.click(
        fill_zero_grad_lab,
        inputs_kwargs={"every": race.every, **widgets},
        outputs=race.contenders,
        api_name="_zero_grad_lab",
        **AT_ONCE,
    )
    return [added, removed, filled]


@with_page_errors
def add_settings(race: Race, contenders: Any, **settings: Any) -> Updates:
    """Updates that add the page's settings to the list, and open the panel."""
    others = read_contenders(contenders)
    config = replace(fields.read_config(settings), seed=0)
    if config in others:
        raise UserError("These settings are in the race already.")
    if len(others) == MAX_SETTINGS:
        raise UserError("A race can have up to {most} settings.", most=MAX_SETTINGS)
    return {race.contenders: list_contenders([*others, config]), race.panel: gr.update(open=True)}


@with_page_errors
def relabel(contenders: Any) -> Any:
    """The update of the list after some were removed: the others are named by what distinguishes them now."""
    return list_contenders(read_contenders(contenders))


@with_page_errors
def fill_zero_grad_lab(every: float | None, **settings: Any) -> Any:
    """The update of the list that sets up the zero_grad lab, with gradients cleared every `every` batches."""
    config = replace(fields.read_config(settings), seed=0)
    return list_contenders(zero_grad_lab(config, int(min(every or 0, 1e6))))


def list_contenders(configs: list[TrainConfig]) -> Any:
    """The update of the list for these settings, each named by what distinguishes it from the others."""
    names = [label(own) for own in fewest_differences(configs)]
    if len(configs) == 1:
        names = [f"{configs[0].optimizer}, {configs[0].scheduler}, lr {label_of(configs[0].lr)}"]
    # As JSON, so that the list's value contains the settings and the server stores none.
    values = [json.dumps(config.settings()) for config in configs]
    return gr.update(choices=list(zip(names, values, strict=True)), value=values)


def read_contenders(contenders: Any) -> list[TrainConfig]:
    """The settings in the list, which holds each as JSON. Raises UserError for anything else."""
    try:
        settings = [json.loads(text) for text in contenders or []]
    except (TypeError, RecursionError, ValueError):
        raise UserError("The race's list is damaged: clear it, and add the settings again.") from None
    return list(map(TrainConfig.from_settings, settings))
