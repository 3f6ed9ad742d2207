"""The view of the sharpness of runs at their epochs, compared with the limit of stable steps."""

import gradio as gr

from trainer.errors import UserError
from trainer.insight.sharpness import NUM_IMAGES, RunSharpness, stability_limit
from trainer.palette import COLORS
from trainer.settings.config import TrainConfig
from ui.charts.inside.sharpness import HEIGHT, draw, loss_chart, sharpness_chart, to_csv
from ui.charts.live import live_chart
from ui.i18n.words import translate
from ui.jobs.insight import Inspected, SharpnessJob
from ui.lab import Lab
from ui.parts.markup import keys, note
from ui.parts.messages import Updates
from ui.parts.shared import Shared
from ui.tabs.inside.choice import Choice
from ui.tabs.inside.job_view import Controls, JobView, build_controls, build_downloads, connect

NAME = "sharpness"

_HINT = (
    "How sharply the training loss curves at each epoch, compared with what the learning rate can bear. Press Measure."
)
_READING = (
    "The sharpness is the largest eigenvalue of the Hessian of the loss, here on {count} training pictures (Cohen et "
    "al. 2021, arXiv:2103.00065)."
)
_LINE = (
    "Above the dashed line, gradient descent on all pictures is unstable: the loss swings, and the sharpness falls "
    "again."
)


def build(lab: Lab, shared: Shared, choice: Choice) -> None:
    """Adds the view and its events to the page being built."""
    start, stop, refused, status = build_controls(NAME, "Measure")
    with gr.Column(visible=False) as body:
        remarks = gr.HTML(visible=False, elem_id="sharpness-remarks")
        legend = gr.HTML(elem_id="sharpness-legend")
        with gr.Row():
            with gr.Column(min_width=280):
                chart = live_chart(
                    sharpness_chart([], "en"), height=HEIGHT, label="Sharpness per epoch", elem_id="sharpness-chart"
                )
            with gr.Column(min_width=280):
                loss = live_chart(
                    loss_chart([], "en"), height=HEIGHT, label="Training loss per epoch", elem_id="sharpness-loss"
                )
        explanation = gr.HTML(elem_id="sharpness-explanation")
        csv, svg = build_downloads(NAME)
    controls = Controls(
        start=start, stop=stop, refused=refused, status=status, body=body, remarks=remarks, csv=csv, svg=svg
    )

    def begin(visitor: str, runs: list[Inspected]) -> None:
        if len(runs) > len(COLORS):
            raise UserError("The sharpness of up to {count} runs can be compared: choose fewer.", count=len(COLORS))
        lab.measure_sharpness(visitor, runs, num_images=NUM_IMAGES, is_alone=True)

    def display(job: SharpnessJob, language: str) -> Updates:
        runs = _known(job)
        named = keys(zip(COLORS, (run.name for run in runs), strict=False))
        return {
            legend: f"<div class='legend'>{named}</div>",
            chart: sharpness_chart(runs, language),
            loss: loss_chart(runs, language),
            explanation: note(" ".join(_sentences(job, language))),
        }

    view = JobView(
        name=NAME,
        kind=SharpnessJob,
        hint=_HINT,
        controls=controls,
        outputs=[legend, chart, loss, explanation],
        inputs={},
        begin=begin,
        has_results=lambda job: any(run.rows for run in job.runs),
        progress=_progress,
        display=display,
        to_csv=lambda job: to_csv(_known(job)),
        draw=lambda job, language: draw(_known(job), language),
    )
    connect(view, lab, shared, choice)


def _known(job: SharpnessJob) -> list[RunSharpness]:
    """The runs of which something is known; the job's thread adds more."""
    return [run for run in list(job.runs) if run.rows]


def _progress(job: SharpnessJob, language: str) -> str:
    epoch = translate("epoch {epoch}", language, epoch=job.epoch)
    return f"{job.runs[-1].name} · {epoch}" if len(job.inspected) > 1 and job.runs else epoch


def _sentences(job: SharpnessJob, language: str) -> list[str]:
    """How to read the charts, and where the line is not the limit of the runs' own optimizers."""
    configs = [run.config for run in _known(job)]
    limited = [config for config in configs if stability_limit(config) is not None]
    sentences = [translate(_READING, language, count=job.num_images)]
    if limited:
        sentences.append(translate(_LINE, language))
    if unknown := sorted({config.optimizer for config in configs if config not in limited}):
        unstable = "At what sharpness {optimizers} becomes unstable is not known here."
        sentences.append(translate(unstable, language, optimizers=", ".join(unknown)))
    if any(config.momentum for config in limited):
        sentences.append(translate("Momentum raises the line, as its label says.", language))
    if any(map(_has_batches, limited)):
        noisy = "With small batches the sharpness usually stays below the line, because they are noisy."
        sentences.append(translate(noisy, language))
    return sentences


def _has_batches(config: TrainConfig) -> bool:
    return config.batch_size not in (0, config.num_images or -1)
