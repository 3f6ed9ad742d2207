"""The chart of the layers: what it draws of one run and of several, also as SVG and as CSV."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
import vl_convert

from trainer.runs.events import LayersMeasured
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from ui.charts.inside.layers import STATISTICS, Drawn, draw, layers_chart, to_csv

CONFIG = TrainConfig(epochs=2)


def measured(step, **changes):
    figures = {
        "weight_norm": (3.0, 4.0),
        "grad_norm": (0.1, 0.2),
        "update_ratio": (1e-3, 0.0),
        "inactive": (0.25, None),
        **changes,
    }
    return LayersMeasured(epoch=1, step=step, epochs_passed=step / 10, layers=("conv1", "linear"), **figures)


ONE = Run(config=CONFIG, layers=[measured(1), measured(8, grad_norm=(None, 0.4))])
OTHER = Run(config=CONFIG.changed({"seed": 1}), layers=[measured(1)])
ADAM = Run(config=CONFIG.changed({"optimizer": "adam"}), layers=[measured(1, grad_norm=(7.0, 8.0))])


def drawn(*runs, layer="conv1"):
    return Drawn(runs=runs, repo_ids=[""] * len(runs), layer=layer)


def test_a_run_has_a_line_for_each_layer():
    """An update of nothing is drawn at the bottom, and named with its own size."""
    rows = layers_chart(drawn(ONE), "en")["data"]["layers"]
    assert [(row["label"], row["epoch"], row["grad_norm"]) for row in rows] == [
        ("conv1", 0.1, 0.1),
        ("linear", 0.1, 0.2),
        ("conv1", 0.8, None),
        ("linear", 0.8, 0.4),
    ]
    assert (rows[1]["ratio"], rows[1]["update_ratio"]) == (0.0, 1e-10)
    assert [row["inactive"] for row in rows[:2]] == [0.25, None]


def test_of_several_runs_the_same_layer_is_drawn():
    """Those that differ only in their seed have one color, and a line each."""
    of_race = drawn(ONE, OTHER, ADAM, layer="linear")
    assert len(of_race.lines) == 2
    assert "adam" in of_race.lines[1].name
    rows = layers_chart(of_race, "en")["data"]["layers"]
    assert [(row["run"], row["grad_norm"]) for row in rows] == [("0 0", 0.2), ("0 0", 0.4), ("0 1", 0.2), ("1 0", 8.0)]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_statistic_is_drawn(language):
    """The rule of thumb is in that of the updates only; the SVG holds all four and the names of the layers."""
    value = layers_chart(drawn(ONE), language)
    assert len(value["specs"]) == len(STATISTICS)
    rule = value["data"]["rule"][0]["text"]
    svgs = [
        vl_convert.vegalite_to_svg(json.dumps({**spec, "width": 500, "datasets": value["data"]}))
        for spec in value["specs"].values()
    ]
    assert [rule in svg for svg in svgs] == [True, False, False, False]
    together = draw(drawn(ONE), language)
    assert together.count(f">{rule}</text>") == 1
    assert all(f">{name}</text>" in together for name in ("conv1", "linear"))
    legend = [path for path in re.findall("<path[^>]+>", together) if 'aria-roledescription="square"' in path]
    assert [re.search('fill="(#[^"]+)"', path)[1] for path in legend] == [line.color for line in drawn(ONE).lines]


def test_new_samples_do_not_redraw_the_chart():
    fewer = replace(ONE, layers=ONE.layers[:1])
    assert layers_chart(drawn(fewer), "en")["specs"] == layers_chart(drawn(ONE), "en")["specs"]


def test_the_csv_has_a_row_for_each_layer_of_each_step():
    """With the number of the run, what distinguishes it, and the figures as they were measured."""
    rows = list(csv.DictReader(io.StringIO(to_csv([ONE, ADAM], ["", ""]))))
    assert len(rows) == 6
    assert [row["run"] for row in rows] == ["1"] * 4 + ["2"] * 2
    assert rows[-1]["optimizer"] == "adam"
    assert (rows[1]["layer"], rows[1]["update_ratio"], rows[1]["inactive"]) == ("linear", "0.0", "")
