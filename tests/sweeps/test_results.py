"""The best settings of a sweep, and its chart."""

import math
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from trainer.runs.events import EpochEnded, Finished
from trainer.runs.run import Run
from trainer.sweeps import chart, folder, results
from trainer.sweeps.axes import grid, parse_axis


def run_of(config, loss, accuracy=0.5, status="completed", holdout=True):
    """A run of one epoch with this loss on what is kept aside."""
    run = Run(config=config)
    for epoch in range(2 if status == "completed" else 1):
        run.apply(
            EpochEnded(
                epoch=epoch,
                train_loss=loss,
                train_loss_sum=loss,
                test_loss=loss + 1,
                test_accuracy=accuracy,
                lr=0.1,
                grad_norm=1.0,
                seconds=2.0,
                images_per_second=9.0,
                holdout_loss=loss if holdout else None,
                holdout_accuracy=accuracy if holdout else None,
            )
        )
    run.apply(Finished(reason=status))
    return run


@pytest.fixture
def swept():
    """Two optimizers at three lrs with two seeds; sgd diverges once at the largest."""
    axes = [parse_axis("optimizer=sgd,adam"), parse_axis("lr=0.01,0.1,1"), parse_axis("seed=0,1")]
    losses = {"sgd": {0.01: 2.0, 0.1: 1.0, 1.0: 0.5}, "adam": {0.01: 0.9, 0.1: 1.5, 1.0: 2.5}}
    runs = {}
    for cell in grid({}, axes).cells:
        optimizer, lr, seed = cell.values.values()
        diverges = (optimizer, lr, seed) == ("sgd", 1.0, 1)
        loss = losses[optimizer][lr] + 0.1 * seed
        runs[cell] = run_of(cell.config, loss, 0.4 + 0.2 * seed, "diverged" if diverges else "completed")
    return runs, axes


def test_a_damaged_run_leaves_the_table_out_of_the_others_cards(tmp_path, small_run):
    """So that it does not keep them from being published."""
    axes = (parse_axis("lr=0.1,0.2"),)
    sweep = folder.Sweep(folder=tmp_path / "both", settings={"epochs": 1}, axes=axes, data={})
    first, second = sweep.grid.cells
    for cell in (first, second):
        shutil.copytree(small_run, sweep.folder_of(cell))
    assert "| best settings |" in results.card_text(sweep)
    (sweep.folder_of(second) / "training.json").write_text("{", encoding="utf-8")
    assert results.card_text(sweep) == "```sh\npython -m trainer sweep --vary lr=0.1,0.2 --epochs 1\n```"


def test_the_best_is_chosen_by_what_is_kept_aside(swept):
    """By the mean over seeds; settings with which a seed diverges are not chosen, whatever the others reach."""
    best = results.best(*swept)
    assert [group.values for group in best] == [{"optimizer": "sgd", "lr": 0.1}, {"optimizer": "adam", "lr": 0.01}]
    row = results.best_row(best[0])
    assert row["holdout_loss"] == pytest.approx(1.05)
    assert row["holdout_loss_std"] == pytest.approx(0.1 / math.sqrt(2))
    assert (row["test_accuracy"], row["runs"]) == (pytest.approx(0.5), 2)


def test_the_table_of_the_best(swept):
    """The best of all first, with mean and standard deviation over the seeds."""
    assert results.best_table(*swept).splitlines() == [
        "| best settings | loss on the pictures kept aside | test accuracy | runs |",
        "| --- | ---: | ---: | ---: |",
        "| adam · lr 0.01 | 0.9500 ± 0.0707 | 50.00% ± 14.14% | 2 |",
        "| sgd · lr 0.1 | 1.0500 ± 0.0707 | 50.00% ± 14.14% | 2 |",
    ]


def test_without_names_there_is_one_best():
    axes = [parse_axis("lr=0.01,0.1")]
    runs = {cell: run_of(cell.config, cell.values["lr"], holdout=False) for cell in grid({"holdout": 0.0}, axes).cells}
    assert [group.values for group in results.best(runs, axes)] == [{"lr": 0.01}]
    assert results.best({}, axes) == []


def test_divergence_is_shown_and_not_dropped(swept):
    """The chart has the mean of the seeds that ended, their range, and a mark for those that diverged."""
    layers = chart.spec(*swept)["layer"]
    line = {(row["series"], row["x"]): row for row in layers[1]["data"]["values"]}
    assert line["sgd", 0.1] == {
        "x": 0.1, "series": "sgd", "loss": pytest.approx(1.05), "low": 1.0, "high": 1.1, "is_best": True,
    }  # fmt: skip
    assert line["sgd", 1.0]["high"] == 0.5
    assert layers[3]["data"]["values"] == [{"x": 1.0, "series": "sgd", "note": "diverged: 1 of 2"}]
    assert [row["x"] for row in layers[2]["data"]["values"]] == [0.1, 0.01]


def test_a_loss_that_exploded_does_not_flatten_the_others():
    """It is drawn 1.3 times as high as that of an untrained network."""
    axes = [parse_axis("lr=0.01,0.1")]
    runs = {cell: run_of(cell.config, loss) for cell, loss in zip(grid({}, axes).cells, (2.0, 1e6), strict=True)}
    for run in runs.values():
        run.history[0] = replace(run.history[0], holdout_loss=2.3)
    rows = chart.spec(runs, axes)["layer"][0]["data"]["values"]
    assert [(row["loss"], row["high"]) for row in rows] == [(2.0, 2.0), (pytest.approx(1.3 * 2.3),) * 2]


def test_two_numbers_make_a_heat_map():
    axes = [parse_axis("lr=0.01,0.1"), parse_axis("weight_decay=0.001,0.01"), parse_axis("seed=0,1")]
    runs = {cell: run_of(cell.config, cell.values["lr"] + cell.values["weight_decay"]) for cell in grid({}, axes).cells}
    rows = chart.spec(runs, axes)["data"]["values"]
    assert [(row["x"], row["y"], row["text"]) for row in rows] == [
        ("0.01", "0.001", "0.011"),
        ("0.01", "0.01", "0.020"),
        ("0.1", "0.001", "0.101"),
        ("0.1", "0.01", "0.110"),
    ]


@pytest.mark.parametrize(
    "texts",
    [
        ["lr=0.01,0.1", "seed=0,1"], ["optimizer=sgd,adam"], ["seed=0,1"], ["momentum=0.0,0.9"],
        ["nesterov=true,false", "lr=0.1,0.2"], ["lr=0.1,0.2", "batch_size=2,4"],
    ],
)  # fmt: skip
def test_every_kind_of_sweep_can_be_drawn(texts):
    """Also if all runs diverged."""
    axes = [parse_axis(text) for text in texts]
    for status in ("completed", "diverged"):
        runs = {cell: run_of(cell.config, 1.0 + cell.number, status=status) for cell in grid({}, axes).cells}
        assert ET.fromstring(chart.draw(runs, axes)).tag.endswith("svg")
