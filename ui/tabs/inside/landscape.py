"""The view of the loss landscape: of one run or of several, through their epochs or in random directions."""

from dataclasses import replace
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.insight import contours, landscape
from trainer.insight.landscape import LossMap
from trainer.palette import COLORS
from ui.charts.inside.landscape import HEIGHT, draw, landscape_chart
from ui.charts.live import live_chart
from ui.i18n.words import i18n, translate
from ui.jobs.insight import Inspected, LandscapeJob
from ui.lab import Lab
from ui.parts.markup import keys, note
from ui.parts.messages import Updates
from ui.parts.shared import Shared
from ui.tabs.inside.choice import Choice
from ui.tabs.inside.job_view import Controls, JobView, build_controls, build_downloads, connect

NAME = "landscape"

_EPOCHS, _RANDOM = "epochs", "random"
_FEWEST_DRAWN = 4  # the corners
_HINT = "The training loss around the path of a run, or of the contenders of a race. Press Draw."
_READING = "Lines join places of equal loss, and darker shades mean a higher one; each dot is the network of an epoch."


def build(lab: Lab, shared: Shared, choice: Choice) -> None:
    """Adds the view and its events to the page being built."""
    plane = gr.Radio(
        [(i18n("through the epochs"), _EPOCHS), (i18n("random directions around the last network"), _RANDOM)],
        value=_EPOCHS,
        label=i18n("Plane"),
        elem_id="landscape-plane",
    )
    start, stop, refused, status = build_controls(NAME, "Draw")
    with gr.Column(visible=False) as body:
        remarks = gr.HTML(visible=False, elem_id="landscape-remarks")
        legend = gr.HTML(elem_id="landscape-legend")
        chart = live_chart(
            landscape_chart(None, "en"), height=HEIGHT, label="The loss landscape", elem_id="landscape-chart"
        )
        explanation = gr.HTML(elem_id="landscape-explanation")
        csv, svg = build_downloads(NAME)
    controls = Controls(
        start=start, stop=stop, refused=refused, status=status, body=body, remarks=remarks, csv=csv, svg=svg
    )

    def begin(visitor: str, runs: list[Inspected], *, plane: Any) -> None:
        start_job(lab, visitor, runs, is_random=plane == _RANDOM, is_alone=True)

    def display(job: LandscapeJob, language: str) -> Updates:
        found = _found(job)
        named = keys(zip(COLORS, found.names, strict=False))
        return {
            legend: f"<div class='legend'>{named}</div>",
            chart: landscape_chart(found, language),
            explanation: note(" ".join(translate(words, language) for words in _sentences(found))),
        }

    view = JobView(
        name=NAME,
        kind=LandscapeJob,
        hint=_HINT,
        controls=controls,
        outputs=[legend, chart, explanation],
        inputs={"plane": plane},
        begin=begin,
        has_results=lambda job: job.found is not None and len(job.found.losses) >= _FEWEST_DRAWN,
        progress=_progress,
        display=display,
        to_csv=lambda job: contours.to_csv(_found(job)),
        draw=lambda job, language: draw(_found(job), language),
    )
    connect(view, lab, shared, choice)


def start_job(
    lab: Lab,
    owner: str,
    runs: list[Inspected],
    *,
    is_random: bool,
    num_points: int = landscape.NUM_POINTS,
    num_images: int = landscape.NUM_IMAGES,
    **options: Any,
) -> LandscapeJob:
    """Starts a job that computes a landscape and returns it. Raises UserError for more runs than it can show."""
    if is_random and len(runs) > 1:
        raise UserError("Random directions are those around one network: choose a single run.")
    if len(runs) > len(COLORS):
        raise UserError("A landscape can have the paths of up to {count} runs: choose fewer.", count=len(COLORS))
    return lab.draw_landscape(owner, runs, is_random=is_random, num_points=num_points, num_images=num_images, **options)


def _found(job: LandscapeJob) -> LossMap:
    """A copy of what is known so far; the job's thread adds to the original."""
    assert job.found is not None
    return replace(job.found, losses=dict(job.found.losses))


def _sentences(found: LossMap) -> list[str]:
    """How to read the chart, and what it shows."""
    marks = ["✕ marks places where the loss is not finite."] if found.num_infinite else []
    return [_READING, *marks, *contours.caption(found)]


def _progress(job: LandscapeJob, language: str) -> str:
    if job.found is None:
        return ""
    return translate("{count} of {total} points", language, count=len(job.found.losses), total=len(job.found.xs) ** 2)
