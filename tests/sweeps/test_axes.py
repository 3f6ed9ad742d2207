"""Axes and the grid that they make: what is accepted, and one sentence for everything else."""

import pytest

from trainer.errors import UserError
from trainer.settings.config import TrainConfig
from trainer.sweeps.axes import MOST_CELLS, Axis, axis_text, grid, parse_axis


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("optimizer=sgd,adamw,muon", "optimizer", ("sgd", "adamw", "muon")),
        ("lr=0.1, 0.2 ,0.3", "lr", (0.1, 0.2, 0.3)),
        ("lr=1e-4..1:5", "lr", (0.0001, 0.001, 0.01, 0.1, 1.0)),
        ("lr=0.01..0.1:3", "lr", (0.01, 0.0316228, 0.1)),
        ("lr = 1e-4 .. 1 : 3", "lr", (0.0001, 0.01, 1.0)),
        ("batch-size=32..512:5", "batch_size", (32, 64, 128, 256, 512)),
        ("seed=0,1,2", "seed", (0, 1, 2)),
        ("batch_size=2..3:9", "batch_size", (2, 3)),  # nine values that are two when rounded
        ("nesterov=true,false", "nesterov", (True, False)),
        ("betas=0.9,0.999;0.8 0.99", "betas", ((0.9, 0.999), (0.8, 0.99))),
        ("milestones=1,2;3;4,5,6", "milestones", ((1, 2), (3,), (4, 5, 6))),
    ],
)
def test_an_axis_is_read(text, name, values):
    assert parse_axis(text) == Axis(name, values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr", "name=values"),
        ("", "name=values"),
        ("=1,2", "no setting"),
        ("lrr=1,2", "Did you mean lr"),
        ("lr=0.1", "two values"),
        ("lr=", "lr must be"),
        ("lr=0.1,0.1", "twice"),
        ("lr=0.1,0.10", "twice"),
        ("lr=1..0.1:3", "larger one"),
        ("lr=0..1:3", "above 0"),
        ("lr=1..1:3", "larger one"),
        ("lr=-1..1:3", "above 0"),
        ("lr=0.1..1:0", "number of its values"),
        ("lr=0.1..1:1", "number of its values"),
        ("lr=0.1..1", "number of its values"),
        ("lr=0.1..1:x", "number of its values"),
        ("lr=0.1..1:1001", "number of its values"),
        ("lr=0.1..1:9999999999999999999999", "number of its values"),
        ("lr=a..1:3", "lr must be"),
        ("lr=0.1..nan:3", "larger one"),
        ("lr=0.1,-1", "lr must be"),
        ("lr=1..1e40:3", "lr is too large"),
        ("optimizer=sgd..adam:3", "optimizer must be one of"),
        ("optimizer=sgd,adma", "optimizer must be one of"),
        ("betas=0.9..0.99:3", "separated by semicolons"),
        ("betas=0.9,0.99", "two values"),
        ("batch_size=2.5,3", "batch_size must be"),
        ("seed=" + ",".join(map(str, range(1001))), "up to 1,000"),
        ("lr=\x00,1", "lr must be"),
    ],
)
def test_anything_else_is_explained(text, words):
    """In one sentence, which names what to change."""
    with pytest.raises(UserError, match=words) as error:
        parse_axis(text)
    assert str(error.value)[-1] in ".?"
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("lr=1e-4..1:9", "lr=0.0001..1.0:9"), ("lr=0.1,0.2,0.3", "lr=0.1,0.2,0.3"), ("lr=0.1,0.01", "lr=0.1,0.01"),
        ("lr=1,0.1,0.01", "lr=1.0,0.1,0.01"), ("batch-size=32..512:5", "batch_size=32..512:5"),
        ("seed=0,1,2", "seed=0,1,2"),
        ("optimizer=sgd,muon", "optimizer=sgd,muon"), ("betas=0.9,0.999;0.8,0.99", "betas=0.9,0.999;0.8,0.99"),
        ("nesterov=true,false", "nesterov=true,false"), ("batch_size=2..4:9", "batch_size=2..4:3"),
    ],
)  # fmt: skip
def test_an_axis_can_be_written(text, again):
    """As a range if it is one; reading it gives the same axis."""
    assert axis_text(parse_axis(text)) == again
    assert parse_axis(again) == parse_axis(text)


def test_the_grid_is_the_product():
    """In the order of the axes; settings that a row lacks are refused with their sentence, the rest runs."""
    whole = grid({"epochs": 2}, [parse_axis("optimizer=sgd,adam"), parse_axis("momentum=0.5,0.9")])
    assert [cell.values for cell in whole.cells] == [
        {"optimizer": "sgd", "momentum": 0.5},
        {"optimizer": "sgd", "momentum": 0.9},
    ]
    assert [values["optimizer"] for values, _ in whole.refused] == ["adam", "adam"]
    assert all("momentum is not a setting of the optimizer adam" in sentence for _, sentence in whole.refused)
    assert whole.cells[1].config == TrainConfig(optimizer="sgd", momentum=0.9, epochs=2, holdout=0.1)


def test_each_row_has_its_own_defaults():
    """Settings that do not vary are those of the optimizer of the cell."""
    whole = grid({}, [parse_axis("optimizer=sgd,adamw_schedulefree"), parse_axis("seed=0,1")])
    assert [cell.config.scheduler for cell in whole.cells] == ["onecycle", "onecycle", "constant", "constant"]
    assert {cell.config.holdout for cell in whole.cells} == {0.1}
    assert grid({"holdout": 0.0}, [parse_axis("seed=0,1")]).cells[0].config.holdout == 0


def test_names_are_folders():
    """Different, short, and without anything that a file system might refuse."""
    texts = ["optimizer=sgd,adamw", "lr=1e-4..1:9", "milestones=1,2;3,4,5", "seed=0,1"]
    cells = grid({"scheduler": "multistep"}, [parse_axis(text) for text in texts]).cells
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names) == 72
    assert all(len(name) <= 80 and name.replace("-", "").replace(".", "").isalnum() for name in names)
    assert names[0] == "0000-optimizer-sgd-lr-0.0001-milestones-1-2-seed-0"


@pytest.mark.parametrize(
    ("settings", "axes", "words"),
    [
        ({}, [], "Vary at least one"),
        ({}, ["lr=1,2", "lr=3,4"], "varies twice"),
        ({"lr": 0.1}, ["lr=1,2"], "leave out one"),
        ({}, ["seed=" + ",".join(map(str, range(400))), "lr=1e-4..1:400"], "160,000 runs"),
        ({"optimizer": "adam"}, ["momentum=0.5,0.9"], "momentum is not a setting"),
    ],
)
def test_a_grid_that_cannot_be_is_explained(settings, axes, words):
    with pytest.raises(UserError, match=words) as error:
        grid(settings, [parse_axis(text) for text in axes])
    assert str(error.value).endswith(".")


def test_ten_thousand_cells_are_the_most():
    """They are planned within a few seconds."""
    text = ["seed=" + ",".join(map(str, range(100))), "lr=1e-4..1:100"]
    axes = [parse_axis(each) for each in text]
    assert len(grid({}, axes).cells) == MOST_CELLS
    with pytest.raises(UserError, match="make 10,000 runs; a sweep has up to 60"):
        grid({}, axes, most=60)
