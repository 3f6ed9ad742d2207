"""The view of a network's mistakes: the confusion matrix, the pictures in its fields, and how sure the answers were."""

import asyncio
import html
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import gradio as gr

from trainer.errors import UserError
from trainer.images.image_data import ImageData
from trainer.insight.mistakes import Answers, to_csv, unfair_because
from trainer.networks.model import OptimizerLabModel
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
from ui.parts.run.checkpoints import in_thread, open_kept, open_model
from ui.parts.run.job_words import Standing, sharing_words, waiting_words
from ui.parts.run.run_list import download_path
from ui.parts.shared import AT_ONCE, Inputs, Shared, components
from ui.run_index import is_key
from ui.stored_runs import bundled
from ui.tabs.inside.choice import Choice, Picture, checked, images_of, single
from ui.tabs.inside.job_view import build_downloads, chosen_runs
from ui.tabs.inside.time_machine.view import NAME as TIME_MACHINE
from ui.visitors import checked_visitor

NAME = "mistakes"

_SECONDS_BETWEEN_UPDATES = 0.4
_MOST_PICTURES = 60  # in the gallery
_MOST_PROBABILITIES = 3  # of a picture

# The answers of each network for the test pictures, as long as the network is kept.
_known: "WeakKeyDictionary[OptimizerLabModel, tuple[str, Answers]]" = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class MistakesView:
    """The components of the view; `indices` holds those of the displayed test pictures."""

    says: gr.HTML
    stop: gr.Button
    body: gr.Column
    run: gr.Dropdown
    other: gr.Dropdown
    summary: gr.HTML
    matrix: gr.HTML
    field: gr.HTML
    pictures: gr.Gallery
    indices: gr.State
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
            self.field: note(press),
            self.pictures: gr.update(value=[], visible=False),
            self.indices: [],
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
        field = gr.HTML(elem_id="confusion-field")
        pictures = gr.Gallery(
            show_label=False,
            visible=False,
            columns=6,
            object_fit="contain",
            allow_preview=False,
            buttons=[],
            format="png",
            elem_id="confused-pictures",
        )
        indices = gr.State([])
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
        field=field,
        pictures=pictures,
        indices=indices,
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
        pressed = event._data.get("press") if isinstance(event._data, dict) else None
        return await show_field(lab, view, visitor, names, run, pressed)

    of_run: Inputs = {"visitor": choice.visitor, "names": choice.runs, "run": run}
    outputs = [field, pictures, indices]
    matrix.select(press, inputs_kwargs=dict(of_run), outputs=outputs, api_name="_confused", **AT_ONCE)
    differences.click(
        partial(show_differences, lab, view),
        inputs_kwargs={**of_run, "other": other},
        outputs=outputs,
        api_name="_disagreements",
        **AT_ONCE,
    )

    @with_page_errors
    def travel(names: Any, run: Any, indices: list[int], event: gr.SelectData) -> Updates:
        return travel_with(lab, choice, names, run, indices, event.index)

    pictures.select(
        travel,
        inputs_kwargs={"names": choice.runs, "run": run, "indices": indices},
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


def travel_with(lab: Lab, choice: Choice, names: Any, run: Any, indices: list[int], place: Any) -> Updates:
    """Updates that open the time machine with a displayed picture and its run."""
    name = _chosen(lab, names, run)
    if name in bundled() or place not in range(len(indices)):
        return gr.skip()
    picture = Picture(run=name, index=indices[place], token=secrets.token_hex(4))
    return {choice.view: TIME_MACHINE, choice.picture: picture}


@with_page_errors
async def save(
    lab: Lab, suffix: str, content: Callable[[Answers, str], str], *, visitor: Any, names: Any, run: Any
) -> str:
    """The path of a file with the mistakes."""
    answers = await _answers(lab, visitor, _chosen(lab, names, run))
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
        names = _runs_of(lab, names)
        run, list_of_runs = single(lab, visitor, names, run)
        others = [name for name in names if name != run]
        other = other if other in others else next(iter(others), None)
        images = await in_thread(images_of, lab, visitor, run)
        async for step in _answering(lab, visitor, run):
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


async def show_field(lab: Lab, components: MistakesView, visitor: Any, names: Any, run: Any, pressed: Any) -> Updates:
    """Updates that show the pictures of a field of the matrix, "row column"."""
    language, name = current_language(), _chosen(lab, names, run)
    answers = await _answers(lab, visitor, name)
    count = len(answers.class_names)
    try:
        true, taken = (int(part) for part in str(pressed).split())
        if not (0 <= true < count and 0 <= taken < count):
            raise ValueError
    except ValueError:
        raise UserError("There is no such field.") from None
    indices = answers.pictures_in(true, taken)
    sentence = translate(
        "{count} pictures of {true} taken for {taken}, the surest first",
        language,
        count=len(indices),
        true=answers.class_names[true],
        taken=answers.class_names[taken],
    )
    captions = [_probabilities(answers, index) for index in indices[:_MOST_PICTURES]]
    images = await in_thread(images_of, lab, visitor, name)
    return _gallery(images, components, name, indices, captions, sentence)


@with_page_errors
async def show_differences(
    lab: Lab, components: MistakesView, *, visitor: Any, names: Any, run: Any, other: Any
) -> Updates:
    """Updates that show the pictures for which two networks have different answers."""
    language, names = current_language(), checked(names)
    if run not in names or other not in names:
        raise UserError("Choose two runs first.")
    one, two = await _answers(lab, visitor, run), await _answers(lab, visitor, other)
    if set(one.class_names) != set(two.class_names):
        raise UserError("The two networks know different classes.")
    indices = one.differs_from(two)
    right = sum(bool(one.predicted[index] == one.labels[index]) for index in indices)
    other_right = sum(bool(two.predicted[index] == two.labels[index]) for index in indices)
    sentence = translate(
        "The two disagree on {count} pictures: the first is right on {right} of them, the second on {other}.",
        language,
        count=len(indices),
        right=right,
        other=other_right,
    )
    captions = [
        f"{one.class_names[one.labels[index]]}: {_probabilities(one, index, 1)} / {_probabilities(two, index, 1)}"
        for index in indices[:_MOST_PICTURES]
    ]
    images = await in_thread(images_of, lab, visitor, run)
    return _gallery(images, components, run, indices, captions, sentence)


def _gallery(
    images: ImageData,
    components: MistakesView,
    name: str,
    indices: Sequence[int],
    captions: Sequence[str],
    sentence: str,
) -> Updates:
    language = current_language()
    link = translate("Press a picture to follow it over the epochs.", language)
    pictures = images.test.images
    shown = [
        (pictures[index].permute(1, 2, 0).numpy(), caption) for index, caption in zip(indices, captions, strict=False)
    ]
    more = note(link) if shown and name not in bundled() else ""
    return {
        components.field: f"<div class='note'><b>{html.escape(sentence)}</b></div>{more}",
        components.pictures: gr.update(value=shown, visible=bool(shown)),
        components.indices: list(indices[:_MOST_PICTURES]),
    }


def _probabilities(answers: Answers, index: int, most: int = _MOST_PROBABILITIES) -> str:
    """The likeliest classes of a picture with their probabilities."""
    likeliest = answers.probabilities[index].topk(min(most, len(answers.class_names)))
    pairs = zip(likeliest.values.tolist(), likeliest.indices.tolist(), strict=True)
    return " · ".join(f"{answers.class_names[number]} {share:.1%}" for share, number in pairs)


def _runs_of(lab: Lab, names: Any) -> list[str]:
    """The chosen runs; without any, the small network that comes with the app, if it knows the classes of the pictures.

    Raises UserError if there are none.
    """
    shipped = bundled()[-1:]
    if names == [] and shipped and set(open_kept(lab, shipped[0]).class_names) == set(lab.ready_images().class_names):
        return shipped
    return checked(names)


def _chosen(lab: Lab, names: Any, run: Any) -> str:
    names = _runs_of(lab, names)
    return run if run in names else names[0]


async def _answers(lab: Lab, visitor: Any, name: str) -> Answers:
    *_, answers = [step async for step in _answering(lab, visitor, name)]
    assert isinstance(answers, Answers)
    return answers


async def _answering(lab: Lab, visitor: Any, name: str) -> AsyncIterator[MistakesJob | Answers]:
    """Yields the job that computes the answers of a network, again and again until it has ended; then the answers.

    They are computed once. Raises UserError if they cannot be.
    """
    if is_key(name):
        lab.runs.own_run(visitor, name)
    images, model = await in_thread(images_of, lab, visitor, name), await open_model(lab, name)
    digest, answers = _known.get(model, ("", None))
    if answers is None or digest != images.digest:
        job = lab.jobs.of(visitor, MistakesJob) if is_key(visitor) else None
        if job is None or not job.is_active or job.key != name:
            (inspected,) = chosen_runs(lab, visitor, [name])
            lab.jobs.stop(checked_visitor(visitor), MistakesJob)  # for the network that was chosen before
            job = lab.find_mistakes(visitor, inspected, key=name)
        while not job.ended.is_set():
            job.watched_at = time.monotonic()
            yield job
            await asyncio.sleep(_SECONDS_BETWEEN_UPDATES)
        answers = job.answers
        if answers is None:
            raise UserError(job.failure)
        _known[model] = images.digest, answers
    yield answers


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
