"""The Lab: the runs, races, limits and stops of each visitor, which others can neither see nor change."""

import os
import time
from pathlib import Path

import pytest
from labs import make_lab, run_here

from trainer.jobs.process import Served
from trainer.runs.reader import read_run
from trainer.settings.config import TrainConfig
from ui.limits import Limits
from ui.page import notice
from ui.visitors import new_visitor


def test_only_its_owner_finds_a_run(lab):
    """For other visitors, even with its key, it does not exist."""
    visitor, stranger = new_visitor(), new_visitor()
    (run,) = lab.runs.new_race(visitor, 1)
    assert lab.runs.of(visitor) == [], "it has not started yet"
    (run / "training.json").touch()
    assert lab.runs.own_run(visitor, run.name) == run
    assert lab.runs.of(visitor) == [run]
    assert lab.runs.of(stranger) == lab.runs.of(None) == []
    for other in (stranger, None, "", visitor.upper()):
        with pytest.raises(ValueError, match="no such run"):
            lab.runs.own_run(other, run.name)


@pytest.mark.parametrize("name", ["../x", "..", "", None, "a" * 33, "A" * 32, "/etc", "quick/../..", "0" * 32])
def test_no_name_opens_a_path_outside_of_the_folder(lab, name):
    """Only a key of 32 hexadecimal digits, or a bundled name, is a checkpoint."""
    with pytest.raises(ValueError, match="no such checkpoint"):
        lab.runs.checkpoint(name)
    with pytest.raises(ValueError, match="no such run"):
        lab.runs.own_run("visitor", name)


@pytest.mark.parametrize("name", ["", ".owner", ".race"])
def test_a_race_that_cannot_be_created_leaves_no_folders(lab, tmp_path, monkeypatch, name):
    """If the disk refuses the third run's folder, or one of the files in it, the first two are removed as well."""
    keys = [f"{number:032}" for number in range(3)]
    monkeypatch.setattr(lab.runs, "new_run", iter([tmp_path / key for key in keys]).__next__)
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
            lab.runs.new_race(new_visitor(), 3)
    assert list(tmp_path.iterdir()) == []


def test_the_latest_run_comes_first(lab):
    """Runs are sorted by their start, not by their random names."""
    visitor = new_visitor()
    runs = [lab.runs.new_race(visitor, 1)[0] for _ in range(4)]
    for age, run in enumerate(runs):
        (run / "training.json").touch()
        os.utime(run / ".owner", (1000 - age, 1000 - age))
    assert lab.runs.of(visitor) == runs


def test_only_its_owner_finds_a_race_and_its_runs_keep_their_order(lab):
    """The runs are listed in order under the key of the first one."""
    visitor, stranger = new_visitor(), new_visitor()
    race, alone = lab.runs.new_race(visitor, 12), lab.runs.new_race(visitor, 1)
    for index, run in enumerate([*race, *alone]):
        (run / "training.json").touch()
        os.utime(run / ".owner", (1000 + index, 1000 + index))
    assert lab.runs.races_of(visitor) == {alone[0].name: alone, race[0].name: race}
    assert lab.runs.own_race(visitor, race[0].name) == race
    assert lab.runs.races_of(stranger) == {}
    for who, key in ((stranger, race[0].name), (visitor, race[1].name), (visitor, "../x"), (None, None)):
        with pytest.raises(ValueError, match="no such run"):
            lab.runs.own_race(who, key)


@pytest.mark.parametrize("visitor", [None, {}, [], 3, "", "x" * 32, "../" * 8, "0" * 2_000_000])
def test_a_forged_visitor_is_refused(lab, visitor):
    """A handcrafted request with something else instead of a key gets an error message and leaves nothing behind."""
    with pytest.raises(ValueError, match="reload"):
        lab.runs.new_race(visitor, 2)
    with pytest.raises(ValueError, match="reload"):
        lab.train(visitor, [TrainConfig(epochs=2, batch_size=8)])
    assert lab.jobs.active() == []
    assert lab.runs.of(visitor) == []


def test_the_visitors_key_is_not_stored(lab, tmp_path):
    """Only its digest is: reading the disk is not enough to pose as the visitor."""
    visitor = new_visitor()
    lab.runs.new_race(visitor, 2)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert stored
    assert visitor.encode() not in stored


def test_images_load_in_the_background(tmp_path):
    """A Lab is ready before its images are."""
    lab = make_lab(tmp_path)
    for _ in range(600):
        if lab.images is not None or lab.failure:
            break
        time.sleep(0.1)
    assert lab.images.name == "synthetic"
    assert TrainConfig().batch_size < len(lab.images.train.labels)


def test_limits_apply_to_the_page_and_the_api(lab):
    """Too many epochs are refused at once, in a new run, a resumed one and a search; no folder is left."""
    visitor, config = new_visitor(), TrainConfig(epochs=2, batch_size=8, scheduler="constant")
    job = lab.train(visitor, [config])
    assert job.ended.wait(60)
    lab.limits = Limits(epochs=2)
    for start in (
        lambda: lab.train(visitor, [config.changed({"epochs": 3})]),
        lambda: lab.search(visitor, config.changed({"epochs": 3})),
        lambda: lab.resume(visitor, job.race, total_epochs=3, changes={}),
    ):
        with pytest.raises(ValueError, match="up to 2 epochs"):
            start()
    assert lab.jobs.active() == []
    assert lab.runs.all() == list(job.folders)


def test_settings_that_do_not_fit_the_images_are_refused_at_once(lab, tmp_path):
    """Before a folder is created, if the images have loaded."""
    for start in (lambda config: lab.train(new_visitor(), [config]), lambda config: lab.search(new_visitor(), config)):
        with pytest.raises(ValueError, match="num_images must not be above the 40"):
            start(TrainConfig(epochs=1, batch_size=8, num_images=41))
    assert list(tmp_path.iterdir()) == []


def test_a_training_ends_at_the_time_limit(lab, tmp_path):
    """As `out_of_time`, with advice; a search that takes longer ends with a sentence."""
    limited = make_lab(tmp_path, limits=Limits(seconds=0.2))
    while limited.images is None:
        time.sleep(0.01)
    visitor, config = new_visitor(), TrainConfig(epochs=1000, batch_size=8)
    job = limited.train(visitor, [config])
    assert job.ended.wait(60)
    run = read_run(job.folders[0])
    assert run.status == "out_of_time"
    assert "trains for up to 0.2 s at a time" in run.advice

    def run_timed(work, stopping):
        for event in run_here(work, stopping):
            yield event
            yield Served(seconds=0.3)

    limited._run = run_timed
    search = limited.search(visitor, config)
    assert search.ended.wait(60)
    assert "search takes too long" in search.failure


def test_a_visitor_can_store_a_limited_number_of_runs(lab):
    """The limit is checked before anything is created and is separate for each visitor; a deleted run makes room."""
    lab.runs.most = 3
    one, other = new_visitor(), new_visitor()
    for run in lab.runs.new_race(one, 3):
        (run / "training.json").touch()
    with pytest.raises(ValueError, match="You can store up to 3 runs here and have 3"):
        lab.runs.check_room(one, 1)
    with pytest.raises(ValueError, match="up to 3 runs"):
        lab.runs.new_race(one, 1)
    assert len(lab.runs.all()) == 3
    lab.runs.check_room(other, 3)
    with pytest.raises(ValueError, match="up to 3 runs"):
        lab.runs.check_room(other, 4)
    (lab.runs.of(one)[0] / "training.json").unlink()
    lab.runs.check_room(one, 1)


def test_the_notice_for_a_visitor(lab):
    """Empty at home. On a Space: its limits, that a restart deletes runs, and that earlier runs are gone."""
    visitor = new_visitor()
    assert notice(lab, visitor, False) == ""
    assert "disk was cleared" in notice(lab, visitor, True)
    (run,) = lab.runs.new_race(visitor, 1)
    (run / "training.json").touch()
    assert notice(lab, visitor, True) == ""
    lab.limits, lab.forgets = Limits(epochs=100, seconds=1200, runs=30, days=30), True
    words = notice(lab, visitor, True)
    assert "up to 100 epochs per run, 20 min of training at a time, 30 runs per visitor, kept for 30 days" in words
    assert "when it restarts" in words
