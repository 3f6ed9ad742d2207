"""The charts of runs: what reaches a logarithmic axis."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import vl_convert

from tests.runs.test_run import ended
from trainer.runs.comparison import compare
from trainer.runs.run import Curve, Point, Run
from trainer.settings.config import TrainConfig
from trainer.settings.lessons import LESSONS
from ui.charts import run_charts


@pytest.mark.parametrize("measure", ["grad_norm", "test_loss"])
def test_a_band_on_a_logarithmic_axis_stays_above_0(measure):
    """With seeds so different that mean - std is negative, it is drawn around the mean, and nothing becomes NaN."""
    runs = [
        Run(
            config=TrainConfig(seed=seed, epochs=2),
            history=[replace(ended(epoch), **{measure: 100.0**seed}) for epoch in range(3)],
        )
        for seed in range(3)
    ]
    chart = run_charts.measure_chart(measure, compare(runs), epochs=2, height=200, language="en")
    rows = chart["data"]["epochs"]
    assert all(row["low"] < 0 < row["log_low"] < row["value"] < row["log_high"] for row in rows)
    spec = {**chart["specs"]["logarithmic"], "width": 300}
    spec["datasets"] = {**chart["data"], "mark": []}
    svg = vl_convert.vegalite_to_svg(spec)
    assert "NaN" not in svg.replace("✕ NaN", "")
    (band,) = [layer for layer in spec["layer"] if layer.get("mark", {}).get("type") == "area"]
    assert (band["encoding"]["y"]["field"], band["encoding"]["y2"]["field"]) == ("log_low", "log_high")


def test_the_names_at_the_ends_of_the_curves_do_not_cover_each_other():
    """They are in the order of the losses, and at least a line's height apart, which is 18 pixels here."""
    losses = (0.5, 2.5, 0.51, 0.505)
    runs = [
        Run(config=TrainConfig(lr=10.0**-n, epochs=1), history=[ended(0), replace(ended(1), train_loss=loss)])
        for n, loss in enumerate(losses)
    ]
    chart = run_charts.loss_chart(compare(runs), epochs=1, num_classes=10, lesson=None, height=360, language="en")
    ends = chart["data"]["ends"]
    assert [row["label"] for row in ends] == ["lr 1", "lr 0.001", "lr 0.01", "lr 0.1"]
    span = 2.5 - min(0.5, ended(1).test_loss)
    gaps = [upper["drawn"] - lower["drawn"] for lower, upper in pairwise(ends)]
    assert min(gaps) >= 18 / 360 * span - 1e-9


def test_long_names_at_the_ends_can_be_told_apart():
    """Without the setting that all of them begin with; the legend has the whole names."""
    history = [ended(epoch) for epoch in range(2)]
    runs = [Run(config=TrainConfig(epochs=1, zero_grad_every=every), history=history) for every in (0, 1)]
    chart = run_charts.loss_chart(compare(runs), epochs=1, num_classes=10, lesson=None, language="en")
    assert sorted(row["label"] for row in chart["data"]["ends"]) == ["0", "1"]


def test_names_are_moved_apart_on_a_plateau():
    """Also where the losses are the same: the axis has its least span, of 0.4, and the sums follow the means."""
    runs = [
        Run(
            config=TrainConfig(lr=10.0**-n, epochs=1, num_images=640),
            history=[replace(ended(epoch), train_loss=2.3, test_loss=2.3) for epoch in range(2)],
        )
        for n in range(2)
    ]
    chart = run_charts.loss_chart(compare(runs), epochs=1, num_classes=10, lesson=None, height=360, language="en")
    ends = chart["data"]["ends"]
    assert ends[1]["drawn"] - ends[0]["drawn"] == pytest.approx(0.4 * 18 / 360)


def test_a_notebooks_sums_are_over_the_batches_of_the_run():
    """So that its curve can be compared with the run's, whatever the number of pictures."""
    data = lesson_data(2.3, 2.2, lesson=LESSONS["softmax-plateau"])
    (guess,), printed = data["guess"], data["printed"]
    assert printed[0]["sum"] / printed[0]["value"] == pytest.approx(guess["sum"] / guess["value"])


def test_the_sums_of_an_epoch_are_those_of_the_train_loss():
    """They have no curve of the test loss, and so no name for one."""
    ends = lesson_data(2.3, 2.2)["ends"]
    assert {row["label"]: row["sum"] is None for row in ends} == {"train": False, "test": True}


def lesson_data(*losses: float, lesson=None) -> dict[str, list]:
    """The rows of the loss chart of a run with these smoothed losses at its batches."""
    run = Run(config=TrainConfig(epochs=1), history=[replace(ended(n), test_loss=losses[-1]) for n in range(2)])
    points = [Point(n / len(losses), loss, loss, 0.1, 1.0) for n, loss in enumerate(losses, 1)]
    run = replace(run, curve=Curve(points=points))
    chart = run_charts.loss_chart(compare([run]), epochs=1, num_classes=10, lesson=lesson, language="en")
    return chart["data"]


def test_a_plateau_looks_like_one():
    """The axis of a loss that falls by 0.01 spans 0.4; that of one that falls by 1 spans what it falls."""
    low, high = (row["value"] for row in lesson_data(2.303, 2.293)["frame"])
    assert high - low == pytest.approx(0.4)
    assert lesson_data(2.303, 1.3)["frame"] == []


def test_a_plateau_looks_like_one_before_its_lesson_is_trained():
    """The notebook's losses alone have the same least span, also as sums over its 156 batches."""
    lesson = LESSONS["softmax-plateau"]
    data = run_charts.loss_chart([], epochs=3, num_classes=10, lesson=lesson, language="en")["data"]
    assert len(data["printed"]) > 1
    low, high = (row["sum"] for row in data["frame"])
    assert high - low == pytest.approx(0.4 * 156)
    assert data["guess"][0]["sum"] == pytest.approx(156 * math.log(10))


def test_every_batch_can_be_seen_without_smoothing():
    """In a view of its own, on the same axis and cut off at the same height."""
    run = Run(config=TrainConfig(epochs=1), history=[ended(0), ended(1)])
    points = [Point(0.5, 2.5, 2.3, 0.1, 1.0), Point(1.0, 900.0, 2.2, 0.1, 1.0)]
    chart = run_charts.loss_chart(
        compare([replace(run, curve=Curve(points=points))]), epochs=1, num_classes=10, lesson=None, language="en"
    )
    first, second = chart["data"]["steps"]
    assert (first["drawn"], first["unsmoothed"]) == (2.3, 2.5)
    assert second["drawn"] == 2.2 < second["unsmoothed"] < 10
    fields = [str(layer["encoding"].get("y", "")) for layer in chart["specs"]["every batch"]["layer"]]
    assert sum("unsmoothed" in field for field in fields) == 1


def test_a_loss_that_leaves_the_chart_is_marked():
    """Where it is cut off, and how far it went."""
    (mark,) = lesson_data(2.3, 50.0, 70.0, 2.3)["cut"]
    assert "70" in mark["text"]
    assert mark["epoch"] == 0.5
    assert lesson_data(2.3, 2.2)["cut"] == []
