"""Recorded races: the runs come back from their file, and a damaged file is explained."""

import json
import sys

import pytest

from scripts import record_race
from trainer.errors import UserError
from trainer.images.image_data import facts
from trainer.learning.race import race
from trainer.runs.recorded import read_race, write_race
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig


def recorded(images, path, **settings):
    """Records a race of SGD and Adam; returns its runs."""
    configs = [
        TrainConfig(optimizer=name, scheduler="constant", batch_size=2, epochs=40, **settings)
        for name in ("sgd", "adam")
    ]
    runs = [Run(config=config) for config in configs]
    for index, event in race([(config, None) for config in configs], images):
        runs[index].apply(event)
    write_race(path, runs, facts(images), "a command")
    return runs


@pytest.mark.slow
def test_a_race_comes_back(tiny, tmp_path):
    """Settings and epochs are the same; the curves have fewer points."""
    runs = recorded(tiny, tmp_path / "race.json")
    again = read_race(tmp_path / "race.json")
    assert [run.config for run in again] == [run.config for run in runs]
    assert [run.history for run in again] == [run.history for run in runs]
    assert [run.status for run in again] == ["completed", "completed"]
    for run, thinned in zip(runs, again, strict=True):
        assert len(run.curve.points) > 400
        assert 100 <= len(thinned.curve.points) <= 200
        assert thinned.curve.points[0].loss == pytest.approx(run.curve.points[0].loss, rel=1e-5)
        assert [each.step for each in thinned.layers] == [each.step for each in run.layers]
        assert thinned.layers[-1].grad_norm == pytest.approx(run.layers[-1].grad_norm, rel=1e-4)
    content = json.loads((tmp_path / "race.json").read_text(encoding="utf-8"))
    assert content["command"] == "a command"
    assert content["data"] == {"name": tiny.name, "digest": tiny.digest}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"runs": 3}', '{"runs": [3]}', '{"runs": [{}]}'])
def test_a_damaged_race_is_explained(content, tmp_path):
    (tmp_path / "race.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"\.$"):
        read_race(tmp_path / "race.json")


@pytest.mark.slow
def test_the_command_names_no_path(tmp_path, monkeypatch, capsys):
    """The script trains, prints the results, and writes the command without the folder of the images."""
    arguments = ["--data", "synthetic", "--num-images", "64", "--epochs", "6", "--optimizers", "sgd", "lion"]
    monkeypatch.setattr(sys, "argv", ["x", *arguments, "--output", str(tmp_path / "race.json")])
    record_race.main()
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["sgd", "lion"]
    command = json.loads((tmp_path / "race.json").read_text(encoding="utf-8"))["command"]
    assert command == f"python -m scripts.record_race --data FOLDER {' '.join(arguments[2:])}"
    assert [run.config.optimizer for run in read_race(tmp_path / "race.json")] == ["sgd", "lion"]


def test_the_bundled_race_has_the_accuracies_that_are_claimed():
    """Those in checkpoints/README.md."""
    claimed = (record_race.RACE.parent / "README.md").read_text(encoding="utf-8")
    runs = read_race(record_race.RACE)
    assert [run.config.optimizer for run in runs] == ["sgd", "adamw", "muon"]
    for run in runs:
        assert run.epoch == 5
        assert f"{run.config.optimizer} {run.history[-1].test_accuracy:.2%}" in claimed
