"""The job of a sweep: what it trains and leaves on the disk, however it ends, and what it may take."""

import os
import threading
import time

import pytest
from labs import run_here

from trainer.errors import UserError
from trainer.images.image_data import facts
from trainer.jobs.process import Served
from trainer.learning.race import TimeLimit
from trainer.runs import run_folder
from trainer.runs.events import EpochEnded, Finished, GpuTime
from trainer.runs.reader import read_run
from trainer.sweeps import folder as sweep_folder
from trainer.sweeps.axes import parse_axis
from ui.cleaning import clear
from ui.jobs.queue import STOPPED
from ui.jobs.sweeps import SweepJob
from ui.jobs.trainings import LrSearch, Training
from ui.jobs.zerogpu import GpuUnavailableError
from ui.limits import Limits
from ui.visitors import new_visitor

SETTINGS = {"epochs": 2, "batch_size": 8, "scheduler": "constant"}
AXES = [parse_axis("optimizer=sgd,adam"), parse_axis("lr=0.01,0.1"), parse_axis("seed=0,1")]
TWO = [parse_axis("lr=0.01,0.1")]


def ended(job):
    assert job.ended.wait(60)
    return job


def swept(lab, visitor=None, axes=AXES, **options):
    return ended(lab.sweep(visitor or new_visitor(), SETTINGS, axes, **options))


class Stepwise:
    """A worker that records its works, and stops the job or raises an error after a number of events."""

    def __init__(self, after=10**9, do=lambda: None):
        self.after, self.do, self.works, self.count = after, do, [], 0

    def __call__(self, work, stopping):
        self.works.append(work)
        for event in run_here(work, stopping):
            yield event
            self.count += 1
            if self.count == self.after:
                self.do()


@pytest.mark.slow
def test_every_cell_is_a_run_in_the_sweeps_folder(lab):
    """One seed after another; the results and the chart are next to them, and the job forgets the batches."""
    reported, visitor = [], new_visitor()
    job = swept(lab, visitor, on_end=lambda cell, run: reported.append((cell.number, run.status)))
    assert (job.failure, job.state, job.share) == ("", "ended", 1.0)
    assert reported == [(number, "completed") for number in (0, 2, 4, 6, 1, 3, 5, 7)]
    assert lab.runs.sweeps_of(visitor) == [job.sweep.folder]
    assert lab.runs.of(visitor) == [], "they do not fill the lists of single runs"
    stored = sweep_folder.read(job.sweep.folder)
    runs = sweep_folder.runs_of(stored)
    assert len(runs) == 8
    for cell, run in runs.items():
        assert run.history == job.runs[cell].history
        assert (run.status, run.config.holdout, len(run.curve.points) > 0) == ("completed", 0.1, True)
        assert job.runs[cell].curve.points == []
    table = (job.sweep.folder / sweep_folder.RESULTS_FILE).read_text(encoding="utf-8")
    assert table.count("completed") == 8
    assert (job.sweep.folder / sweep_folder.CHART_FILE).read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.slow
def test_a_stopped_sweep_resumes_where_it_stopped(lab):
    """No run that has ended is trained again, and one in the middle goes on from its last epoch."""
    visitor = new_visitor()
    lab._run = Stepwise(30, lambda: lab.jobs.stop(visitor, SweepJob))
    job = swept(lab, visitor)
    done = {cell for cell, run in job.runs.items() if run.status == "completed"}
    assert 0 < len(done) < 8
    assert [run.status for cell, run in job.runs.items() if cell not in done] == ["stopped"]
    before = {cell: read_run(job.sweep.folder_of(cell)).history for cell in done}
    lab._run = Stepwise()
    again = ended(lab.resume_sweep(visitor, job.key))
    assert {run.status for run in again.runs.values()} == {"completed"}
    assert len(again.runs) == 8
    assert len(lab._run.works) == 8 - len(done)
    assert {cell: read_run(job.sweep.folder_of(cell)).history for cell in done} == before


def test_a_sweep_that_was_stopped_before_it_saved_anything_leaves_no_folder(lab, tmp_path):
    visitor = new_visitor()

    def never(work, stopping):
        assert stopping.wait(60)
        return
        yield

    lab._run = never
    job = lab.sweep(visitor, SETTINGS, AXES)
    lab.jobs.stop(visitor)
    assert ended(job).failure == STOPPED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_parts_of_a_sweep_count_as_one_job(lab):
    """Each run begins with the time that the job has had before."""

    def served(work, stopping):
        works.append(work.served_before)
        for number, event in enumerate(run_here(work, stopping), 1):
            yield event
            yield Served(seconds=work.served_before + number)

    works = []
    lab._run = served
    job = swept(lab)
    assert works[0] == 0.0
    assert works == sorted(works)
    assert len(set(works)) == 8
    assert job.seconds == works[-1] + (works[-1] - works[-2])


@pytest.mark.slow
def test_a_sweep_ends_at_the_time_limit(lab):
    """The sentence says so, and Resume goes on with a new one."""
    lab.time_limit = TimeLimit(seconds=10.0, advice=UserError("That is all.").args[0], too_slow=STOPPED)

    def served(work, stopping):
        for number, event in enumerate(run_here(work, stopping), 1):
            yield event
            yield Served(seconds=work.served_before + 0.2 * number)

    lab._run = served
    visitor = new_visitor()
    job = swept(lab, visitor)
    assert job.stopped_because == "That is all."
    assert 0 < len(job.ended_runs) < 8
    lab.time_limit = None
    assert len(ended(lab.resume_sweep(visitor, job.key)).ended_runs) == 8


@pytest.mark.parametrize("has_trained", [False, True])
def test_a_used_up_quota_ends_the_whole_sweep(lab, has_trained):
    """Not one run after another: none of them would get any time."""

    def borrowed(work, stopping):
        works.append(work)
        if not has_trained:
            raise GpuUnavailableError("The GPU time for today is used up.")
        yield 0, GpuTime(used_seconds=0.0, left_seconds=9.0)
        for event in run_here(work, stopping):
            yield event
            if isinstance(event[1], EpochEnded) and event[1].epoch == 1:
                yield 0, GpuTime(used_seconds=5.0, left_seconds=4.0)
                yield 0, Finished(reason="out_of_time", advice="The GPU time for today is used up.")
                return

    works = []
    lab._run = borrowed
    job = swept(lab)
    assert len(works) == 1
    assert (job.failure or job.stopped_because) == "The GPU time for today is used up."
    assert job.seconds == (5.0 if has_trained else 0.0)
    assert [run.status for run in job.runs.values()] == (["out_of_time"] if has_trained else [])


def test_a_bug_is_no_traceback(lab):
    """The app's log has it; what was saved stays."""

    def broken(work, stopping):
        for event in run_here(work, stopping):
            yield event
            if isinstance(event[1], EpochEnded) and event[1].epoch == 1:
                raise ZeroDivisionError

    lab._run = broken
    visitor = new_visitor()
    job = swept(lab, visitor, TWO)
    assert job.failure.startswith("Something in the app went wrong")
    lab._run = run_here
    assert len(ended(lab.resume_sweep(visitor, job.key)).ended_runs) == 2


def test_the_seconds_left_follow_the_pace_so_far(lab):
    visitor = new_visitor()
    lab._run = Stepwise(30, lambda: lab.jobs.stop(visitor))
    job = lab.sweep(visitor, SETTINGS, AXES)
    assert job.seconds_left is None or job.ended.is_set() or job.seconds_left > 0
    ended(job)
    epochs = [row.seconds for run in job.runs.values() for row in run.history[1:]]
    expected = sum(epochs) / len(epochs) * (16 - sum(run.epoch for run in job.runs.values()))
    assert job.seconds_left == pytest.approx(expected)
    lab.parallel = 4
    assert job.seconds_left == pytest.approx(expected / 4), "four runs at a time"


def test_a_visitor_has_one_sweep_at_a_time(lab):
    """Two tabs that start one at the same moment do not train everything twice; a program may have several."""
    visitor = new_visitor()
    lab._run = lambda work, stopping: iter(() if stopping.wait(60) else ("never stopped",))
    first = lab.sweep(visitor, SETTINGS, TWO)
    before = lab.runs.all()
    with pytest.raises(UserError, match="one running already"):
        lab.sweep(visitor, SETTINGS, TWO)
    assert lab.runs.all() == before, "the refused one leaves no folder"
    others = [lab.sweep("client", SETTINGS, TWO, folder=lab.runs.new_run()) for _ in range(2)]
    assert all(job.is_active for job in (first, *others))


def test_a_refused_resume_removes_nothing(lab, monkeypatch):
    """Not even from a sweep without a saved run, which another tab has resumed just now."""
    visitor = new_visitor()
    (folder,) = lab.runs.new_race(visitor, 1)
    sweep_folder.create(sweep_folder.Sweep(folder=folder, settings=SETTINGS, axes=tuple(TWO), data=facts(lab.images)))
    lab._run = lambda work, stopping: iter(() if stopping.wait(60) else ("never stopped",))
    lab.resume_sweep(visitor, folder.name)
    monkeypatch.setattr(lab, "is_in_training", lambda folders: False)
    with pytest.raises(UserError, match="one running already"):
        lab.resume_sweep(visitor, folder.name)
    assert sweep_folder.is_sweep(folder)


def test_limits_apply_to_a_sweep(lab, tmp_path):
    """Its number of runs and their settings, before anything is created; all of a sweep counts as one stored run."""
    visitor = new_visitor()
    for limits, words in (
        (Limits(cells=7), "make 8 runs; a sweep has up to 7"),
        (Limits(epochs=1), "up to 1 epochs"),
        (Limits(batch_size=4), "up to 4 pictures"),
    ):
        lab.limits = limits
        with pytest.raises(UserError, match=words):
            lab.sweep(visitor, SETTINGS, AXES)
    assert list(tmp_path.iterdir()) == []
    lab.limits = Limits()
    lab.runs.most = 2
    for _ in range(2):
        swept(lab, visitor, TWO)
    with pytest.raises(UserError, match="up to 2 runs here and have 2"):
        lab.sweep(visitor, SETTINGS, AXES)
    run_folder.delete(lab.runs.sweeps_of(visitor)[0])
    lab.runs.check_room(visitor, 1)


def test_a_sweep_that_cannot_be_is_refused_at_once(lab, tmp_path):
    """With one sentence."""
    for settings, axes, words in (
        (SETTINGS, [], "Vary at least one setting"),
        ({**SETTINGS, "num_images": 41}, AXES, "num_images must not be above the 40"),
        ({"epochs": 0}, AXES, "epochs must be"),
        ({"lrr": 0}, AXES, "no setting"),
        ({**SETTINGS, "lr": 1}, AXES, "leave out one"),
    ):
        with pytest.raises(UserError, match=words):
            lab.sweep(new_visitor(), settings, axes)
    with pytest.raises(UserError, match="reload"):
        lab.sweep("x", SETTINGS, AXES)
    assert list(tmp_path.iterdir()) == []


def test_only_its_owner_resumes_a_sweep(lab):
    """For others it does not exist; nor is a run a sweep."""
    visitor = new_visitor()
    job = swept(lab, visitor, TWO)
    for who, key in ((new_visitor(), job.key), (visitor, job.key.upper()), (visitor, "../x"), (None, job.key)):
        with pytest.raises(UserError, match="no such sweep"):
            lab.resume_sweep(who, key)
        with pytest.raises(UserError, match="no such run"):
            lab.runs.own_race(who, key)
    (run,) = lab.runs.new_race(visitor, 1)
    with pytest.raises(UserError, match="no such sweep"):
        lab.runs.own_sweep(visitor, run.name)


def test_a_sweep_on_other_pictures_is_not_resumed(lab):
    visitor = new_visitor()
    job = swept(lab, visitor, TWO)
    path = job.sweep.folder / sweep_folder.SWEEP_FILE
    path.write_text(path.read_text().replace(job.sweep.data["digest"], "0" * 64))
    with pytest.raises(UserError, match="other pictures"):
        lab.resume_sweep(visitor, job.key)


@pytest.mark.slow
def test_cleaning_keeps_sweeps_and_deletes_old_ones(lab):
    """A sweep is no folder without a run, which goes after an hour; one in training stays, however large."""
    visitor = new_visitor()
    job = swept(lab, visitor, TWO)
    then = time.time() - 7200
    os.utime(job.sweep.folder, (then, then))
    assert lab.runs.all() == [job.sweep.folder]
    clear(lab.runs.all(), Limits(days=1))
    assert lab.runs.sweeps_of(visitor) == [job.sweep.folder]
    with sweep_folder.running(job.sweep.folder):
        clear(lab.runs.all(), Limits(disk_gb=1e-9))
    assert lab.runs.sweeps_of(visitor) == [job.sweep.folder]
    clear(lab.runs.all(), Limits(days=0.01))
    assert not job.sweep.folder.exists()


def test_train_stops_no_sweep(lab):
    """Each tab's Stop ends its own jobs."""
    visitor, go_on = new_visitor(), threading.Event()

    def waiting(work, stopping):
        while not (go_on.wait(0.01) or stopping.is_set()):
            pass
        yield from run_here(work, stopping)

    lab._run = waiting
    job = lab.sweep(visitor, SETTINGS, AXES)
    assert lab.is_in_training([job.sweep.folder])
    lab.jobs.stop(visitor, Training, LrSearch)
    assert not job.stopping.is_set()
    lab.jobs.stop(visitor, SweepJob)
    assert ended(job).stopping.is_set()
    go_on.set()
