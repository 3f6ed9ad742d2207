"""The lessons of the Train tab: their cards, and the steps between them."""

import re

import gradio as gr
import pytest
from labs import bare

from trainer.errors import UserError
from trainer.jobs.pace import Pace
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS
from ui.parts.form import fields
from ui.tabs.train.setup import lessons
from ui.tabs.train.setup.estimate import seconds_of

PANEL = bare(lessons.Lessons)
SETTINGS = fields.Panel(widgets={}, powers={}, moved=[], abouts={}, paper=gr.Markdown())


@pytest.mark.parametrize(("language", "time"), [("en", r"\d+ min"), ("zh", r"\d+ 分钟")])
def test_every_lesson_has_a_card(language, time):
    """In their order, with their titles and how long they take; a recorded sweep takes no time."""
    cards = lessons.cards(language, {})
    assert re.findall(r"data-lesson='([^']+)'", cards) == list(LESSONS)
    assert len(re.findall(f"<span>{time}", cards)) == sum(not lesson.vary for lesson in LESSONS.values())


def test_the_minutes_follow_from_the_pace_of_the_machine():
    """Of the lesson's own optimizer if it is known, otherwise of another one."""

    def minutes(**paces):
        measured = {name: Pace(batch_seconds=seconds, test_seconds=0.0) for name, seconds in paces.items()}
        return [int(number) for number in re.findall(r"<span>(\d+) min", lessons.cards("en", measured))]

    assert minutes(sgd=10) == minutes(sgd=10, adam=10, adamw=10, muon=10)
    assert all(slow > fast for slow, fast in zip(minutes(sgd=10), minutes(sgd=1), strict=True))
    assert minutes(muon=10, sgd=1) != minutes(sgd=1)


def test_a_training_of_the_larger_network_takes_seven_times_as_long():
    """At the pace of the smaller one, of which the machine's paces are; it grows with the epochs and the pictures."""
    paces = {"sgd": Pace(batch_seconds=0.01, test_seconds=0.0)}
    config = TrainConfig(epochs=2, batch_size=64, num_images=6400)
    assert seconds_of(config, paces) == pytest.approx(2 * 100 * 0.01)
    assert seconds_of(config.changed({"model": "fast"}), paces) == pytest.approx(7 * seconds_of(config, paces))


def test_the_ends_of_the_path():
    """The first lesson has none before it, the last none after it."""
    first, *_, last = LESSONS
    updates = lessons.show(PANEL, SETTINGS, first)
    assert (updates[PANEL.previous]["interactive"], updates[PANEL.following]["interactive"]) == (False, True)
    updates = lessons.show(PANEL, SETTINGS, last)
    assert (updates[PANEL.previous]["interactive"], updates[PANEL.following]["interactive"]) == (True, False)
    assert updates[PANEL.lesson] == last


@pytest.mark.parametrize("name", [None, "", "nonsense", [], 3])
def test_an_unknown_lesson_is_refused(name):
    """In a handcrafted request."""
    with pytest.raises(UserError, match="Choose a lesson first"):
        lessons.show(PANEL, SETTINGS, name)
