"""The lessons: a list to choose from, and the words and the button of the chosen one."""

from dataclasses import dataclass
from functools import partial

import gradio as gr
from gradio.events import Dependency

from trainer.settings.lessons import LESSONS, Lesson
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.parts import fields
from ui.parts.markup import note
from ui.parts.messages import Updates, with_page_errors
from ui.parts.shared import AT_ONCE, components

_CHOICES = [(i18n("Your own settings"), ""), *((i18n(lesson.title), lesson.name) for lesson in LESSONS.values())]


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """The list of lessons, what to look for in the chosen one, and the button that trains it and its fixed version."""

    lesson: gr.Dropdown
    words: gr.HTML
    start: gr.Button

    def show(self, lesson: Lesson | None) -> Updates:
        """Updates that show the words and the button of a lesson, or none."""
        words = note(translate(lesson.before, current_language())) if lesson else ""
        return {
            self.words: gr.update(value=words, visible=bool(words)),
            self.start: gr.update(visible=lesson is not None),
        }


def build() -> Lessons:
    """The group above the settings."""
    with gr.Group(elem_id="lessons"):
        return Lessons(
            lesson=gr.Dropdown(
                _CHOICES,
                value="",
                label=i18n("Lesson"),
                info=i18n("Ready-made experiments, some with a classic mistake."),
                elem_id="lesson",
            ),
            words=gr.HTML(visible=False, elem_id="lesson-words"),
            start=gr.Button(i18n("Train it next to its fixed version"), visible=False, size="sm", elem_id="twin"),
        )


def show_on_choice(lessons: Lessons, panel: fields.Panel) -> Dependency:
    """Makes the choice of a lesson show its words and its settings; returns the event."""
    return lessons.lesson.input(
        partial(choose, lessons, panel),
        lessons.lesson,
        components(lessons.words, lessons.start, panel),
        api_name="_lesson",
        **AT_ONCE,
    )


@with_page_errors
def choose(lessons: Lessons, panel: fields.Panel, name: str | None) -> Updates:
    """Updates for the lesson of that name: words, button and settings. Without a lesson the settings stay."""
    lesson = LESSONS.get(name or "")
    return lessons.show(lesson) | (panel.show(lesson.config) if lesson else {})
