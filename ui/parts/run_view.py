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
from trainer.runs.comparison import Contender, Spread, compare, verdict
from trainer.runs.events import EpochEnded
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import Lesson, lesson_of
from ui.charts import run_charts
from ui.charts.live import LARGE, SMALL, live_chart
from ui.i18n.words import i18n, translate
from ui.parts.job_words import Standing, sharing_words
from ui.parts.markup import advice, bar, duration, note, status_line
from ui.parts.messages import Updates

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


@dataclass(frozen=True, kw_only=True)
class RunView:
    """The components that show the runs of a race: status, legend, charts, the text of a lesson, and a table."""

    status: gr.HTML
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
    ) -> Updates:
        """Updates that show the runs of a race, or an empty view.

        `live` says how the job stands that trains them, `ended` when they ended, in seconds of `time.time`.
        """
        values = _contents(runs, images, language, planned=planned, live=live, ended=ended)
        return {getattr(self, name): value for name, value in values.items()}


def build() -> RunView:
    """Adds the view, without any runs, to the page being built."""
    empty = {**_contents([], None, "en"), "status": _LOADING}

    def chart(name: str, height: int, label: str, elem_id: str) -> gr.HTML:
        return live_chart(empty[name], height=height, label=label, elem_id=elem_id)

    status = gr.HTML(empty["status"], elem_id="status")
    legend = gr.HTML(empty["legend"], elem_id="legend")
    loss = chart("loss", LARGE, "Loss per epoch", "loss")
    # Under the chart, which then stays in place when the text appears.
    lesson = gr.HTML(empty["lesson"], elem_id="happened")
    with gr.Row():
        with gr.Column(min_width=240):
            accuracy = chart("accuracy", SMALL, "Test accuracy per epoch", "accuracy")
        with gr.Column(min_width=240):
            lr = chart("lr", SMALL, "Learning rate", "lr")
        with gr.Column(min_width=240):
            grad_norm = chart("grad_norm", SMALL, "Gradient norm", "grad-norm")
    table = gr.HTML(empty["table"], elem_id="table")
    return RunView(
        status=status,
        legend=legend,
        loss=loss,
        lesson=lesson,
        accuracy=accuracy,
        lr=lr,
        grad_norm=grad_norm,
        table=table,
    )


def _contents(
    runs: Sequence[Run],
    images: ImageData | None,
    language: str,
    *,
    planned: Sequence[tuple[float, float]] = (),
    live: Standing | None = None,
    ended: float | None = None,
) -> dict[str, Any]:
    """The values of a RunView's components, by their names."""
    contenders = compare(runs)
    epochs = max((run.config.epochs for run in runs), default=TrainConfig().epochs)
    num_classes = len(images.class_names) if images else NUM_CLASSES
    lesson = taught_lesson(runs)
    small: dict[str, Any] = {"epochs": epochs, "height": SMALL, "language": language}
    return {
        "status": status(runs, language, live=live, ended=ended),
        "legend": legend(contenders, language),
        "loss": run_charts.loss_chart(
            contenders, epochs=epochs, num_classes=num_classes, lesson=lesson, language=language
        ),
        "lesson": lesson_words(lesson, runs, language),
        "accuracy": run_charts.accuracy_chart(contenders, num_classes=num_classes, **small),
        "lr": run_charts.lr_chart(planned if len(runs) == 1 else (), contenders, **small),
        "grad_norm": run_charts.measure_chart("grad_norm", contenders, **small),
        "table": table(contenders, language) if len(contenders) > 1 else epochs_table(runs, language),
    }


def taught_lesson(runs: Sequence[Run]) -> Lesson | None:
    """The lesson of the first run that belongs to one; None if no run does."""
    return next(filter(None, (lesson_of(run.config) for run in runs)), None)


def status(runs: Sequence[Run], language: str, *, live: Standing | None = None, ended: float | None = None) -> str:
    """The state of the runs and their progress bar, as HTML."""
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
        more = "saved up to the last full epoch; Resume continues from there"
    at = min(run.config.epochs, run.epoch + (run.status == "training"))
    words = [*_ago(ended, language), say("epoch {epoch} of {epochs}", epoch=at, epochs=run.config.epochs)]
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
    return status_line(title, text, run.epochs_passed / run.config.epochs, language, run.advice, run.warning)


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
    words.append(say("epoch {epoch} of {epochs}", epoch=min(epochs, epoch + 1) if live else epoch, epochs=epochs))
    if live:
        words += sharing_words(live, language)
    unfinished = {run.status for run in runs} - {"completed", "diverged"}
    words += _gpu_words(runs, language, live=live)
    title = "Training" if live else _STATUS[next(iter(unfinished))][0] if unfinished else "Done"
    won = verdict(contenders)
    if won and (accuracy := won.winner.accuracy):
        # With one seed each, a lead of a point may be chance.
        if won.is_tie:
            sentence = "It is a tie: the best two have the same test accuracy, {accuracy}"
        elif won.margin is None:
            sentence = "{name} won with a test accuracy of {accuracy}: all others diverged"
        elif won.clear:
            sentence = "{name} won with a test accuracy of {accuracy}, ahead by {points} percentage points"
        else:
            sentence = (
                "{name} leads with a test accuracy of {accuracy}, but only by {points} percentage points, which may be "
                "due to chance; train with more seeds to find out"
            )
        words.append(
            say(
                sentence,
                name=won.winner.label,
                accuracy=share_of(accuracy),
                points=f"{100 * (won.margin or 0):.1f}",
            )
        )
        words += _fairness(won.winner.runs[0], language)
    warnings = {run.warning for run in runs if run.warning}
    diverged = {run.advice for run in runs if run.status == "diverged" and run.advice}
    return status_line(title, " · ".join(words), share, language, *sorted(diverged), *sorted(warnings))


def _ago(ended: float | None, language: str) -> list[str]:
    """When a training ended, unless it was just now."""
    seconds = 0.0 if ended is None else time.time() - ended
    if seconds < _SECONDS_JUST_NOW:
        return []
    return [translate("finished {duration} ago", language, duration=duration(seconds, language))]


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
    """What to look for in a lesson and, once an epoch or the run has ended, what happens in it, as HTML."""
    if lesson is None:
        return ""
    parts = [
        f"<b>{html.escape(translate(lesson.title, language))}</b>",
        html.escape(translate(lesson.before, language)),
    ]
    if any(run.epoch or run.status == "diverged" for run in runs):
        happened = translate("What happens on CIFAR-10:", language)
        parts.append(f"<b>{html.escape(happened)}</b> {html.escape(translate(lesson.after, language))}")
        if lesson.printed:
            dotted = translate("The dotted line shows the values that the notebook printed.", language)
            parts.append(f"<span class='quiet'>{html.escape(dotted)}</span>")
    return "<div class='lesson'>" + "<br>".join(parts) + "</div>"


def legend(contenders: Sequence[Contender], language: str) -> str:
    """The legend of all charts, as HTML: train and test for one contender, else what distinguishes the contenders."""
    if not contenders:
        return ""
    if len(contenders) == 1:
        named = [(TRAIN, translate("train", language)), (TEST, translate("test", language))]
        more = ""
    else:
        named = [(COLORS[index % len(COLORS)], one.label) for index, one in enumerate(contenders)]
        dashes = translate("solid: training; dashed: test", language)
        more = f"<span class='quiet'>{html.escape(dashes)}</span>"
    keys = [f"<span class='key'>{_swatch(color)}{html.escape(name)}</span>" for color, name in named]
    return f"<div class='legend'>{''.join(keys)}{more}</div>"


def table(contenders: Sequence[Contender], language: str) -> str:
    """The contenders with their distinguishing settings and results, as an HTML table that highlights the winner."""
    won = verdict(contenders)
    heads = ("settings", "epochs", "train loss", "test loss", "test accuracy", "best epoch", "seconds")
    head = "".join(f"<th>{html.escape(translate(name, language))}</th>" for name in heads)
    rows = []
    for index, one in enumerate(contenders):
        end = one.epoch
        best = one.at(one.best_epoch, "test_accuracy") if end else None
        seconds = sum(row.seconds for run in one.runs for row in run.history)
        cells = [
            f"{_swatch(COLORS[index % len(COLORS)])}{html.escape(one.label)}"
            + (f" <span class='quiet'>({translate('diverged', language)})</span>" if one.diverged else ""),
            f"{end}" + (f" × {len(one.runs)}" if len(one.runs) > 1 else ""),
            _spread(one.at(end, "train_loss"), ".4f"),
            _spread(one.at(end, "test_loss"), ".4f"),
            share_of(one.accuracy) if one.accuracy else "–",
            f"{one.best_epoch} ★ {share_of(best)}" if best else "–",
            f"{seconds:.1f}",
        ]
        best_row = " class=best" if won and won.winner is one and not won.is_tie else ""
        rows.append(f"<tr{best_row}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<div class='epochs race'><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def epochs_table(runs: Sequence[Run], language: str) -> str:
    """The epochs of a run, or of the first of several seeds, latest first, as an HTML table of fixed height."""
    heads = ("epoch", "train loss", "test loss", "test accuracy", "lr", "seconds", "images/s")
    run = runs[0] if runs else None
    best = run.best.epoch if run and run.epoch and run.best else None
    rows = "".join(_epoch_row(row, row.epoch == best) for row in reversed(run.history)) if run else ""
    head = "".join(f"<th>{html.escape(translate(name, language))}</th>" for name in heads)
    return f"<div class='epochs'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def images_note(images: ImageData | None, loading: tuple[float, str], failure: str, language: str) -> str:
    """The pictures that the app trains on, or the progress of loading them, as HTML."""
    if failure:
        return advice(translate("There are no pictures to train on: {reason}", language, reason=failure))
    if images is not None:
        return note(translate(images.note, language))
    fraction, doing = loading
    return f"<div class='note'>{html.escape(translate(doing, language))} … {fraction:.0%}{bar(fraction)}</div>"


def share_of(spread: Spread) -> str:
    """An accuracy in percent, with its standard deviation if there are several seeds."""
    return f"{spread.mean:.2%}" + (f" ± {100 * spread.std:.2f}" if spread.std else "")


def _spread(spread: Spread | None, form: str) -> str:
    if spread is None:
        return "–"
    return format(spread.mean, form) + (f" ± {format(spread.std, form)}" if spread.std else "")


def _epoch_row(row: EpochEnded, best: bool) -> str:
    def text(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    cells = (
        f"{row.epoch}{' ★' if best else ''}",
        text(row.train_loss, ".4f"),
        text(row.test_loss, ".4f"),
        text(row.test_accuracy, ".2%"),
        text(row.lr, ".3g"),
        text(row.seconds, ".1f"),
        text(row.images_per_second, ",.0f"),
    )
    return f"<tr{' class=best' if best else ''}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _swatch(color: str) -> str:
    return f"<i style='background:{color}'></i>"
