"""The comparison of runs: their differences, the winner, and the table."""

import csv
import io
import math
from dataclasses import replace

import pytest
from cases import ROWS

from tests.runs.test_run import ended
from trainer.runs.comparison import compare, differences, short_labels, to_csv, verdict
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig


def run(config, *accuracies, status="completed", name=""):
    history = [ended(n, accuracy) for n, accuracy in enumerate(accuracies)]
    return Run(config=config, name=name, history=history, status=status)


SGD, ADAM = TrainConfig(), TrainConfig(optimizer="adam")


def test_a_label_has_only_what_differs():
    """Equal settings are left out and, if the optimizers or schedulers differ, those with their row's default."""
    labels = [one.label for one in compare([run(SGD), run(ADAM)])]
    assert labels == ["sgd · lr 0.02", "adam · lr 0.003"]
    labels = [one.label for one in compare([run(SGD), run(SGD.changed({"momentum": 0.5})), run(ADAM)])]
    assert labels == ["sgd · lr 0.02", "sgd · lr 0.02 · momentum 0.5", "adam · lr 0.003"]
    labels = [one.label for one in compare([run(SGD), run(SGD.changed({"lr": 0.1})), run(SGD.changed({"lr": 1}))])]
    assert labels == ["lr 0.02", "lr 0.1", "lr 1"]
    betas = ADAM.changed({"betas": (0.5, 0.9), "lr": 0.02, "weight_decay": 5e-4})
    assert [one.label for one in compare([run(SGD), run(betas)])] == ["sgd", "adam · betas 0.5, 0.9"]
    mistake = SGD.changed({"softmax": True})
    assert [one.label for one in compare([run(mistake), run(SGD)])] == ["softmax", "no softmax"]
    assert [one.label for one in compare([run(SGD)])] == [""]


@pytest.mark.parametrize(("optimizer", "scheduler"), ROWS)
def test_different_configs_have_different_labels(optimizer, scheduler):
    """For each optimizer and scheduler."""
    one, other = TrainConfig(), TrainConfig(optimizer=optimizer, scheduler=scheduler)
    first, second = differences([one, other])
    assert (first == second) == (one == other)


def test_seeds_are_one_contender_with_mean_and_spread():
    """Mean and sample standard deviation, calculated by hand; for the epochs that all seeds have."""
    runs = [run(SGD, 0.1, 0.5), run(SGD.changed({"seed": 1}), 0.1, 0.7), run(ADAM, 0.1, 0.4)]
    first, second = compare(runs)
    assert first.runs == (runs[0], runs[1])
    assert first.accuracy == pytest.approx((0.6, 0.2 / 2**0.5))
    assert second.accuracy == pytest.approx((0.4, 0.0))
    late = compare([run(SGD, 0.1, 0.5, 0.9), run(SGD.changed({"seed": 1}), 0.1, 0.7)])[0]
    assert late.epoch == 1
    assert late.at(2, "test_accuracy") is None


def test_a_figure_that_is_not_finite_is_none():
    """The gradients of a float16 run can have an infinite norm."""
    runs = [run(SGD, 0.1, 0.5), run(SGD.changed({"seed": 1}), 0.1, 0.7)]
    runs[1].history[1] = replace(runs[1].history[1], grad_norm=math.inf)
    (one,) = compare(runs)
    assert one.at(1, "grad_norm") is None
    assert one.at(1, "test_accuracy") is not None


def test_the_best_epoch_is_the_earliest_of_the_best():
    """By mean test accuracy."""
    assert compare([run(SGD, 0.1, 0.5, 0.7, 0.7, 0.6)])[0].best_epoch == 2


def test_the_winner_and_its_lead():
    """By the last test accuracy; a small lead with one seed, or within the seeds' spread, is not clear."""
    won = verdict(compare([run(SGD, 0.1, 0.5), run(ADAM, 0.1, 0.7)]))
    assert (won.winner.runs[0].config, won.margin, won.clear) == (ADAM, pytest.approx(0.2), True)
    assert not verdict(compare([run(SGD, 0.1, 0.5), run(ADAM, 0.1, 0.505)])).clear
    seeds = [run(SGD.changed({"seed": n}), 0.1, value) for n, value in enumerate((0.5, 0.7))]
    assert not verdict(compare([*seeds, run(ADAM, 0.1, 0.55)])).clear
    assert verdict(compare([run(SGD, 0.1, 0.5), run(ADAM, 0.1, 0.5004)])).is_tie
    assert not verdict(compare([run(SGD, 0.1, 0.5), run(ADAM, 0.1, 0.501)])).is_tie


def test_no_winner_without_a_race():
    """A single run, a run still training, or only diverged ones; a diverged run never wins."""
    assert verdict(compare([run(SGD, 0.1, 0.5)])) is None
    assert verdict(compare([run(SGD, 0.1, 0.5), run(ADAM, 0.1, 0.5, status="training")])) is None
    assert verdict(compare([run(SGD, 0.1, status="diverged"), run(ADAM, 0.1, 0.9, status="diverged")])) is None
    won = verdict(compare([run(SGD, 0.1, 0.2), run(ADAM, 0.1, 0.9, status="diverged")]))
    assert (won.winner.runs[0].config, won.margin, won.clear, won.is_tie) == (SGD, None, True, False)
    # Stopped before its first epoch, the other one neither lost nor diverged.
    assert verdict(compare([run(SGD, 0.1, 0.2), run(ADAM, 0.1, status="stopped")])) is None


def test_the_table_has_every_epoch_of_every_run():
    """Read by csv: the settings that differ, and each figure to the last digit."""
    runs = [run(SGD, 0.1, 1 / 3), run(ADAM, 0.1, 0.7)]
    rows = list(csv.DictReader(io.StringIO(to_csv(runs))))
    assert [(row["run"], row["optimizer"], row["epoch"]) for row in rows] == [
        ("1", "sgd", "0"),
        ("1", "sgd", "1"),
        ("2", "adam", "0"),
        ("2", "adam", "1"),
    ]
    assert float(rows[1]["test_accuracy"]) == 1 / 3
    assert "momentum" not in rows[0]


def test_published_runs_are_contenders_of_their_own():
    """Never a seed of a local run or of another repo's; labelled with their repo even if nothing else differs."""
    runs = [run(SGD, 0.1, 0.5), run(SGD, 0.1, 0.6), run(SGD.changed({"seed": 1}), 0.1, 0.7), run(ADAM, 0.1, 0.4)]
    contenders = compare(runs, ["", "some/one", "", "other/one"])
    assert [len(one.runs) for one in contenders] == [2, 1, 1]
    assert [one.label for one in contenders] == [
        "sgd · lr 0.02 · onecycle",
        "some/one",
        "other/one",
    ]
    assert [one.label for one in compare(runs[:2], ["", "some/one"])] == ["sgd · lr 0.02 · onecycle", "some/one"]
    table = list(csv.DictReader(io.StringIO(to_csv(runs[:2], ["", "some/one"]))))
    assert [(row["run"], row["repo_id"], row["epoch"]) for row in table] == [
        ("1", "", "0"), ("1", "", "1"), ("2", "some/one", "0"), ("2", "some/one", "1"),
    ]  # fmt: skip
    assert "repo_id" not in to_csv(runs[:2])


def test_names_replace_the_settings_that_differ():
    """Settings are added only to tell runs of the same name apart, and a name that all runs share is left out."""
    named = run(SGD, name="mine"), run(SGD.changed({"lr": 0.1}), name="mine"), run(ADAM, name="yours")
    assert [one.label for one in compare(named)] == ["mine · lr 0.02", "mine · lr 0.1", "yours"]
    assert [one.label for one in compare(named[:2])] == ["lr 0.02", "lr 0.1"]
    other = run(ADAM.changed({"epochs": 3, "batch_size": 8, "seed": 1}))
    assert [one.label for one in compare([named[0], other])] == ["mine", "adam · lr 0.003 · onecycle"]
    # The same settings with two names are two contenders.
    assert [one.label for one in compare([run(SGD, name="a"), run(SGD, name="b")])] == ["a", "b"]


def test_the_columns_of_the_table_have_distinct_names():
    """Also if the runs differ in lr. A name that a spreadsheet would take for a formula is text."""
    table = to_csv([run(SGD, 0.1, name="=1+1"), run(SGD.changed({"lr": 0.1}), 0.1)])
    rows = list(csv.reader(io.StringIO(table)))
    assert len(set(rows[0])) == len(rows[0])
    assert [(row["run"], row["name"], row["lr"]) for row in csv.DictReader(io.StringIO(table))] == [
        ("1", "'=1+1", "0.02"),
        ("2", "", "0.1"),
    ]


def test_short_labels_are_the_first_settings_that_differ():
    """Where these are enough to tell the contenders apart."""
    runs = [Run(config=TrainConfig(optimizer=name)) for name in ("sgd", "adam")]
    assert short_labels(compare(runs)) == ["sgd", "adam"]
    runs.append(Run(config=TrainConfig(optimizer="adam", lr=0.5)))
    assert short_labels(compare(runs)) == [one.label for one in compare(runs)]
