"""A page is opened, and shows what goes on elsewhere."""

import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from trainer.runs.run import is_training
from ui.charts.lr_finder import finder_chart
from ui.i18n.language import current_language
from ui.lab import Lab, is_key, new_visitor
from ui.parts import fields, run_list, run_view
from ui.parts.notice import notice
from ui.tabs import bench, classify

_SECONDS_BETWEEN_UPDATES = 0.5


def load(lab: Lab, panel: fields.Panel, visitor: str | None, had_runs: Any) -> Iterator[list[Any]]:
    """The visitor's key, what they should know, how the images come along, their latest race, what the link holds."""
    visitor = visitor if is_key(visitor) else new_visitor()
    language = current_language()
    request = LocalContext.request.get(None)
    told = notice(lab, visitor, had_runs is True)
    key, runs = run_list.latest(lab, visitor)
    images = lab.images
    goes_on = is_training(runs)
    parts = [
        [visitor, gr.update(value=told, visible=bool(told)), goes_on],
        [run_view.images_note(images, lab.loading, lab.failure, language)],
        [
            classify.invitation(language),
            *run_view.results(runs, images, language),
            *run_list.choices(lab, visitor, key),
        ],
        [classify.samples(images)],
        [gr.update(interactive=True)],  # Train, which needs to know whose run it is
        [finder_chart([], None, None, language)],
        bench.open_link(lab, dict(request.query_params) if request else {}, panel),
    ]
    yield [*chain(*parts)]
    parts = [[gr.skip()] * len(part) for part in parts]  # once: what the visitor does meanwhile stays
    while images is None and not lab.failure:
        time.sleep(_SECONDS_BETWEEN_UPDATES)
        images = lab.images
        parts[1] = [run_view.images_note(images, lab.loading, lab.failure, language)]
        parts[3] = [classify.samples(images)]
        yield [*chain(*parts)]


def follow(lab: Lab, visitor: str, goes_on: bool) -> Iterator[list[Any]]:
    """What the visitor trains in another tab, or in a page that was left, until it ends.

    `goes_on`: whether something trained when the page was opened; if so, its end is shown, even if that has come since.
    """
    if not goes_on:
        yield [gr.skip()] * (run_view.NUM_RESULTS + run_list.NUM_CHOICES)
    language = current_language()
    while goes_on:
        key, runs = run_list.latest(lab, visitor)
        goes_on = is_training(runs)
        yield [*run_view.results(runs, lab.images, language), *run_list.choices(lab, visitor, key, keep=True)]
        if goes_on:
            time.sleep(_SECONDS_BETWEEN_UPDATES)
