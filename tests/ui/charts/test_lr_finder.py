"""The chart of a range test: one spec for all updates, and no data outside its axes."""

import json
import math

import pytest
import vl_convert

from trainer.learning.lr_finder import Finding, Trial
from ui.charts.lr_finder import finder_chart

LOSSES = [2.3, 2.3, 2.2, 2.0, 2.1, 9.0, math.inf]
TRIALS = [
    Trial(step=index + 1, num_steps=7, lr=10.0 ** (index - 5), loss=loss, smoothed=loss)
    for index, loss in enumerate(LOSSES)
]
FINDING = Finding(suggestion=0.002, diverges_at=1.0, reason="")


def test_new_trials_do_not_redraw_the_chart():
    """The spec is the same from the first trial to the finding; only the data change."""
    specs = [finder_chart(TRIALS[:count], None, None, "en")["specs"][""] for count in (0, 1, 4)]
    chart = finder_chart(TRIALS, FINDING, (1e-6, 0.02), "en")
    assert all(spec == chart["specs"][""] for spec in specs)
    layers = [layer["data"]["name"] for layer in chart["specs"][""]["layer"]]
    assert set(layers) == set(chart["data"])


def test_exploded_losses_are_left_out_and_the_axes_hold_everything_else():
    """The axes include the planned schedule and the range that diverges."""
    data = finder_chart(TRIALS, FINDING, (1e-6, 0.02), "en")["data"]
    assert [row["smoothed"] for row in data["trials"]] == [2.3, 2.3, 2.2, 2.0, 2.1, None, None]
    low, high = data["frame"]
    assert low["lr"] == 1e-6
    assert high["lr"] == 10.0
    assert low["loss"] < 2.0 < 2.3 < high["loss"] < 9
    assert data["diverging"] == [{"lr": 1.0, "end": 10.0, "text": "diverges"}]
    assert data["suggested"][0]["lr"] == 0.002


def test_a_search_without_a_result_marks_nothing():
    """Without a suggestion there is no rule, and without divergence no shaded range."""
    data = finder_chart(TRIALS[:4], Finding(suggestion=None, diverges_at=None, reason=""), None, "en")["data"]
    assert data["suggested"] == data["diverging"] == data["planned"] == []


@pytest.mark.parametrize("planned", [(0.0, 0.02), (1e-300, 0.02), (0.0, 1e-12), (0.02, 1e10), (0.02, 0.02)])
@pytest.mark.parametrize("trials", [[], TRIALS], ids=["before", "after"])
def test_a_schedule_far_away_leaves_the_curve_readable(planned, trials):
    """A schedule may end at 0, which a logarithmic axis cannot show: its bar is clipped, the axis keeps its labels."""
    chart = finder_chart(trials, FINDING if trials else None, planned, "en")
    low, high = chart["data"]["frame"]
    assert 1e-7 <= low["lr"] <= 1e-5
    assert 10.0 <= high["lr"] <= 1000.0
    (bar,) = chart["data"]["planned"]
    assert low["lr"] <= bar["lr"] <= bar["end"] <= high["lr"]
    drawn = vl_convert.vegalite_to_svg(json.dumps({**chart["specs"][""], "width": 600, "datasets": chart["data"]}))
    assert ">0.001</text>" in drawn
    assert "NaN" not in drawn
