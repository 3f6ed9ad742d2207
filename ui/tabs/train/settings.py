"""The settings: lessons that fill them, their widgets, a preview of their schedule, and a PyTorch script."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.events import Dependency

from trainer.errors import UserError
from trainer.images.image_data import facts
from trainer.learning.schedulers import MOST_BATCHES, planned_lrs
from trainer.learning.training_set import training_split
from trainer.runs.script import as_code
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS, Lesson
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.schedulers import SCHEDULERS
from ui.charts import run_charts
from ui.charts.live import live_chart
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts import fields
from ui.parts.markup import advice, note
from ui.parts.messages import Updates, with_page_errors
from ui.parts.shared import AT_ONCE, code_panel, components
from ui.tabs.train import lr_finder, permalink
from ui.tabs.train.buttons import refusal
from ui.tabs.train.race import Race, read_contenders

_PREVIEW_HEIGHT = 130
_LESSONS = [(i18n("Your own settings"), ""), *((i18n(lesson.title), lesson.name) for lesson in LESSONS.values())]


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """The list of lessons, what to look for in the chosen one, and the button that trains it with its comparisons."""

    lesson: gr.Dropdown
    words: gr.HTML
    start: gr.Button
    refused: gr.HTML

    def show(self, lesson: Lesson | None) -> Updates:
        """Updates that show the text and the button of a lesson, or hide them."""
        words = note(translate(lesson.before, current_language())) if lesson else ""
        return {
            self.words: gr.update(value=words, visible=bool(words)),
            self.start: gr.update(visible=lesson is not None, value=_button(lesson)),
        }


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The chart of the schedule, a note on it, and the query of the page's link; all follow the settings."""

    chart: gr.HTML
    note: gr.HTML
    query: gr.Textbox

    def show(
        self, lab: Lab, config: TrainConfig, contenders: Sequence[TrainConfig] = (), num_seeds: int = 1
    ) -> Updates:
        """Updates for a config, and for the race in the link. Raises UserError if the schedule is invalid."""
        chart, note = _draw(lab, config, current_language())
        return {self.chart: chart, self.note: note, self.query: permalink.write(config, contenders, num_seeds)}

    def explain(self, error: UserError) -> Updates:
        """Updates that explain why settings cannot be drawn; the link stays as it was."""
        language = current_language()
        return {
            self.chart: _chart([], TrainConfig().epochs, language),
            self.note: advice(translate(str(error), language)),
        }


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The widgets, the preview of their schedule, the learning-rate finder, and the events that show a chosen row."""

    panel: fields.Panel
    preview: Preview
    finder: lr_finder.Finder
    row_chosen: Sequence[Dependency]


def build_lessons() -> Lessons:
    """Adds the group of lessons to the page being built."""
    with gr.Group(elem_id="lessons"):
        return Lessons(
            lesson=gr.Dropdown(
                _LESSONS,
                value="",
                label=i18n("Lesson"),
                info=i18n("Ready-made experiments, some with a classic mistake."),
                elem_id="lesson",
            ),
            words=gr.HTML(visible=False, elem_id="lesson-words"),
            start=gr.Button(_button(None), visible=False, size="sm", elem_id="twin"),
            refused=refusal("refused-twin"),
        )


def _button(lesson: Lesson | None) -> Any:
    is_comparison = lesson is not None and not lesson.is_mistake
    return i18n("Train them side by side") if is_comparison else i18n("Train it next to its fixed version")


def build(lab: Lab, query: gr.Textbox) -> Settings:
    """Adds all settings to the page being built; those of optimizers and schedulers not chosen are hidden."""
    paper = gr.Markdown(fields.source("sgd"), elem_classes=["about", "paper"], render=False)
    panel = fields.Panel(widgets={}, powers={}, abouts={}, paper=paper)
    with gr.Group():
        _add(panel, ["epochs"])
    with gr.Group():
        _add(panel, ["optimizer"])
        _add_row(panel, "optimizer", "sgd", OPTIMIZERS)
    finder = lr_finder.build()
    with gr.Group():
        _add(panel, ["scheduler"])
        drawn, remark = _draw(lab, TrainConfig(), "en")
        chart = live_chart(drawn, height=_PREVIEW_HEIGHT, label="Planned learning rate", elem_id="preview")
        note = gr.HTML(remark, elem_id="preview-word")
        _add_row(panel, "scheduler", "onecycle", SCHEDULERS)
        _add(panel, ["scheduler_unit", "num_warmup_steps"])
    for title, names in (
        ("Network", fields.NETWORK),
        ("Pictures and batches", fields.DATA),
        ("Loss and gradients", fields.LOSS),
    ):
        with gr.Accordion(i18n(title), open=False):
            _add(panel, names)
    return Settings(
        panel=panel,
        preview=Preview(chart=chart, note=note, query=query),
        finder=finder,
        row_chosen=[fields.follow_row(part, panel) for part in panel.abouts],
    )


def show_lesson_on_choice(lessons: Lessons, panel: fields.Panel) -> Dependency:
    """Makes the choice of a lesson show its text and its settings; returns the event."""
    return lessons.lesson.input(
        partial(show_lesson, lessons, panel),
        inputs_kwargs={"name": lessons.lesson},
        outputs=components(lessons.words, lessons.start, panel),
        api_name="_lesson",
        **AT_ONCE,
    )


@with_page_errors
def show_lesson(lessons: Lessons, panel: fields.Panel, name: str | None) -> Updates:
    """Updates that show the lesson of a name: its text, button and settings. Without a lesson the settings stay."""
    lesson = LESSONS.get(name or "")
    return lessons.show(lesson) | (panel.show(lesson.config) if lesson else {})


def draw_on_change(lab: Lab, settings: Settings, race: Race, lesson_chosen: Dependency) -> None:
    """Makes the preview and the page's link follow the settings and the race."""
    panel = settings.panel
    # On input, as a lesson changes all widgets and each change would draw; but a number with a slider also changes when
    # the slider is moved. A chosen row is drawn later, when its own settings are in the widgets.
    edited = [
        widget.change if name in panel.powers else widget.input
        for name, widget in panel.widgets.items()
        if name not in panel.abouts
    ]
    drawing: dict[str, Any] = {
        "fn": partial(draw, lab, settings.preview),
        "inputs_kwargs": {"contenders": race.contenders, "num_seeds": race.num_seeds, **panel.widgets},
        "outputs": components(settings.preview),
        **AT_ONCE,
        # Drawing can compute for a second: many previews at once must not take all of the processor.
        "concurrency_id": "draw",
        "concurrency_limit": 2,
    }
    gr.on(
        [race.contenders.change, race.num_seeds.change, *edited],
        trigger_mode="always_last",
        api_name="_draw_preview",
        **drawing,
    )
    for number, chosen in enumerate([*settings.row_chosen, lesson_chosen], 1):
        chosen.then(api_name=f"_draw_preview_{number}", **drawing)


def build_code(lab: Lab, panel: fields.Panel) -> None:
    """Adds the panel that writes the settings as a script."""
    button, script = code_panel("code")
    button.click(partial(write_code, lab), inputs_kwargs={**panel.widgets}, outputs=script, api_name="_code", **AT_ONCE)


def draw(lab: Lab, preview: Preview, *, contenders: Any, num_seeds: Any, **settings: Any) -> Updates:
    """Updates of the preview for the widgets' values; a note explains invalid ones."""
    try:
        return preview.show(lab, fields.read_config(settings), read_contenders(contenders), int(num_seeds or 1))
    except UserError as error:
        return preview.explain(error)


@with_page_errors
def write_code(lab: Lab, **settings: Any) -> str:
    """Returns a plain PyTorch script with the settings, which must be trainable on the app's images."""
    if lab.images is None:
        raise UserError("The pictures are still being loaded: try again in a moment.")
    config = fields.read_config(settings)
    training_split(config, lab.images)
    return as_code(config, facts(lab.images))


def _add(panel: fields.Panel, names: Sequence[str]) -> None:
    for name in names:
        panel.widgets[name] = fields.build(name)


def _add_row(panel: fields.Panel, part: str, first: str, rows: dict[str, Any]) -> None:
    """Adds the settings of all optimizers or all schedulers; those of the `first` one are visible."""
    panel.abouts[part] = gr.Markdown(i18n(rows[first].about), elem_classes=["about"])
    if part == "optimizer":
        panel.paper.render()
    for name in fields.row_settings(part):
        visible = name in rows[first].defaults
        widget = panel.widgets[name] = fields.build(name, visible=visible)
        if name in fields.LOWEST_POWER and isinstance(widget, gr.Number):
            panel.powers[name] = fields.build_power(name, widget, visible=visible)


def _draw(lab: Lab, config: TrainConfig, language: str) -> tuple[dict[str, Any], str]:
    """The chart of a config's schedule, and a note on it, as HTML."""
    planned = planned_lrs(config, lab.images)
    note = ""
    if config.scheduler == "plateau":
        note = translate(
            "Only the initial lr is drawn: plateau lowers lr when the loss stalls, which only training shows.",
            language,
        )
    elif not planned:
        note = translate("Too long to draw: over {count} batches.", language, count=f"{MOST_BATCHES:,}")
    return _chart(planned, config.epochs, language), f"<div class='note'>{note}</div>"


def _chart(planned: list[tuple[float, float]], epochs: int, language: str) -> dict[str, Any]:
    return run_charts.lr_chart(planned, [], epochs=epochs, height=_PREVIEW_HEIGHT, language=language)
