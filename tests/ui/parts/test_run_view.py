"""The status of finished races."""

from tests.runs.test_run import ended
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from ui.parts import run_view


def status(*statuses: str) -> str:
    """The status line of a race of one-epoch runs that ended with these statuses; the first is the most accurate."""
    runs = [
        Run(config=TrainConfig(epochs=1, lr=10.0**-n), history=[ended(0, 0.1), ended(1, 0.6 - n / 10)], status=status)
        for n, status in enumerate(statuses)
    ]
    return run_view.status(runs, "en")


def test_the_lead_of_a_winner():
    """In percentage points over the second; if all others diverged, there is none."""
    assert "lr 1 won with a test accuracy of 60.00%, ahead by 10.0 percentage points" in status(
        "completed", "completed", "diverged"
    )
    assert "lr 1 won with a test accuracy of 60.00%: all others diverged" in status("completed", "diverged", "diverged")
