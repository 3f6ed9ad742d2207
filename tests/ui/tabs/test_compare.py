"""The Compare tab: what it shows on arrival, how it names runs, and what it says of them."""

from dataclasses import replace

import gradio as gr
import pytest

from tests.runs.test_run import ended
from trainer.errors import UserError
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS
from ui.parts.run import run_list
from ui.tabs import compare
from ui.tabs.compare import Comparison

VIEW = Comparison(legend=gr.HTML(), chart=gr.HTML(), table=gr.HTML())


def run(*accuracies, name="", config=None, **settings):
    history = [ended(epoch, accuracy) for epoch, accuracy in enumerate(accuracies)]
    config = config or TrainConfig(epochs=len(accuracies) - 1, scheduler="constant", **settings)
    return Run(config=config, name=name, history=history, status="completed")


def shown(language="en", **runs):
    """The legend, with the verdict, and the table of runs, given by key."""
    updates = VIEW.show(runs, "test_accuracy", language)
    return updates[VIEW.legend], updates[VIEW.table]


def test_the_recorded_race_is_there_without_any_runs():
    """With its result, its curves and its table, and the hint to choose runs."""
    updates = VIEW.show({}, "test_accuracy", "en")
    assert "Same network, same pictures, same start" in updates[VIEW.legend]
    assert "choose runs above" in updates[VIEW.legend]
    assert len({row["series"] for row in updates[VIEW.chart]["data"]["epochs"]}) == 3
    assert updates[VIEW.table].count("<tr") == 4


def test_runs_are_told_apart_by_name_lesson_and_what_differs():
    """The winner is bold, and names are escaped."""
    lesson = replace(LESSONS["softmax-plateau"].config, epochs=1)
    mine, other = run(0.1, 0.4, name="<script>x"), run(0.1, 0.6, lr=0.5)
    legend, table = shown(a=mine, b=other, c=run(0.1, 0.2, config=lesson))
    assert "&lt;script&gt;x" in legend
    assert "<script>" not in legend + table
    assert "<b>sgd · lr 0.5 · constant</b>" in legend
    assert "ahead by 20.0 percentage points" in legend
    assert "equally long" not in legend


def test_runs_that_did_not_train_equally_long_are_marked():
    """The accuracies are those after each run's own last epoch."""
    legend, _ = shown(a=run(0.1, 0.4), b=run(0.1, 0.3, 0.6))
    assert "They did not train equally long: 1 to 2 epochs." in legend
    assert "1 到 2 轮" in shown("zh", a=run(0.1, 0.4), b=run(0.1, 0.3, 0.6))[0]


def test_titles_that_are_alike_have_the_start_of_their_key():
    """Only those."""
    entries = [("same", "a" * 32), ("other", "b" * 32), ("same", "c" * 32)]
    titles = [title for title, _ in run_list._distinct(entries)]
    assert titles == ["same · aaaa", "other", "same · cccc"]


@pytest.mark.parametrize("names", [3, ["a"] * 13, [None]])
def test_a_damaged_choice_is_refused(names):
    """In a handcrafted request."""
    with pytest.raises(UserError, match="up to 12 runs"):
        compare.checked(names)
