"""The status of finished races, and the table of epochs."""

import re
from dataclasses import replace

from tests.runs.test_run import ended
from trainer.errors import Message
from trainer.palette import COLORS
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from ui.parts.markup import swatch
from ui.parts.run import run_view


def status(*statuses: str) -> str:
    """The status line of a race of one-epoch runs that ended with these statuses; the first is the most accurate."""
    runs = [
        Run(config=TrainConfig(epochs=1, lr=10.0**-n), history=[ended(0, 0.1), ended(1, 0.6 - n / 10)], status=status)
        for n, status in enumerate(statuses)
    ]
    return re.sub("</?b>|<i [^>]*></i>", "", run_view.status(runs, "en"))


def test_the_lead_of_a_winner():
    """In percentage points over the second; if all others diverged, there is none."""
    assert "lr 1 won with a test accuracy of 60.00%, ahead by 10.0 percentage points" in status(
        "completed", "completed", "diverged"
    )
    assert "lr 1 won with a test accuracy of 60.00%: all others diverged" in status("completed", "diverged", "diverged")


def test_the_result_of_one_epoch():
    """Is not that of "1 epochs"."""
    run = Run(config=TrainConfig(epochs=1), history=[ended(0, 0.1), ended(1, 0.5)], status="completed")
    assert "After one epoch the network gets 50.0%" in run_view.status([run], "en")


def test_a_winner_has_the_colour_of_its_curve():
    """Beside its name, which is not the first contender's."""
    runs = [
        Run(config=TrainConfig(epochs=1, lr=lr), history=[ended(0, 0.1), ended(1, accuracy)], status="completed")
        for lr, accuracy in ((1.0, 0.5), (0.1, 0.6))
    ]
    assert f"{swatch(COLORS[1])}<b>lr 0.1</b> won" in run_view.status(runs, "en")


def test_why_a_race_has_not_ended():
    """It gives the reason, says that the race can be resumed, and names a leader but no winner."""
    killed = Message("The process that trains was ended by the system, probably because the memory ran out.")
    runs = [
        Run(
            config=TrainConfig(epochs=3, lr=lr),
            history=[ended(0, 0.1), ended(1, accuracy)],
            status="interrupted",
            advice=killed,
        )
        for lr, accuracy in ((1.0, 0.6), (0.1, 0.5))
    ]
    line = run_view.status(runs, "en")
    assert line.startswith("<div class='status' data-spoken='epoch 1 of 3'><b>Interrupted</b>")
    for words in (killed, "Resume continues from there", "so far lr 1 leads with a test accuracy of 60.00%"):
        assert line.count(words) == 1
    assert "won" not in line
    runs = [Run(config=run.config, history=run.history, status="interrupted") for run in runs]
    assert "the app stopped" in run_view.status(runs, "en")


def test_the_table_has_the_figures_of_a_holdout():
    """Where pictures are kept aside; otherwise there are no empty columns."""
    row = replace(ended(1, 0.5), holdout_loss=1.2345, holdout_accuracy=0.4321)
    table = run_view.epochs_table([Run(config=TrainConfig(holdout=0.1), history=[row])], "en")
    assert "<th>holdout accuracy</th>" in table
    assert "<td>1.2345</td><td>43.21%</td>" in table
    assert "holdout" not in run_view.epochs_table([Run(config=TrainConfig(), history=[ended(1, 0.5)])], "en")


def test_the_accuracy_of_each_class():
    """Of many classes, of the weakest; the names, which a stranger may have chosen, are text."""
    shares = {"<b>cat</b>": 1.0, "dog": 0.5, "absent": None}
    done = Run(
        config=TrainConfig(epochs=1), history=[replace(ended(1, 0.9), class_accuracy=shares)], status="completed"
    )
    assert "Accuracy of each class: &lt;b&gt;cat&lt;/b&gt; 100%, dog 50%." in run_view.status([done], "en")
    assert "各类别的准确率" in run_view.status([done], "zh")
    many = {f"class {number}": 1 - number / 100 for number in range(13)}
    done.history[-1] = replace(done.history[-1], class_accuracy=many)
    assert "Accuracy of the weakest classes: class 12 88%, class 11 89%," in run_view.status([done], "en")
