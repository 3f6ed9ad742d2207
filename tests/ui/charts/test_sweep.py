"""The charts of a sweep: what their rows say, for every kind of sweep."""

import re

import pytest
import vl_convert

from tests.sweeps.test_results import run_of
from trainer.runs.run import Run
from trainer.sweeps import chart
from trainer.sweeps.axes import grid, parse_axis
from ui.charts.sweep import loss_chart, series_of, time_chart, tuning_chart

ONE = ("optimizer=sgd,adam", "lr=0.01..1:3", "seed=0,1")
TWO = ("optimizer=sgd,adam", "lr=0.01..1:3", "weight_decay=0.001,0.01")


def swept(texts, loss=lambda cell: 1.0 + cell.number / 10, diverges=lambda cell: False):
    axes = [parse_axis(text) for text in texts]
    runs = {
        cell: run_of(cell.config, loss(cell), 0.5, "diverged" if diverges(cell) else "completed")
        for cell in grid({}, axes).cells
    }
    return runs, axes


def data(value, name="points"):
    return value["data"][name]


def drawn(value):
    """Whether Vega can draw each of the chart's views with its data."""
    for spec in value["specs"].values():
        filled = {**spec, "datasets": value["data"]}
        assert vl_convert.vegalite_to_svg(filled).startswith("<svg")


def test_a_point_is_the_mean_over_the_seeds_with_their_range():
    """The best of each optimizer is marked, and the row can be pressed."""
    runs, axes = swept(ONE)
    points = {row["press"]: row for row in data(loss_chart(runs, axes, "en"))}
    assert len(points) == 6
    first = points["sgd · lr 0.01"]
    assert (first["loss"], first["loss_low"], first["loss_high"]) == (pytest.approx(1.05), 1.0, pytest.approx(1.1))
    assert (first["x"], first["series"], first["accuracy"]) == (0.01, "sgd", 0.5)
    assert [name for name, row in points.items() if row["best"]] == ["sgd · lr 0.01", "adam · lr 0.01"]


def test_diverged_runs_are_marked_and_an_exploded_loss_does_not_flatten_the_others():
    """The mark says how many of the seeds; a huge loss is drawn a little above that of the untrained network."""
    runs, axes = swept(
        ONE,
        loss=lambda cell: 1e9 if cell.values["lr"] == 1 else 1.0,
        diverges=lambda cell: cell.values["lr"] == 0.1 and cell.values["seed"] == 1,
    )
    for cell, run in runs.items():
        runs[cell] = Run(
            config=run.config, history=[run_of(cell.config, 2.3).history[0], *run.history[1:]], status=run.status
        )
    value = loss_chart(runs, axes, "en")
    points = {row["press"]: row for row in data(value)}
    assert points["adam · lr 1.0"]["loss"] == 1e9
    assert points["adam · lr 1.0"]["loss_drawn"] == pytest.approx(1.3 * 2.3)
    assert [(row["press"], row["note"]) for row in data(value, "edge")] == [
        ("sgd · lr 0.1", "diverged: 1 of 2"), ("adam · lr 0.1", "diverged: 1 of 2"),
    ]  # fmt: skip
    first, second = data(value, "edge")
    assert first["x"] != second["x"], "they do not cover each other"


def test_a_run_in_training_is_a_point_of_its_own():
    """Until it has ended."""
    runs, axes = swept(ONE[:2])
    cell = next(iter(runs))
    runs[cell].status = "training"
    value = loss_chart(runs, axes, "en")
    assert len(data(value)) == 5
    assert [row["press"] for row in data(value, "running")] == ["sgd · lr 0.01"]


def test_two_numbers_make_a_heat_map_for_each_optimizer():
    """With a cross where a run diverged."""
    runs, axes = swept(TWO, diverges=lambda cell: cell.number == 0)
    value = loss_chart(runs, axes, "en")
    assert list(value["specs"]) == ["sgd", "adam"]
    fields = {row["press"]: row for row in data(value, "fields")}
    assert len(fields) == 12
    assert fields["sgd · lr 0.01 · weight_decay 0.001"]["text"] == "✕"
    assert fields["sgd · lr 0.01 · weight_decay 0.01"]["text"] == "1.10"


def test_the_best_of_a_heat_map_is_framed():
    """One field of each optimizer's map, on the page; the best of all in the picture."""
    runs, axes = swept(TWO, diverges=lambda cell: cell.number == 0)
    fields = data(loss_chart(runs, axes, "en"), "fields")
    assert [row["press"] for row in fields if row["is_best"]] == [
        "sgd · lr 0.01 · weight_decay 0.01",
        "adam · lr 0.01 · weight_decay 0.001",
    ]
    drawn_fields = chart.spec(runs, axes)["data"]["values"]
    assert [(row["x"], row["y"]) for row in drawn_fields if row["is_best"]] == [("0.01", "0.01")]


def labels_of(svg):
    """The numbers along the vertical axis of a chart."""
    axes = re.findall(r'aria-label="Y-axis[^>]*>(.*?)role-axis-title', svg, re.DOTALL)
    return [label for axis in axes for label in re.findall(r"<text[^>]*>([^<]+)</text>", axis)]


def test_the_axis_of_a_single_point_has_several_ticks():
    """When one run has ended, and when all have the same result; on the page and in the picture."""
    runs, axes = swept(ONE)
    for some in (dict(list(runs.items())[:1]), {cell: run_of(cell.config, 1.0) for cell in runs}):
        pictures = [chart.draw(some, axes)]
        for value in (loss_chart(some, axes, "en"), tuning_chart(some, axes, "en")):
            pictures += [
                vl_convert.vegalite_to_svg({**spec, "datasets": value["data"]}) for spec in value["specs"].values()
            ]
        for svg in pictures:
            labels = labels_of(svg)
            assert len(labels) == len(set(labels)) >= 4


def test_the_time_to_a_target():
    """The mean over the seeds if all reached it, else a mark that says how many did."""
    runs, axes = swept(ONE)
    for cell, run in runs.items():
        if (cell.values["optimizer"], cell.values["seed"]) == ("adam", 1):
            runs[cell] = run_of(run.config, 1.0, 0.2)
    value = time_chart(runs, axes, 0.3, "en")
    assert [(row["press"], row["seconds"], row["epochs"]) for row in data(value)] == [
        (f"sgd · lr {lr}", 0.0, 0.0) for lr in (0.01, 0.1, 1.0)
    ]
    assert [(row["press"], row["note"]) for row in data(value, "edge")] == [
        (f"adam · lr {lr}", "reached by 1 of 2") for lr in (0.01, 0.1, 1.0)
    ]


def test_the_cost_of_tuning():
    """A line for each optimizer, over the number of settings tried; it looks like the optimizer's other lines."""
    runs, axes = swept(ONE)
    value = tuning_chart(runs, axes, "en")
    assert [(row["series"], row["x"]) for row in data(value)] == [
        (name, trials) for name in ("sgd", "adam") for trials in (1, 2, 3)
    ]
    assert {row["tuned"] for row in data(value)} == {0.5}


def test_lines_can_be_told_apart():
    """By color, dash or shape, for every optimizer that there is."""
    names = "optimizer=sgd,adam,adamw,rmsprop,adagrad,adadelta,nadam,radam,adamax,adafactor,lion,adan"
    series = series_of([parse_axis(names), parse_axis("lr=0.1,0.2")])
    assert len({(one.color, one.dash, one.shape) for one in series}) == 12
    assert [one.name for one in series_of([parse_axis("lr=0.1,0.2")])] == [""]
    three = [*map(parse_axis, ("optimizer=sgd,adam", "nesterov=true,false", "lr=1,2"))]
    assert [one.name for one in series_of(three)][:2] == [
        "sgd · nesterov true", "sgd · nesterov false",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "texts", [ONE, TWO, ("lr=0.1,0.2",), ("lr=0.1,0.2", "batch_size=16,32"), ("optimizer=sgd,adam", "seed=0,1")]
)
def test_every_kind_of_sweep_can_be_drawn(texts):
    """Before the first run has ended, in between, and when all have diverged; in both languages."""
    for language, diverges in (("en", False), ("zh", True)):
        runs, axes = swept(texts, diverges=lambda cell, diverges=diverges: diverges)
        for some in ({}, runs):
            for value in (
                loss_chart(some, axes, language),
                time_chart(some, axes, 0.4, language),
                tuning_chart(some, axes, language),
            ):
                drawn(value)
