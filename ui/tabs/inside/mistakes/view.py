"""The view of a network's mistakes: the confusion matrix, the pictures in its fields, and how sure the answers were."""

import html
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.insight.mistakes import Answers, to_csv, unfair_because
from ui.charts.inside import mistakes as charts
from ui.charts.inside.mistakes import matrix_chart, reliability_chart
from ui.charts.live import live_chart
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.jobs.insight import MistakesJob
from ui.lab import Lab
from ui.parts import markup
from ui.parts.markup import advice, note, status_line
from ui.parts.messages import Updates, with_page_errors
from ui.parts.run.checkpoints import in_thread
from ui.parts.run.job_words import Standing, sharing_words, waiting_words
from ui.parts.run.run_list import download_path
from ui.parts.shared import AT_ONCE, Inputs, Shared, components, sent_with
from ui.run_index import is_key
from ui.stored_runs import bundled
from ui.tabs.inside.choice import Choice, images_of, single
from ui.tabs.inside.job_view import build_downloads
from ui.tabs.inside.mistakes.answers import answering, answers_of, chosen_run, runs_of
from ui.tabs.inside.mistakes.pictures import Pictures, build_pictures, show_differences, show_field, travel_with

NAME = "mistakes"


@dataclass(frozen=True, kw_only=True)
class MistakesView:
    """The components of the view."""

    says: gr.HTML
    stop: gr.Button
    body: gr.Column
    run: gr.Dropdown
    other: gr.Dropdown
    summary: gr.HTML
    matrix: gr.HTML
    pictures: Pictures
    classes: gr.HTML
    reliability: gr.HTML

    def explain(self, says: str) -> Updates:
        """Updates that show a sentence, as HTML, and no mistakes."""
        return {self.says: says, self.stop: gr.update(visible=False), self.body: gr.update(visible=False)}

    def show(self, answers: Answers, unfair: str, says: str, language: str) -> Updates:
        """Updates that show the answers, and no pictures yet; `unfair` says why they are no fair score, or is empty."""
        press = translate("Press a field to see its pictures.", language)
        return {
            self.says: says,
            self.stop: gr.update(visible=False),
            self.body: gr.update(visible=True),
            self.summary: _summary(answers, unfair, language),
            self.matrix: matrix_chart(answers, language),
            self.pictures.says: note(press),
            self.pictures.gallery: gr.update(value=[], visible=False),
            self.pictures.indices: [],
            self.classes: _classes(answers, language),
            self.reliability: reliability_chart(answers, language),
        }


def build(lab: Lab, shared: Shared, choice: Choice) -> None:
    """Adds the view and its events to the page being built."""
    says = gr.HTML(elem_id="mistakes-says")
    stop = gr.Button(i18n("Stop"), size="sm", visible=False, elem_id="mistakes-stop")
    with gr.Column(visible=False) as body:
        with gr.Row():
            run = gr.Dropdown([], label=i18n("Run"), visible=False, elem_id="mistakes-run")
            other = gr.Dropdown([], label=i18n("Compared with"), visible=False, elem_id="mistakes-other")
        summary = gr.HTML(elem_id="mistakes-summary")
        matrix = live_chart(
            matrix_chart(None, "en"), height=charts.HEIGHT, label="The confusion matrix", elem_id="confusion"
        )
        differences = gr.Button(i18n("Show where they disagree"), size="sm", visible=False, elem_id="disagreements")
        pictures = build_pictures()
        with gr.Row():
            with gr.Column(min_width=280):
                classes = gr.HTML(elem_id="mistakes-classes")
            with gr.Column(min_width=280):
                reliability = live_chart(
                    reliability_chart(None, "en"),
                    height=charts.RELIABILITY_HEIGHT,
                    label="The reliability diagram",
                    elem_id="reliability",
                )
        csv, svg = build_downloads(NAME)
    view = MistakesView(
        says=says,
        stop=stop,
        body=body,
        run=run,
        other=other,
        summary=summary,
        matrix=matrix,
        pictures=pictures,
        classes=classes,
        reliability=reliability,
    )
    turn = gr.State([0])
    inputs: Inputs = {"run": run, "other": other, "turn": turn}
    handler = partial(show, lab, view, differences)
    choice.on_change(handler, inputs, [view, differences], api_name="_mistakes")
    chosen: Inputs = {"visitor": choice.visitor, "names": choice.runs, **inputs}
    gr.on(
        [run.input, other.input],
        partial(handler, view=NAME),
        inputs_kwargs=dict(chosen),
        outputs=components(view, differences),
        trigger_mode="multiple",
        api_name="_mistakes_run",
        **AT_ONCE,
    )
    stop.click(partial(_stop, lab), choice.visitor, None, api_name="_stop_mistakes", **AT_ONCE)

    @with_page_errors
    async def press(visitor: Any, names: Any, run: Any, event: gr.EventData) -> Updates:
        return await show_field(lab, pictures, visitor, names, run, sent_with(event, "press"))

    of_run: Inputs = {"visitor": choice.visitor, "names": choice.runs, "run": run}
    outputs = components(pictures)
    matrix.select(press, inputs_kwargs=dict(of_run), outputs=outputs, api_name="_confused", **AT_ONCE)
    differences.click(
        partial(show_differences, lab, pictures),
        inputs_kwargs={**of_run, "other": other},
        outputs=outputs,
        api_name="_disagreements",
        **AT_ONCE,
    )

    @with_page_errors
    def travel(names: Any, run: Any, indices: list[int], event: gr.EventData) -> Updates:
        return travel_with(lab, choice, names, run, indices, sent_with(event, "index"))

    pictures.gallery.select(
        travel,
        inputs_kwargs={"names": choice.runs, "run": run, "indices": pictures.indices},
        outputs=[choice.view, choice.picture],
        api_name="_mistake_over_time",
        **AT_ONCE,
    )
    for button, suffix, content in ((csv, "csv", lambda answers, _: to_csv(answers)), (svg, "svg", charts.draw)):
        saving = partial(save, lab, suffix, content)
        shared.download_on_click(button, saving, of_run, api_name=f"_mistakes_{suffix}")


def _stop(lab: Lab, visitor: Any) -> None:
    if is_key(visitor):
        lab.jobs.stop(visitor, MistakesJob)


@with_page_errors
async def save(
    lab: Lab, suffix: str, content: Callable[[Answers, str], str], *, visitor: Any, names: Any, run: Any
) -> str:
    """The path of a file with the mistakes."""
    answers = await answers_of(lab, visitor, chosen_run(lab, names, run))
    path = download_path(f"optimizer-lab-mistakes.{suffix}")
    path.write_text(await in_thread(content, answers, current_language()), encoding="utf-8")
    return str(path)


async def show(
    lab: Lab,
    components: MistakesView,
    differences: gr.Button,
    *,
    visitor: Any,
    names: Any,
    view: Any,
    run: Any,
    other: Any,
    turn: list[int],
) -> AsyncIterator[Updates]:
    """Yields updates with the progress, then those that show the mistakes; a UserError is explained in their place.

    `turn` counts the calls of a page: an earlier call ends without another update.
    """
    turn[0] += 1
    if view != NAME:
        yield gr.skip()
        return
    own_turn, language = turn[0], current_language()
    try:
        names = runs_of(lab, names)
        run, list_of_runs = single(lab, visitor, names, run)
        others = [name for name in names if name != run]
        other = other if other in others else next(iter(others), None)
        images = await in_thread(images_of, lab, visitor, run)
        async for step in answering(lab, visitor, run):
            if turn[0] != own_turn:
                yield gr.skip()  # Gradio sends the last update again at the end
                return
            if isinstance(step, Answers):
                answers = step
            else:
                says = _progress(lab, step, language)
                yield {**components.explain(says), components.stop: gr.update(visible=True)}
        unfair = unfair_because(lab.runs.own_run(visitor, run), images) if is_key(run) else ""
        shipped = translate("{name}, comes with the app", language, name=run)
        says = note(shipped) if run in bundled() else ""
        shown = await in_thread(components.show, answers, unfair, says, language)
        yield {
            **shown,
            components.run: list_of_runs,
            components.other: gr.update(
                choices=[each for each in list_of_runs["choices"] if each[1] != run],
                value=other,
                visible=len(names) > 1,
            ),
            differences: gr.update(visible=other is not None),
        }
    except UserError as error:
        yield components.explain(advice(translate(str(error), language)))


def _progress(lab: Lab, job: MistakesJob, language: str) -> str:
    if job.state == "waiting":
        return status_line("Not started yet", waiting_words(lab.jobs, job, language), 0, language)
    words = [f"{job.share:.0%}", *sharing_words(Standing.of(lab.jobs, job), language)]
    return status_line("Classifying the test pictures", " · ".join(words), job.share, language)


def _summary(answers: Answers, unfair: str, language: str) -> str:
    sentence = translate(
        "{accuracy} of {count} test pictures right; expected calibration error {error}.",
        language,
        accuracy=f"{answers.accuracy:.2%}",
        count=f"{len(answers.labels):,}",
        error=f"{answers.calibration_error:.2%}",
    )
    read = translate(
        "A row holds the pictures of a class, a column what they were taken for. In the reliability diagram, bars "
        "below the dashed line mean that the network is too sure of itself (Guo et al. 2017, arXiv:1706.04599).",
        language,
    )
    added = advice(translate(unfair, language)) if unfair else ""
    return f"<div><b>{html.escape(sentence)}</b></div>{added}{note(read)}"


def _classes(answers: Answers, language: str) -> str:
    """The scores of the classes as an HTML table."""

    def percent(share: float | None) -> str:
        return "–" if share is None else f"{share:.1%}"

    rows = [
        (html.escape(score.name), score.num_pictures, percent(score.recall), percent(score.precision))
        for score in answers.class_scores
    ]
    return markup.table(("class", "pictures", "recall", "precision"), rows, language)
