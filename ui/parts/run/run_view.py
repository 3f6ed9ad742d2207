"""The view of a run, or of the runs of a race: status, lesson, legend, charts and table."""

import html
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gradio as gr

from trainer.errors import Message
from trainer.images.image_data import ImageData
from trainer.palette import COLORS, TEST, TRAIN
from trainer.runs.comparison import Contender, Spread, compare, short_labels, verdict
from trainer.runs.events import EpochEnded
from trainer.runs.run import Run, by_class
from trainer.settings.lessons import Lesson, lesson_of
from trainer.settings.presets import FIRST
from ui.charts import run_charts
from ui.charts.live import SMALL, live_chart
from ui.i18n.words import i18n, translate
from ui.parts import markup
from ui.parts.form.fold import fold
from ui.parts.markup import advice, bar, duration, english, keys, note, status_line, swatch
from ui.parts.messages import Updates
from ui.parts.run import first_sight
from ui.parts.run.job_words import Standing, sharing_words
from ui.parts.shared import AT_ONCE

_LOSS_HEIGHT, _SMALL_HEIGHT = 350, 150  # pixels

# What the buttons of the first sight do in the browser.
_PRESS_TRAIN = """() => {
  const train = document.querySelector("#train");
  const press = () => { if (train.disabled) setTimeout(press, 100); else train.click(); };
  press();
}"""
_GO_TO_LESSONS = """() => {
  document.querySelector("#lessons").scrollIntoView({ behavior: "smooth", block: "center" });
  document.querySelector("#lessons .card").focus({ preventScroll: true });
}"""
_REPLAY = """() => document.querySelectorAll("#results .chart").forEach((chart) =>
  chart.dispatchEvent(new Event("replay", { bubbles: true })))"""

NUM_CLASSES = 10  # CIFAR-10's, for charts that are drawn before the images have loaded

_SECONDS_JUST_NOW = 60.0
# Until the page knows whether something trains. The browser translates it.
_LOADING = "<div class='status'>" + i18n("Loading …") + "</div>"

_STATUS = {
    "training": ("Training", "in another program"),
    "completed": ("Done", ""),
    "stopped": ("Stopped", "by you; saved up to the last full epoch; Resume continues from there"),
    "diverged": ("Diverged", "the last epoch with a finite loss is saved"),
    "out_of_time": ("Out of time", "Resume continues from the last epoch"),
    "interrupted": ("Interrupted", "the app stopped; Resume continues from the last epoch"),
}
_RESUMABLE = "saved up to the last full epoch; Resume continues from there"


@dataclass(frozen=True, kw_only=True)
class RunView:
    """The components that show the runs of a race: status, legend, charts, the text of a lesson, and a table.

    Without any runs they show the recorded race, and `first` is the row of buttons below its result.
    """

    status: gr.HTML
    first: gr.Row
    legend: gr.HTML
    loss: gr.HTML
    lesson: gr.HTML
    accuracy: gr.HTML
    lr: gr.HTML
    grad_norm: gr.HTML
    table: gr.HTML

    def show(
        self,
        runs: Sequence[Run],
        images: ImageData | None,
        language: str,
        *,
        planned: Sequence[tuple[float, float]] = (),
        live: Standing | None = None,
        ended: float | None = None,
        waiting: Lesson | None = None,
    ) -> Updates:
        """Updates that show the runs of a race, or an empty view.

        `live` says how the job stands that trains them, `ended` when they ended, in seconds of `time.time`. `waiting`
        is a lesson that has not been trained yet, whose empty charts are shown instead of the recorded race.
        """
        values = _contents(runs, images, language, planned=planned, live=live, ended=ended, waiting=waiting)
        updates: Updates = {getattr(self, name): value for name, value in values.items()}
        is_first = not runs and not waiting and bool(first_sight.contenders())
        return {**updates, self.first: gr.update(visible=is_first)}


def build() -> RunView:
    """Adds the view, without any runs, to the page being built."""
    empty = {**_contents([], None, "en"), "status": _LOADING}

    def chart(name: str, height: int, label: str, elem_id: str) -> gr.HTML:
        return live_chart(empty[name], height=height, label=label, elem_id=elem_id)

    status = gr.HTML(empty["status"], elem_id="status")
    first = _build_first()
    legend = gr.HTML(english(empty["legend"]), elem_id="legend")
    with gr.Row(elem_id="charts"):
        with gr.Column(scale=5, min_width=400):
            loss = chart("loss", _LOSS_HEIGHT, "Loss per epoch", "loss")
        with gr.Column(scale=2, min_width=220, elem_id="small-charts"):
            accuracy = chart("accuracy", _SMALL_HEIGHT, "Test accuracy per epoch", "accuracy")
            lr = chart("lr", _SMALL_HEIGHT, "Learning rate", "lr")
    # Under the charts, which then stay in place when the text appears.
    lesson = gr.HTML(empty["lesson"], elem_id="happened")
    with fold(i18n("Table and gradient norm"), "details"):
        table = gr.HTML(english(empty["table"]), elem_id="table")
        grad_norm = chart("grad_norm", SMALL, "Gradient norm", "grad-norm")
    return RunView(
        status=status,
        first=first,
        legend=legend,
        loss=loss,
        lesson=lesson,
        accuracy=accuracy,
        lr=lr,
        grad_norm=grad_norm,
        table=table,
    )


def _build_first() -> gr.Row:
    """Adds the buttons of the first sight: train, look at the lessons, and play the recorded race again."""
    with gr.Row(visible=bool(first_sight.contenders()), elem_id="first") as row:
        gr.Button(i18n("Train it yourself"), variant="primary", scale=0, min_width=170, elem_id="first-train")
        gr.Button(i18n("Pick a lesson"), scale=0, min_width=140, elem_id="first-lesson")
        gr.Button(i18n("↻ Replay"), scale=0, min_width=110, elem_id="replay")
    return row


def act_on_click(view: RunView) -> None:
    """Makes the buttons of the first sight act, in the browser alone."""
    scripts = {"first-train": _PRESS_TRAIN, "first-lesson": _GO_TO_LESSONS, "replay": _REPLAY}
    for button in view.first.children:
        if isinstance(button, gr.Button):
            name = str(button.elem_id)
            button.click(None, None, None, js=scripts[name], api_name=f"_{name}".replace("-", "_"), **AT_ONCE)


def _contents(
    runs: Sequence[Run],
    images: ImageData | None,
    language: str,
    *,
    planned: Sequence[tuple[float, float]] = (),
    live: Standing | None = None,
    ended: float | None = None,
    waiting: Lesson | None = None,
) -> dict[str, Any]:
    """The values of a RunView's components, by their names."""
    is_first = not runs and not waiting
    contenders = first_sight.contenders() if is_first else compare(runs)
    planned_epochs = (waiting.config if waiting else FIRST).epochs
    epochs = max((run.config.epochs for one in contenders for run in one.runs), default=planned_epochs)
    num_classes = len(images.class_names) if images else NUM_CLASSES
    lesson = waiting or taught_lesson(runs)
    small: dict[str, Any] = {"epochs": epochs, "height": _SMALL_HEIGHT, "language": language}
    plays = {"plays": is_first}  # the recorded race is drawn as it happened
    return {
        "status": status(runs, language, live=live, ended=ended, waiting=waiting),
        "legend": legend(contenders, language, source="recorded on CIFAR-10" if is_first else ""),
        "loss": plays
        | run_charts.loss_chart(
            contenders, epochs=epochs, num_classes=num_classes, lesson=lesson, height=_LOSS_HEIGHT, language=language
        ),
        "lesson": lesson_words(lesson, runs, language),
        "accuracy": plays | run_charts.accuracy_chart(contenders, num_classes=num_classes, **small),
        "lr": plays | run_charts.lr_chart(planned if len(runs) == 1 else (), contenders, **small),
        "grad_norm": run_charts.measure_chart("grad_norm", contenders, **{**small, "height": SMALL}),
        "table": table(contenders, language) if runs and len(contenders) > 1 else epochs_table(runs, language),
    }


def taught_lesson(runs: Sequence[Run]) -> Lesson | None:
    """The lesson of the first run that belongs to one; None if no run does."""
    return next(filter(None, (lesson_of(run.config) for run in runs)), None)


def status(
    runs: Sequence[Run],
    language: str,
    *,
    live: Standing | None = None,
    ended: float | None = None,
    waiting: Lesson | None = None,
) -> str:
    """The state of the runs and their progress bar, as HTML."""
    if waiting:
        return status_line(waiting.title, "not trained yet: press the lesson's button", 0, language)
    if not runs and first_sight.contenders():
        return f"<div class='status'><h2>{html.escape(first_sight.headline(language))}</h2></div>"
    if not runs:
        return status_line("Ready.", "Press Train: the defaults work well.", 0, language)
    if len(runs) > 1:
        return _race_status(runs, language, live=live, ended=ended)

    say = partial(translate, language=language)
    run = runs[0]
    if live and not run.history:
        words = ["measuring the untrained network", *sharing_words(replace(live, seconds_left=None), language)]
        # Without a bar, which would fall back to the start when the training begins.
        return status_line("Starting", " · ".join(say(word) for word in words), 0, language)
    title, more = _STATUS[run.status]
    if not run.epoch and run.status in ("stopped", "interrupted", "out_of_time"):
        more = "no epoch was finished; Resume starts with the first"
    elif run.advice and run.status in ("stopped", "interrupted"):  # the advice says why
        more = _RESUMABLE
    at = min(run.config.epochs, run.epoch + (run.status == "training"))
    spoken = say("epoch {epoch} of {epochs}", epoch=at, epochs=run.config.epochs)
    words = [*_ago(ended, language), spoken]
    if live:
        more = Message("testing {share}", share=f"{run.evaluated:.0%}") if run.evaluated else ""
        if run.last_step is not None:
            words.append(say("loss {loss}", loss=f"{run.curve.points[-1].smoothed:.3f}"))
        words += sharing_words(live, language)
    words += _gpu_words(runs, language, live=live)
    if run.epoch and (best := run.best):
        accuracy = f"{best.test_accuracy:.1%}"
        words.append(say("best test accuracy {accuracy} (epoch {epoch})", accuracy=accuracy, epoch=best.epoch))
        if best.test_share < 1:
            words.append(say("on {share} of the test pictures", share=f"{best.test_share:.0%}"))
        words += _fairness(run, language)
    text = " · ".join([*words, *([say(more)] if more else [])])
    result, classes = "", ""
    if run.status == "completed" and run.config.train_split != "test":
        sentence = "After {epochs} epochs the network gets {accuracy} of the test pictures right."
        if run.epoch == 1:
            sentence = "After one epoch the network gets {accuracy} of the test pictures right."
        accuracy = f"{run.history[-1].test_accuracy:.1%}"
        result = html.escape(say(sentence, epochs=run.epoch, accuracy=accuracy))
        classes = say(by_class(run.history[-1]))
    share = run.epochs_passed / run.config.epochs
    advised = (run.advice, run.notice, run.warning)
    return status_line(title, text, share, language, *advised, verdict=result, more=classes, spoken=spoken)


def _race_status(runs: Sequence[Run], language: str, *, live: Standing | None, ended: float | None) -> str:
    say = partial(translate, language=language)
    contenders = compare(runs)
    passed = sum(run.config.epochs if run.status == "diverged" else run.epochs_passed for run in runs)
    share = passed / sum(run.config.epochs for run in runs)
    behind = [run.epoch for run in runs if run.status != "diverged" and run.epoch < run.config.epochs]
    epoch = min(behind, default=max(run.epoch for run in runs))
    epochs = max(run.config.epochs for run in runs)
    words = [*_ago(ended, language), say("{count} settings side by side", count=len(contenders))]
    if len(runs) > len(contenders):
        words.append(say("{count} runs", count=len(runs)))
    spoken = say("epoch {epoch} of {epochs}", epoch=min(epochs, epoch + 1) if live else epoch, epochs=epochs)
    words.append(spoken)
    if live:
        words += sharing_words(live, language)
    unfinished = {run.status for run in runs} - {"completed", "diverged"}
    words += _gpu_words(runs, language, live=live)
    reasons = {run.advice for run in runs if run.advice}
    title, more = _STATUS["training" if live else next(iter(unfinished), "completed")]
    if unfinished and not live:
        words.append(say(_RESUMABLE if reasons else more))
    won, result = verdict(contenders), ""
    if won and (accuracy := won.winner.accuracy):
        if unfinished:
            name = short_labels(contenders)[contenders.index(won.winner)]
            sentence = "so far {name} leads with a test accuracy of {accuracy}"
            words.append(say(sentence, name=name, accuracy=share_of(accuracy)))
        else:
            result = verdict_words(contenders, language)
        words += _fairness(won.winner.runs[0], language)
    warnings = {sentence for run in runs for sentence in (run.notice, run.warning) if sentence}
    text = " · ".join(words)
    advised = [*sorted(reasons), *sorted(warnings)]
    return status_line(title, text, share, language, *advised, verdict=result, spoken=spoken)


def verdict_words(contenders: Sequence[Contender], language: str) -> str:
    """Which of the contenders has the best test accuracy after its last epoch, as HTML; "" without a verdict."""
    won = verdict(contenders)
    if won is None or (accuracy := won.winner.accuracy) is None:
        return ""
    if won.is_tie:
        sentence = "It is a tie: the best two have the same test accuracy, {accuracy}"
    elif won.margin is None:
        sentence = "{name} won with a test accuracy of {accuracy}: all others diverged"
    elif won.clear:
        sentence = "{name} won with a test accuracy of {accuracy}, ahead by {points} percentage points"
    else:
        # With one seed each, a lead of a point may be chance.
        sentence = (
            "{name} leads with a test accuracy of {accuracy}, but only by {points} percentage points, which may be "
            "due to chance; train with more seeds to find out"
        )
    points = f"{100 * (won.margin or 0):.1f}"
    index = contenders.index(won.winner)
    words = html.escape(translate(sentence, language, accuracy=share_of(accuracy), points=points, name="\0"))
    name = f"{swatch(COLORS[index % len(COLORS)])}<b>{html.escape(short_labels(contenders)[index])}</b>"
    return words.replace("\0", name)


def _ago(ended: float | None, language: str) -> list[str]:
    """When a training ended, unless it was just now."""
    seconds = 0.0 if ended is None else time.time() - ended
    if seconds < _SECONDS_JUST_NOW:
        return []
    return [translate("{duration} ago", language, duration=duration(seconds, language))]


def _fairness(run: Run, language: str) -> list[str]:
    """A caution about the accuracy of a run that was trained on the test pictures; [] for other runs."""
    words = "trained on the test pictures: not a fair score"
    return [translate(words, language)] if run.config.train_split == "test" else []


def _gpu_words(runs: Sequence[Run], language: str, *, live: Standing | None) -> list[str]:
    """The seconds of a borrowed GPU that these runs have used and still need; [] without one."""
    latest = max((run.gpu_time for run in runs if run.gpu_time), key=lambda time: time.used_seconds, default=None)
    if latest is None:
        return []
    used, left = duration(latest.used_seconds, language), duration(latest.left_seconds, language)
    if live and latest.left_seconds:
        return [translate("GPU time: {used} used, about {left} still needed", language, used=used, left=left)]
    return [translate("GPU time: {used} used", language, used=used)]


def lesson_words(lesson: Lesson | None, runs: Sequence[Run], language: str) -> str:
    """What happened in the runs of a lesson, once an epoch or a run has ended, as HTML; "" before that."""
    if lesson is None or not any(run.epoch or run.status == "diverged" for run in runs):
        return ""
    return lesson_text(lesson, language, "In your run:", _results(runs, language))


def lesson_text(lesson: Lesson, language: str, title: str, first: str) -> str:
    """The title of a lesson, a first paragraph with a title of its own or "", and what happens in it, as HTML."""
    parts = [f"<b>{html.escape(translate(lesson.title, language))}</b>"]
    parts.append(f"<b>{html.escape(translate(title, language))}</b> {html.escape(first)}")
    happened = translate("What happens on CIFAR-10:", language)
    parts.append(f"<b>{html.escape(happened)}</b> {html.escape(translate(lesson.after, language))}")
    if lesson.printed:
        dotted = translate("The dotted line shows the values that the notebook printed.", language)
        parts.append(f"<span class='quiet'>{html.escape(dotted)}</span>")
    return f"<div class='lesson' data-ended='{lesson.name}'>" + "<br>".join(parts) + "</div>"


def _results(runs: Sequence[Run], language: str) -> str:
    """What the train loss of each run did so far, in one sentence."""
    say = partial(translate, language=language)
    sentences = []
    contenders = compare(runs)
    for one, label in zip(contenders, short_labels(contenders), strict=True):
        points = one.runs[0].curve.points
        name = label or say("the loss")
        if one.diverged:
            sentences.append(say("{name}: became NaN", name=name))
        elif points:
            first, last = f"{points[0].smoothed:.4g}", f"{points[-1].smoothed:.4g}"
            sentences.append(say("{name}: from {first} to {last}", name=name, first=first, last=last))
    return ("；" if language == "zh" else "; ").join(sentences) + ("。" if language == "zh" else ".")


def legend(contenders: Sequence[Contender], language: str, source: str = "") -> str:
    """The legend of all charts, as HTML: train and test for one contender, else what distinguishes the contenders.

    `source` says where the curves come from, if they are not those of the visitor's runs.
    """
    if not contenders:
        return ""
    if len(contenders) == 1:
        named = [(TRAIN, translate("train", language)), (TEST, translate("test", language))]
        more = ""
    else:
        named = [(COLORS[index % len(COLORS)], one.label) for index, one in enumerate(contenders)]
        words = [
            translate("solid: training; dashed: test", language),
            *([translate(source, language)] if source else []),
        ]
        more = f"<span class='quiet'>{html.escape(' · '.join(words))}</span>"
    return f"<div class='legend'>{keys(named, winner=index_of_winner(contenders))}{more}</div>"


def table(contenders: Sequence[Contender], language: str) -> str:
    """The contenders with their distinguishing settings and results, as an HTML table that highlights the winner."""
    winner = index_of_winner(contenders)
    heads = ("settings", "epochs", "train loss", "test loss", "final test accuracy", "best epoch", "seconds")
    rows = []
    for index, one in enumerate(contenders):
        end = one.epoch
        best = one.at(one.best_epoch, "test_accuracy") if end else None
        seconds = sum(row.seconds for run in one.runs for row in run.history)
        cells = [
            f"{swatch(COLORS[index % len(COLORS)])}{html.escape(one.label)}"
            + (f" <span class='quiet'>({translate('diverged', language)})</span>" if one.diverged else ""),
            f"{end}" + (f" × {len(one.runs)}" if len(one.runs) > 1 else ""),
            _spread(one.at(end, "train_loss"), ".4f"),
            _spread(one.at(end, "test_loss"), ".4f"),
            share_of(one.accuracy) if one.accuracy else "–",
            # Without a star: the last epoch decides who wins, and others may have been better before it.
            f"{one.best_epoch} <span class='quiet'>({share_of(best)})</span>" if best else "–",
            f"{seconds:.1f}",
        ]
        rows.append(cells)
    return markup.table(heads, rows, language, highlighted=winner)


def index_of_winner(contenders: Sequence[Contender]) -> int | None:
    """The index of the contender that won; None without a verdict, and for a tie."""
    won = verdict(contenders)
    return next((index for index, one in enumerate(contenders) if won and won.winner is one and not won.is_tie), None)


def epochs_table(runs: Sequence[Run], language: str) -> str:
    """The epochs of a run, or of the first of several seeds, latest first, as an HTML table of fixed height."""
    run = runs[0] if runs else None
    holdout = ["holdout loss", "holdout accuracy"] if run and run.config.holdout else []
    heads = ["epoch", "train loss", "test loss", "test accuracy", *holdout, "lr", "seconds", "images/s"]
    best = run.best.epoch if run and run.epoch and run.best else None
    rows = (
        "".join(_epoch_row(row, row.epoch == best, has_holdout=bool(holdout)) for row in reversed(run.history))
        if run
        else ""
    )
    head = "".join(f"<th>{html.escape(translate(name, language))}</th>" for name in heads)
    return f"<div class='epochs' tabindex='0'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def images_note(images: ImageData | None, loading: tuple[float, str], failure: str, language: str) -> str:
    """The pictures that the app trains on, or the progress of loading them, as HTML."""
    if failure:
        return advice(translate("There are no pictures to train on: {reason}", language, reason=failure))
    if images is not None:
        return note(" ".join(translate(each, language) for each in (images.note, *images.remarks)))
    fraction, doing = loading
    doing = html.escape(translate(doing, language))
    return f"<div class='note'>{doing} … {fraction:.0%}{bar(fraction, doing)}</div>"


def share_of(spread: Spread) -> str:
    """An accuracy in percent, with its standard deviation if there are several seeds."""
    return f"{spread.mean:.2%}" + (f" ± {100 * spread.std:.2f}" if spread.std else "")


def _spread(spread: Spread | None, form: str) -> str:
    if spread is None:
        return "–"
    return format(spread.mean, form) + (f" ± {format(spread.std, form)}" if spread.std else "")


def _epoch_row(row: EpochEnded, best: bool, *, has_holdout: bool) -> str:
    def text(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    cells = (
        f"{row.epoch}{' ★' if best else ''}",
        text(row.train_loss, ".4f"),
        text(row.test_loss, ".4f"),
        text(row.test_accuracy, ".2%"),
        *([text(row.holdout_loss, ".4f"), text(row.holdout_accuracy, ".2%")] if has_holdout else []),
        text(row.lr, ".3g"),
        text(row.seconds, ".1f"),
        text(row.images_per_second, ",.0f"),
    )
    return f"<tr{' class=best' if best else ''}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
