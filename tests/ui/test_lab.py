"""The Lab: the runs, races, limits and stops of each visitor, which others can neither see nor change."""

import os
import time
from pathlib import Path

import pytest
import torch

from trainer.learning.lr_finder import find_lr
from trainer.learning.race import race
from trainer.runs.events import Finished
from trainer.settings.config import TrainConfig
from ui.lab import Lab, new_visitor
from ui.limits import Limits
from ui.page import notice


@pytest.fixture
def lab(tmp_path):
    """A lab. Its images have loaded by the end of the test, so that no thread outlives the tests."""
    made = Lab(checkpoints=tmp_path, device=torch.device("cpu"), race=race, find_lr=find_lr)
    yield made
    wait_for_images(made)


def wait_for_images(lab):
    for _ in range(600):
        if lab.images is not None or lab.failure:
            return
        time.sleep(0.1)


def test_only_its_owner_finds_a_run(lab):
    """For other visitors, even with its key, it does not exist."""
    visitor, stranger = new_visitor(), new_visitor()
    (run,) = lab.new_race(visitor, 1)
    assert lab.runs_of(visitor) == [], "it has not started yet"
    (run / "training.json").touch()
    assert lab.own_run(visitor, run.name) == run
    assert lab.runs_of(visitor) == [run]
    assert lab.runs_of(stranger) == lab.runs_of(None) == []
    for other in (stranger, None, "", visitor.upper()):
        with pytest.raises(ValueError, match="no such run"):
            lab.own_run(other, run.name)


@pytest.mark.parametrize("name", ["../x", "..", "", None, "a" * 33, "A" * 32, "/etc", "quick/../..", "0" * 32])
def test_no_name_opens_a_path_outside_of_the_folder(lab, name):
    """Only a key of 32 hexadecimal digits, or a bundled name, is a checkpoint."""
    with pytest.raises(ValueError, match="no such checkpoint"):
        lab.checkpoint(name)
    with pytest.raises(ValueError, match="no such run"):
        lab.own_run("visitor", name)


@pytest.mark.parametrize("name", ["", ".owner", ".race"])
def test_a_race_that_cannot_be_created_leaves_no_folders(lab, tmp_path, monkeypatch, name):
    """If the disk refuses the third run's folder, or one of the files in it, the first two are removed as well."""
    keys = [f"{number:032}" for number in range(3)]
    monkeypatch.setattr(lab, "new_run", iter([tmp_path / key for key in keys]).__next__)
    refused = tmp_path / keys[2] / name

    def refusing(method):
        def call(path, *arguments, **options):
            if path == refused:
                raise OSError(28, "No space left on device")
            return method(path, *arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refusing(Path.mkdir))
        patch.setattr(Path, "write_text", refusing(Path.write_text))
        with pytest.raises(ValueError, match="The run cannot be saved here: no space left"):
            lab.new_race(new_visitor(), 3)
    assert list(tmp_path.iterdir()) == []


def test_the_latest_run_comes_first(lab):
    """Runs are sorted by their start, not by their random names."""
    visitor = new_visitor()
    runs = [lab.new_race(visitor, 1)[0] for _ in range(4)]
    for age, run in enumerate(runs):
        (run / "training.json").touch()
        os.utime(run / ".owner", (1000 - age, 1000 - age))
    assert lab.runs_of(visitor) == runs


def test_only_its_owner_finds_a_race_and_its_runs_keep_their_order(lab):
    """The runs are listed in order under the key of the first one."""
    visitor, stranger = new_visitor(), new_visitor()
    race, alone = lab.new_race(visitor, 12), lab.new_race(visitor, 1)
    for index, run in enumerate([*race, *alone]):
        (run / "training.json").touch()
        os.utime(run / ".owner", (1000 + index, 1000 + index))
    assert lab.races_of(visitor) == {alone[0].name: alone, race[0].name: race}
    assert lab.own_race(visitor, race[0].name) == race
    assert lab.races_of(stranger) == {}
    for who, key in ((stranger, race[0].name), (visitor, race[1].name), (visitor, "../x"), (None, None)):
        with pytest.raises(ValueError, match="no such run"):
            lab.own_race(who, key)


def test_stop_ends_only_earlier_trainings_of_its_visitor(lab):
    """It does not end those of other visitors, nor the visitor's next one."""
    one, other = new_visitor(), new_visitor()
    before = time.monotonic()
    lab.stop(one)
    assert lab.is_stopped(one, before)
    assert not lab.is_stopped(other, before)
    assert not lab.is_stopped(one, time.monotonic() + 1e-3)


@pytest.mark.parametrize("visitor", [None, {}, [], 3, "", "x" * 32, "../" * 8, "0" * 2_000_000])
def test_a_forged_visitor_is_refused(lab, visitor):
    """A handcrafted request with something else instead of a key gets an error message and leaves nothing behind."""
    for call in (lab.stop, lambda forged: lab.new_race(forged, 2)):
        with pytest.raises(ValueError, match="reload"):
            call(visitor)
    assert lab.runs_of(visitor) == []


def test_the_visitors_key_is_not_stored(lab, tmp_path):
    """Only its digest is: reading the disk is not enough to pose as the visitor."""
    visitor = new_visitor()
    lab.new_race(visitor, 2)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert stored
    assert visitor.encode() not in stored


def test_images_load_in_the_background(lab):
    """A Lab is ready before its images are."""
    wait_for_images(lab)
    assert lab.images.name == "synthetic"
    assert TrainConfig().batch_size < len(lab.images.train.labels)


def test_limits_apply_to_the_page_and_the_api(lab, tiny):
    """Too many epochs are refused at once; a training ends as `out_of_time` at the time limit."""
    config = TrainConfig(epochs=3, batch_size=8)
    lab.limits = Limits(epochs=2)
    with pytest.raises(ValueError, match="up to 2 epochs"):
        lab.race([(config, None)], tiny)
    lab.limits = Limits(seconds=1e-9)
    *_, (_, last) = lab.race([(config, None)], tiny)
    assert last == Finished(reason="out_of_time", advice=last.advice)
    assert "no epoch has ended" in last.advice
    with pytest.raises(ValueError, match="search takes too long"):
        list(lab.find_lr(config, tiny))
    lab.limits = Limits()
    *_, (_, last) = lab.race([(config, None)], tiny)
    assert last.reason == "completed"


def test_a_visitor_can_store_a_limited_number_of_runs(lab):
    """The limit is checked before anything is created and is separate for each visitor; a deleted run makes room."""
    lab.limits = Limits(runs=3)
    one, other = new_visitor(), new_visitor()
    for run in lab.new_race(one, 3):
        (run / "training.json").touch()
    with pytest.raises(ValueError, match="You can store up to 3 runs here and have 3"):
        lab.check_room(one, 1)
    with pytest.raises(ValueError, match="up to 3 runs"):
        lab.new_race(one, 1)
    assert len(lab.all_runs()) == 3
    lab.check_room(other, 3)
    with pytest.raises(ValueError, match="up to 3 runs"):
        lab.check_room(other, 4)
    (lab.runs_of(one)[0] / "training.json").unlink()
    lab.check_room(one, 1)


def test_the_notice_for_a_visitor(lab):
    """Empty at home. On a Space: its limits, that a restart deletes runs, and that earlier runs are gone."""
    visitor = new_visitor()
    assert notice(lab, visitor, False) == ""
    assert "disk was cleared" in notice(lab, visitor, True)
    (run,) = lab.new_race(visitor, 1)
    (run / "training.json").touch()
    assert notice(lab, visitor, True) == ""
    lab.limits, lab.forgets = Limits(epochs=100, seconds=1200, runs=30, days=30), True
    words = notice(lab, visitor, True)
    assert "up to 100 epochs per run, 20 min of training at a time, 30 runs per visitor, kept for 30 days" in words
    assert "when it restarts" in words
