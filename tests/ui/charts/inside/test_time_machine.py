"""The time machine's charts: their data are the network's probabilities, and new epochs do not redraw them."""

import json

import pytest
import torch
import vl_convert

from trainer.insight.mistakes import Answers
from trainer.insight.timeline import Moment
from trainer.networks.predict import Prediction
from ui.charts.inside.time_machine import bars_chart, class_colors, lines_chart, score_rows, scores_chart, shares


def moment(epoch, **confidences):
    """A moment with the given probabilities."""
    label = max(confidences, key=confidences.get)
    prediction = Prediction(label=label, confidences=confidences, seen=torch.zeros(3, 8, 8, dtype=torch.uint8))
    return Moment(epoch=epoch, class_names=tuple(confidences), prediction=prediction, filters=torch.zeros(1, 3, 5, 5))


MOMENTS = [
    moment(0, cat=0.3, dog=0.18, frog=0.19, ship=0.33),
    moment(2, cat=0.5, dog=0.15, frog=0.05, ship=0.3),
    moment(3, cat=0.9, dog=0.05, frog=0.02, ship=0.03),
]


def test_classes_that_were_likely_at_any_epoch_have_lines():
    """A line contains the probabilities at the epochs that exist."""
    rows = lines_chart(MOMENTS, 3, "en")["data"]["shares"]
    assert [(row["epoch"], row["share"]) for row in rows if row["class"] == "cat"] == [(0, 0.3), (2, 0.5), (3, 0.9)]
    assert {row["class"] for row in rows} == {"cat", "ship"}


def test_the_likeliest_class_at_the_last_epoch_always_has_a_line():
    """The chart of a network that has learned nothing has at least one line."""
    unsure = moment(0, **{f"class {index}": 0.1 + index / 1000 for index in range(9)})
    assert [row["class"] for row in lines_chart([unsure], 1, "en")["data"]["shares"]] == ["class 8"]


def test_colors_stay_when_moments_arrive():
    """A class has one color in both charts and in every update."""
    assert all(class_colors(MOMENTS[:count]) == class_colors(MOMENTS) for count in (1, 2))
    assert {row["class"]: row["color"] for row in shares(MOMENTS[0], class_colors(MOMENTS))} == class_colors(MOMENTS)
    assert len(set(class_colors(MOMENTS).values())) == 4


def test_of_many_classes_the_likeliest_are_drawn():
    """At most ten, in the network's order."""
    many = moment(0, **{f"{index:02d}": (index % 13) / 100 for index in range(26)})
    drawn = list(class_colors([many]))
    assert len(drawn) == 10
    assert drawn == sorted(drawn)
    assert {"12", "25"} <= set(drawn)


def test_new_moments_do_not_redraw_the_charts():
    """The specs are the same; only the data change."""
    for count in (1, 2):
        assert lines_chart(MOMENTS[:count], 3, "en")["specs"] == lines_chart(MOMENTS, 3, "en")["specs"]
        assert bars_chart(MOMENTS[:count], "en")["specs"] == bars_chart(MOMENTS, "en")["specs"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_selected_epoch_is_drawn(language):
    """Bars with their percentages, and the name of the likeliest class."""
    now = shares(MOMENTS[1], class_colors(MOMENTS))
    lines, bars = lines_chart(MOMENTS, 3, language), bars_chart(MOMENTS, language)
    fed = {**lines["data"], "mark": [{"epoch": 2}], "now": now}
    drawn = vl_convert.vegalite_to_svg(json.dumps({**lines["specs"][""], "width": 500, "datasets": fed}))
    assert ">cat</text>" in drawn
    drawn = vl_convert.vegalite_to_svg(json.dumps({**bars["specs"][""], "width": 300, "datasets": {"now": now}}))
    assert all(f">{text}</text>" in drawn for text in ("50.0%", "15.0%", "5.0%", "30.0%", "cat", "frog"))


def test_the_mistakes_of_the_selected_epoch_are_drawn():
    """Only its own: the accuracy as a bar, and the most frequent mistake as text."""
    names, labels = ("cat", "dog"), torch.tensor([0, 0, 0, 0, 1])
    wrong, right = torch.tensor([[0, 1.0]] * 5), torch.eye(2)[labels]
    answers = [Answers(class_names=names, labels=labels, probabilities=each) for each in (wrong, right)]
    rows = [row for epoch, each in enumerate(answers) for row in score_rows(epoch, each, names)]
    assert [(row["class"], row["accuracy"], row["mistake"]) for row in rows] == [
        ("cat", 0, "dog 100%"),
        ("dog", 1, ""),
        ("cat", 1, ""),
        ("dog", 1, ""),
    ]
    chart = scores_chart(rows, names, "en")
    for epoch, count in ((0, 1), (1, 0)):
        data = {**chart["data"], "mark": [{"epoch": epoch}]}
        drawn = vl_convert.vegalite_to_svg(json.dumps({**chart["specs"][""], "width": 300, "datasets": data}))
        assert drawn.count(">dog 100%<") == count
