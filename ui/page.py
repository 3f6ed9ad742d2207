"""A page is opened."""

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from ui import bench, classifier, fields, shelf, view
from ui.lab import Lab, is_key, new_visitor
from ui.language import current_language
from ui.notice import notice

_SECONDS_BETWEEN_UPDATES = 0.5
_SECONDS_TO_LET_GO = 15.0  # what a training needs to notice that its page was left


def load(lab: Lab, panel: fields.Panel, visitor: str | None, had_runs: Any) -> Iterator[list[Any]]:
    """The visitor's key, what they should know, how the images come along, their latest race, what the link holds."""
    visitor = visitor if is_key(visitor) else new_visitor()
    language = current_language()
    request = LocalContext.request.get(None)
    opened = [
        gr.update(interactive=True),  # Train, which needs to know whose run it is
        *bench.open_link(lab, dict(request.query_params) if request else {}, panel),
    ]
    told = notice(lab, visitor, had_runs is True)
    known = gr.update(value=told, visible=bool(told))
    begun = time.monotonic()
    while True:
        key, runs = shelf.latest(lab, visitor)
        images = lab.images
        yield [
            visitor,
            known,
            view.images_note(images, lab.loading, lab.failure, language),
            classifier.invitation(language) if opened else gr.skip(),
            *view.results(runs, images, language),
            *shelf.choices(lab, visitor, key),
            classifier.samples(images),
            *(opened or [gr.skip()] * (10 + len(panel.components))),
        ]
        opened = []  # once: what the visitor sets meanwhile stays
        # A reloaded page's own training still runs until its next event finds nobody there.
        going_on = any(run.status == "training" for run in runs)
        letting_go = going_on and time.monotonic() - begun < _SECONDS_TO_LET_GO
        if (images is not None or lab.failure) and not letting_go:
            return
        time.sleep(_SECONDS_BETWEEN_UPDATES)
