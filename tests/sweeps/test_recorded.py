"""Recorded sweeps: the runs come back from their file, and a damaged file is explained."""

import json
import sys
import threading

import pytest

from scripts import record_sweep
from tests.sweeps.test_runner import Here
from trainer.errors import UserError
from trainer.images.image_data import facts, load_images
from trainer.settings.lessons import LESSONS
from trainer.sweeps import folder
from trainer.sweeps.axes import parse_axis
from trainer.sweeps.folder import Sweep
from trainer.sweeps.recorded import read_recording
from trainer.sweeps.results import best, groups
from trainer.sweeps.runner import run_sweep


@pytest.fixture(scope="module")
def swept(image_folder, tmp_path_factory):
    """A finished sweep of three runs, of which one diverged."""
    images = load_images(str(image_folder))
    place = tmp_path_factory.mktemp("sweep") / "three"
    settings = {"epochs": 2, "batch_size": 8, "scheduler": "constant"}
    sweep = Sweep(folder=place, settings=settings, axes=(parse_axis("lr=0.01,0.1,1e6"),), data=facts(images))
    folder.create(sweep)
    for _ in run_sweep(sweep, sweep.grid.cells, images, [Here()], threading.Event()):
        pass
    return sweep


def test_a_sweep_comes_back(swept, tmp_path):
    """Its axes, and of each run the status and the epochs, in figures that are exact enough for a chart."""
    path = tmp_path / "sweep.json"
    assert record_sweep.record(swept.folder, path) == 3
    recorded, runs = read_recording(path), folder.runs_of(swept)
    assert recorded.axes == swept.axes
    assert recorded.data == {"name": swept.data["name"], "digest": swept.data["digest"]}
    assert list(recorded.runs) == list(runs)
    assert [run.status for run in recorded.runs.values()] == ["completed", "completed", "diverged"]
    for cell, run in runs.items():
        again = recorded.runs[cell]
        assert again.config == run.config
        assert len(again.history) == len(run.history)
        assert [row.test_loss for row in again.history] == pytest.approx(
            [row.test_loss for row in run.history], rel=1e-4
        )
        assert again.history[-1].holdout_accuracy == pytest.approx(run.history[-1].holdout_accuracy, rel=1e-4)
    assert str(swept.folder) not in path.read_text(encoding="utf-8")


def test_the_command_is_one_that_makes_the_sweep(swept, tmp_path):
    path = tmp_path / "sweep.json"
    record_sweep.record(swept.folder, path)
    command = read_recording(path).command
    assert command == (
        "python -m trainer sweep --vary lr=0.01,0.1,1000000.0 --epochs 2 --batch-size 8 --scheduler constant"
    )


def test_only_a_finished_sweep_is_recorded(swept, tmp_path, monkeypatch, capsys):
    """The sentence names the command that finishes it."""
    left = Sweep(folder=tmp_path / "left", settings=swept.settings, axes=swept.axes, data=swept.data)
    folder.create(left)
    monkeypatch.setattr(sys, "argv", ["x", str(left.folder), "--output", str(tmp_path / "out.json")])
    with pytest.raises(SystemExit):
        record_sweep.main()
    assert "3 runs have not ended" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"axes": []}, {"command": 3}, {"cells": 3}, {"cells": [3]}, {"cells": [{"number": 7}]},
        {"cells": [{"number": []}]}, {"cells": [{"number": 0, "status": "completed"}]}, {"data": {}},
        {"cells": [{"number": 0, "status": "completed", "history": [{"epoch": 0}]}]},
    ],
)  # fmt: skip
def test_a_damaged_recording_is_explained(swept, change, tmp_path):
    path = tmp_path / "sweep.json"
    record_sweep.record(swept.folder, path)
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(UserError, match=r"\.$"):
        read_recording(path)


def test_the_bundled_sweep_is_what_its_lesson_says():
    """The plan and the figures of `how-forgiving`, and those of checkpoints/README.md."""
    recorded, lesson = read_recording(record_sweep.OUTPUT), LESSONS["how-forgiving"]
    assert recorded.axes == tuple(map(parse_axis, lesson.vary))
    assert len(recorded.runs) == 90
    assert all(cell.config == lesson.config.changed({**cell.values, "holdout": 0.1}) for cell in recorded.runs)
    right = {
        (group.values["optimizer"], group.values["lr"]): 100 * group.spread("test_accuracy")[0]
        for group in groups(recorded.runs)
    }
    best_lr = {group.values["optimizer"]: group.values["lr"] for group in best(recorded.runs, recorded.axes)}
    best_right = {name: right[name, lr] for name, lr in best_lr.items()}
    lrs = recorded.axes[1].values
    tenth, tenfold = (
        {name: right[name, lrs[lrs.index(lr) + steps]] for name, lr in best_lr.items()} for steps in (-2, 2)
    )
    assert max(best_right, key=best_right.get) == "muon"
    assert (round(best_right["muon"]), round(best_lr["muon"], 2)) == (61, 0.03)
    lost = {name: round(best_right[name] - tenth[name]) for name in ("adam", "adamw", "muon", "sgd")}
    assert lost == {"adam": 9, "adamw": 9, "muon": 15, "sgd": 18}
    assert round(max(tenfold.values())) == 21
    card = (record_sweep.OUTPUT.parent / "README.md").read_text(encoding="utf-8")
    assert ", ".join(f"{name} {value:.2f}%" for name, value in best_right.items()) in card
