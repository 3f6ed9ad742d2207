"""Time to a target and the cost of tuning, against a count of all cases."""

import itertools
import math
import random
import statistics

import pytest

from tests.runs.test_run import ended
from tests.sweeps.test_results import run_of
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from trainer.sweeps import curves
from trainer.sweeps.axes import grid, parse_axis


@pytest.fixture
def run():
    """Three epochs of two seconds after the untrained network, with growing accuracy."""
    made = Run(config=TrainConfig(epochs=3))
    for epoch, accuracy in enumerate((0.1, 0.4, 0.6, 0.5)):
        made.apply(ended(epoch, accuracy, seconds=2.0 if epoch else 50.0))
    return made


@pytest.mark.parametrize(
    ("accuracy", "epochs", "seconds"), [(0.05, 0, 0.0), (0.4, 1, 2.0), (0.41, 2, 4.0), (0.6, 2, 4.0), (0.7, None, None)]
)
def test_the_time_to_a_target_ends_with_the_first_epoch_that_reaches_it(run, accuracy, epochs, seconds):
    """Whatever the accuracy is later; the evaluation of the untrained network is no training."""
    assert curves.epochs_to(run, accuracy) == epochs
    assert curves.seconds_to(run, accuracy) == seconds


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_the_expected_best_is_the_mean_over_all_choices_of_trials(count):
    """Enumerated, also with equal results."""
    results = [round(random.Random(count).random(), 1) for _ in range(count)]
    every = [
        statistics.fmean(max(chosen) for chosen in itertools.combinations(results, k)) for k in range(1, count + 1)
    ]
    assert curves.expected_best(results) == pytest.approx(every)
    assert curves.expected_best(results)[-1] == pytest.approx(max(results))


def test_a_thousand_trials_are_exact():
    """Without overflow, and rising to the best result."""
    best = curves.expected_best([number / 1000 for number in range(1000)])
    assert best == sorted(best)
    assert best[0] == pytest.approx(0.4995)
    assert best[-1] == pytest.approx(0.999)


def test_tuning_counts_each_combination_of_settings_once():
    """By its mean over the seeds; a run that diverged counts as its untrained network."""
    axes = [parse_axis("optimizer=sgd,adam"), parse_axis("lr=0.01,0.1"), parse_axis("seed=0,1")]
    runs = {}
    for cell in grid({}, axes).cells:
        optimizer, lr, seed = cell.values.values()
        diverges = (optimizer, lr) == ("adam", 0.1)
        accuracy = 0.1 if diverges else 0.5 + lr + 0.2 * seed
        runs[cell] = run_of(cell.config, 1.0, accuracy, "diverged" if diverges else "completed")
    found = dict(curves.tuning(runs, axes))
    assert list(found) == ["sgd", "adam"]
    assert found["sgd"] == pytest.approx([(0.61 + 0.7) / 2, 0.7])
    assert found["adam"] == pytest.approx([(0.61 + 0.1) / 2, 0.61])
    assert not any(math.isnan(value) for values in found.values() for value in values)


def test_without_names_there_is_one_curve():
    axes = [parse_axis("lr=0.01,0.1")]
    runs = {cell: run_of(cell.config, 1.0, cell.values["lr"]) for cell in grid({}, axes).cells}
    assert dict(curves.tuning(runs, axes)) == {"": pytest.approx([0.055, 0.1])}
    assert dict(curves.tuning({}, axes)) == {}
