"""The charts of the sharpness: the line of each run's own limit, what is not finite, and the files to save."""

import json

import pytest

from trainer.insight.sharpness import RunSharpness, SharpnessMeasured
from trainer.settings.config import TrainConfig
from ui.charts.inside.sharpness import draw, loss_chart, sharpness_chart, to_csv


def measured(lr, **settings):
    """A run whose sharpness is 1, 2, … up to an epoch where it is not finite."""
    config = TrainConfig.from_settings({"optimizer": "sgd", "lr": lr, "momentum": 0.0, **settings})
    rows = [
        SharpnessMeasured(
            epoch=epoch,
            sharpness=epoch + 1.0 if epoch < 3 else None,
            limit=2 / lr if epoch else None,
            loss=2.0 - epoch / 10,
            fraction=(epoch + 1) / 4,
        )
        for epoch in range(4)
    ]
    return RunSharpness(name=f"lr {lr}", config=config, rows=rows)


def test_each_run_has_its_own_line():
    """2/lr without momentum, higher with it; the label says which; a far line needs a logarithmic axis."""
    runs = [measured(0.5), measured(0.5, momentum=0.5), measured(1e-5)]
    data = sharpness_chart(runs, "en")["data"]
    found = [(row["text"], row["is_near"]) for row in data["labels"]]
    assert found == [("2/lr", True), ("3/lr", True), ("2/lr", False)]
    assert [row["sharpness"] for row in data["labels"]] == pytest.approx([4, 6, 2e5])
    assert sharpness_chart(runs, "en")["view"] == "linear"
    assert sharpness_chart(runs[2:], "en")["view"] == "logarithmic"
    assert [row["epoch"] for row in data["broken"]] == [3, 3, 3]
    assert len(data["rows"]) == 12
    assert json.dumps([sharpness_chart(runs, "zh"), loss_chart([], "en")], allow_nan=False)


def test_a_limit_at_the_top_of_the_axis_has_room_for_its_label():
    """The label is above the line, and the axis may end at the line."""
    for spec in sharpness_chart([measured(0.002)], "en")["specs"].values():
        mark = next(layer["mark"] for layer in spec["layer"] if layer["mark"].get("dy"))
        assert spec["padding"]["top"] >= mark["fontSize"] - mark["dy"]


def test_it_is_saved():
    """The SVG has both charts and the names; the CSV each epoch."""
    runs = [measured(0.5), measured(0.25)]
    svg = draw(runs, "en")
    assert all(text in svg for text in ("sharpness", "train loss", "lr 0.25", "2/lr"))
    lines = to_csv(runs).splitlines()
    assert lines[0] == "run,epoch,sharpness,2/lr,loss"
    assert lines[4] == "lr 0.5,3,,4.0,1.7"
    assert len(lines) == 9
