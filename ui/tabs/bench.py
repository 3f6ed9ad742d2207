"""What stands beside the settings: the planned schedule, the page's link, lessons, the race's list, the lr finder."""

import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.images.image_data import facts
from trainer.learning.loop import training_split
from trainer.learning.lr_finder import Finding, Trial
from trainer.learning.race import MAX_SETTINGS
from trainer.runs.comparison import differences, label
from trainer.runs.script import as_code
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS, Lesson, lesson_of, zero_grad_lab
from ui.charts import run_charts
from ui.charts.lr_finder import finder_chart
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts import fields, permalink
from ui.parts.messages import said, shown
from ui.parts.run_view import advice, bar, note
from ui.tabs.train import MOST_PREVIEWED, contenders, plan, shown_config, wait_for_images

_PREVIEW_HEIGHT = 130


def draw_preview(lab: Lab, race: Any, num_seeds: Any, *values: Any, names: tuple[str, ...]) -> list[Any]:
    """The schedule that the settings plan, drawn by what trains; a word on it; and the query of the page's link.

    Where the settings are wrong the word says so, and the link stays as it was.
    """
    try:
        return draw(lab, shown_config(names, values), contenders(race), int(num_seeds or 1))
    except ValueError as error:
        return _undrawn(error)


def draw(lab: Lab, config: TrainConfig, race: Sequence[TrainConfig] = (), num_seeds: int = 1) -> list[Any]:
    """The schedule that a config plans, a word on it, and the query of a link to the config and the race."""
    language = current_language()
    planned = plan(config, lab.images)
    word = ""
    if config.scheduler == "plateau":
        word = translate("Drawn where it begins: plateau lowers lr by the loss, which only training tells.", language)
    elif not planned:
        word = translate("Too long to draw: over {count} batches.", language, count=f"{MOST_PREVIEWED:,}")
    return [
        _preview(planned, config.epochs, language),
        f"<div class='note'>{word}</div>",
        permalink.write(config, race, num_seeds),
    ]


def _undrawn(error: ValueError) -> list[Any]:
    language = current_language()
    return [_preview([], TrainConfig().epochs, language), advice(translate(str(error), language)), gr.skip()]


@said
def choose_lesson(name: str | None, panel: fields.Panel) -> list[Any]:
    """A lesson is chosen: its words, its button, and its settings in the panel; or none, and the settings stay."""
    lesson = LESSONS.get(name or "")
    if lesson is None:
        return [*tell_lesson(None), *[gr.skip()] * len(panel.components)]
    return [*tell_lesson(lesson), *fields.show(lesson.config, panel)]


def tell_lesson(lesson: Lesson | None) -> list[Any]:
    """A lesson's words beside the settings, and whether the button for its fixed version is visible."""
    words = note(translate(lesson.before, current_language())) if lesson else ""
    return [gr.update(value=words, visible=bool(words)), gr.update(visible=lesson is not None)]


@said
def add_to_race(race: Any, *values: Any, names: tuple[str, ...]) -> Any:
    """The settings shown join the race's list."""
    there = contenders(race)
    config = replace(shown_config(names, values), seed=0)
    if config in there:
        raise UserError("These settings are in the race already.")
    if len(there) == MAX_SETTINGS:
        raise UserError("A race takes up to {most} settings.", most=MAX_SETTINGS)
    return list_race([*there, config])


@said
def relabel_race(race: Any) -> Any:
    """Settings have left the race's list: the others are told by what sets them apart now."""
    return list_race(contenders(race))


@said
def fill_zero_grad_lab(every: float | None, *values: Any, names: tuple[str, ...]) -> Any:
    """The race's list for gradients cleared at each batch, every `every`, never, and one batch as large as these."""
    config = replace(shown_config(names, values), seed=0)
    return list_race(zero_grad_lab(config, int(min(every or 0, 1e6))))


def list_race(configs: list[TrainConfig]) -> Any:
    """The list of the race, each of its settings named by what sets it apart."""
    names = [label(own) for own in differences(configs)]
    if len(configs) == 1:
        names = [f"{configs[0].optimizer}, {configs[0].scheduler}, lr {configs[0].lr:g}"]
    # As JSON, so that the list itself is all there is to remember.
    values = [json.dumps(config.settings()) for config in configs]
    return gr.update(choices=list(zip(names, values, strict=True)), value=values)


def open_link(lab: Lab, query: dict[str, str], panel: fields.Panel) -> list[Any]:
    """A page is opened, by a link or without one: a sentence where the link is wrong, else what it holds.

    In order: the sentence, the schedule with what stands beside it, the lesson with what stands beside it, the race's
    panel, the race, its seeds, and the panel of settings.
    """
    notice = gr.skip()
    try:
        opened = permalink.read(query)
        if opened:
            fields.check_fits(opened.config, panel)
    except ValueError as error:
        opened = None
        notice = gr.update(value=advice(translate(str(error), current_language())), visible=True)
    if opened is None:
        return [notice, *draw(lab, TrainConfig()), *[gr.skip()] * (6 + len(panel.components))]
    lesson = lesson_of(opened.config)
    if opened.race:
        sentence = translate("This link holds a race: Start the race trains it.", current_language())
        notice = gr.update(value=note(sentence), visible=True)
    try:
        drawn = draw(lab, opened.config, opened.race, opened.num_seeds)
    except ValueError as error:  # settings that are sound, but not for these pictures or so few epochs
        drawn = _undrawn(error)
    return [
        notice,
        *drawn,
        lesson.name if lesson else "",
        *tell_lesson(lesson),
        gr.update(open=True) if opened.race else gr.skip(),
        list_race([replace(config, seed=0) for config in opened.race]) if opened.race else gr.skip(),
        opened.num_seeds,
        *fields.show(opened.config, panel),
    ]


@shown(4, "No lr was looked for", "Something in the app went wrong.")
def find_lr(lab: Lab, visitor: str, asked: float, *values: Any, names: tuple[str, ...]) -> Iterator[list[Any]]:
    """The range test with the settings shown: how far it is or what it found, its chart, the button to take it, it."""
    language = current_language()
    config = shown_config(names, values)
    nothing = [gr.update(visible=False), None]
    images = yield from wait_for_images(lab, visitor, asked, [gr.skip(), *nothing])
    lrs = [lr for _, lr in plan(config, images) if lr > 0]
    planned = (min(lrs), max(lrs)) if lrs else None
    trials: list[Trial] = []
    facts_of_it = lab.find_lr(config, images)
    yield [_searching(0.0, language), finder_chart([], None, planned, language), *nothing]
    seen = 0.0
    for fact in facts_of_it:
        if isinstance(fact, Finding):
            words = f"<div class='status'>{html.escape(translate(fact.reason, language))}</div>"
            yield [words, finder_chart(trials, fact, planned, language), _take(fact, language), fact.suggestion]
            return
        if lab.is_stopped(visitor, asked):
            facts_of_it.close()
            raise UserError("The search was stopped.")
        trials.append(fact)
        if fact.step / fact.num_steps - seen > 0.04:
            seen = fact.step / fact.num_steps
            yield [_searching(seen, language), finder_chart(trials, None, planned, language), *nothing]


@said
def show_code(lab: Lab, *values: Any, names: tuple[str, ...]) -> str:
    """The settings shown as a plain PyTorch script on the app's images; what could not be trained is told instead."""
    if lab.images is None:
        raise UserError("The pictures are still being loaded: try again in a moment.")
    config = shown_config(names, values)
    training_split(config, lab.images)
    return as_code(config, facts(lab.images))


def _searching(share: float, language: str) -> str:
    doing = translate("Raising lr step by step, on a network of its own", language)
    return f"<div class='status'>{doing} … {bar(share)}</div>"


def _take(finding: Finding, language: str) -> Any:
    if finding.suggestion is None:
        return gr.update(visible=False)
    words = translate("Take lr = {lr}", language, lr=f"{finding.suggestion:g}")
    return gr.update(value=words, visible=True)


def taken_lr(suggested: float | None) -> list[Any]:
    """The button that takes the suggestion is pressed: it goes to the number and to its slider."""
    return [suggested, fields.power_of("lr", suggested)] if suggested else [gr.skip()] * 2


def _preview(planned: list[tuple[float, float]], epochs: int, language: str) -> dict[str, Any]:
    return run_charts.lr_chart(planned, [], epochs=epochs, height=_PREVIEW_HEIGHT, language=language)


LESSON_CHOICES = [(i18n("Your own settings"), ""), *((i18n(one.title), one.name) for one in LESSONS.values())]
