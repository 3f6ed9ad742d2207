"""The jobs of the lab: what they train, record and leave on the disk, however they end."""

import threading

import pytest
import torch
from labs import make_lab, run_here

from trainer.errors import BROKEN, UserError
from trainer.jobs.process import Served, WorkerLostError
from trainer.learning.lr_finder import Trial
from trainer.runs import lock, run_folder
from trainer.runs.events import (
    CheckpointReady,
    EpochEnded,
    EvaluationLogged,
    Finished,
    GpuTime,
    LayersMeasured,
    StepLogged,
)
from trainer.runs.reader import read_checkpoint, read_run
from trainer.settings.config import TrainConfig
from ui.jobs.queue import STOPPED, UNWATCHED, Job
from ui.visitors import new_visitor

CONFIG = TrainConfig(epochs=2, batch_size=8, optimizer="adam")
OTHER = TrainConfig(epochs=2, batch_size=8, scheduler="constant")
WEAK = WorkerLostError("The worker is gone.")


def ended(job):
    """The job, once it has ended."""
    assert job.ended.wait(60)
    return job


def trained(lab, *configs, visitor=None, **options):
    return ended(lab.train(visitor or new_visitor(), configs or [CONFIG], **options))


def resumed(lab, job, epochs=2, **changes):
    return ended(lab.resume(job.owner, job.race, total_epochs=epochs, changes=changes))


def fail_after(epoch, error):
    """A worker that raises `error` once it has reported the checkpoint of an epoch."""

    def run(work, stopping):
        for event in run_here(work, stopping):
            yield event
            if isinstance(event[1], CheckpointReady) and event[1].epoch == epoch:
                raise error

    return run


def refuse(error):
    """A worker that raises `error` before its first event."""

    def run(work, stopping):
        raise error
        yield

    return run


def state(folder):
    """Every file of a run with its content, apart from the lock."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def facts(folder):
    """What an exact resume repeats: losses, accuracies and weights."""
    checkpoint = read_checkpoint(folder)
    history = [(row.train_loss, row.test_loss, row.test_accuracy, row.lr, row.grad_norm) for row in checkpoint.history]
    return history, {name: tensor.tolist() for name, tensor in checkpoint.weights.items()}


def test_a_new_run_is_recorded(lab):
    """The job has its curve and planned schedule, and the folder of its owner what a later visit reads."""
    reported = []
    job = trained(lab, on_event=lambda index, event: reported.append(event))
    (run,) = job.runs
    assert (job.state, job.failure, run.status, run.epoch) == ("ended", "", "completed", 2)
    assert lab.runs.races_of(job.owner) == {job.race: list(job.folders)}
    saved = read_run(job.folders[0])
    assert (saved.history, saved.status, len(saved.curve.points)) == (run.history, "completed", 10)
    assert [epochs for epochs, _ in job.planned] == pytest.approx([batch / 5 for batch in range(10)])
    assert job.version > len([event for event in reported if isinstance(event, StepLogged)]) == 10
    assert not lock.is_held(job.folders[0])


def test_the_runs_of_a_race_are_recorded_in_order(lab):
    """Each in its own folder; there is no schedule for all of them."""
    job = trained(lab, CONFIG, OTHER)
    assert [read_run(folder).config for folder in job.folders] == [CONFIG, OTHER]
    assert [run.status for run in job.runs] == ["completed"] * 2
    assert job.planned == []
    assert lab.runs.races_of(job.owner) == {job.race: list(job.folders)}


def test_a_resumed_race_trains_only_what_is_left(lab):
    """With changes to its settings; a run that has diverged stays as it is, and its planned schedule is the rest's."""
    job = trained(lab, OTHER, OTHER.changed({"lr": 1e6}))
    kept = state(job.folders[1])
    again = resumed(lab, job, 3)
    assert [run.status for run in again.runs] == ["completed", "diverged"]
    assert [run.epoch for run in again.runs] == [3, job.runs[1].epoch]
    assert state(job.folders[1]) == kept
    single = trained(lab, OTHER)
    single = resumed(lab, single, 4, scheduler="step", step_size=1)
    assert (single.runs[0].epoch, single.runs[0].config.scheduler) == (4, "step")
    assert (single.planned[0][0], single.planned[-1][0]) == (2, pytest.approx(4))


@pytest.mark.parametrize(
    ("total", "changes", "sentence"), [(1, {}, "has trained all its epochs"), (101, {"lr": -1}, "lr must be")]
)
def test_a_resume_that_is_refused_at_once_starts_no_job(lab, total, changes, sentence):
    """Nothing changes."""
    job = trained(lab, OTHER, CONFIG)
    before = [state(folder) for folder in job.folders]
    with pytest.raises(UserError, match=sentence):
        lab.resume(job.owner, job.race, total_epochs=total, changes=changes)
    assert lab.jobs.active() == []
    assert [state(folder) for folder in job.folders] == before


def test_a_stop_before_anything_is_saved_leaves_no_folder(lab, tmp_path):
    """Within the evaluation of the untrained network; the job says that it did not start."""
    visitor = new_visitor()

    def run(work, stopping):
        yield 0, EvaluationLogged(epoch=0, fraction=0.5)
        lab.jobs.stop(visitor)
        assert stopping.is_set()

    lab._run = run
    job = trained(lab, visitor=visitor)
    assert (job.failure, job.runs[0].history) == (STOPPED, [])
    assert list(tmp_path.iterdir()) == []
    assert lab.runs.races_of(visitor) == {}


def test_a_run_that_ends_before_anything_is_saved_says_why(lab, tmp_path):
    """Such as one that reaches the time limit in its first evaluation: its folder is removed with its advice."""
    events = [EvaluationLogged(epoch=0, fraction=0.5), Finished(reason="out_of_time", advice="Too slow.")]
    lab._run = lambda work, stopping: ((0, event) for event in events)
    assert trained(lab).failure == "Too slow."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("because", ["", UNWATCHED])
def test_a_stopped_run_is_saved_and_can_be_resumed(lab, because):
    """With the reason, if it was not the visitor who stopped it; the result is that of a run that never stopped."""
    jobs = []

    def stop(_, event):
        if isinstance(event, StepLogged):
            jobs[-1].stop(because)

    def starting(work, stopping):
        while not jobs:
            pass
        yield from run_here(work, stopping)

    lab._run = starting
    jobs.append(lab.train(new_visitor(), [CONFIG], on_event=stop))
    job = ended(jobs[0])
    saved = read_run(job.folders[0])
    assert (job.failure, saved.status, saved.advice, saved.epoch) == ("", "stopped", because, 0)
    assert resumed(lab, job).runs[0].status == "completed"
    assert facts(job.folders[0]) == facts(trained(lab).folders[0])


@pytest.mark.parametrize(("error", "sentence"), [(WEAK, str(WEAK)), (KeyError("secret"), BROKEN)])
def test_a_lost_worker_leaves_an_interrupted_run_that_can_be_resumed(lab, error, sentence):
    """Its advice says why; resumed, it has the numbers of an uninterrupted run, bit for bit."""
    lab._run = fail_after(1, error)
    job = trained(lab)
    saved = read_run(job.folders[0])
    assert (job.failure, saved.status, saved.advice, saved.epoch) == ("", "interrupted", sentence, 1)
    lab._run = run_here
    assert resumed(lab, job).runs[0].status == "completed"
    assert facts(job.folders[0]) == facts(trained(lab).folders[0])


def test_a_lost_worker_interrupts_only_the_unfinished_runs_of_a_race(lab):
    """Those without a saved epoch are removed, and the others stay as they are."""
    lab._run = fail_after(2, WEAK)
    job = trained(lab, OTHER.changed({"epochs": 1}), OTHER)
    assert [read_run(folder).status for folder in job.folders] == ["completed", "interrupted"]
    lab._run = fail_after(0, WEAK)
    job = trained(lab, CONFIG, OTHER)
    assert [folder.exists() for folder in job.folders] == [True, False]
    assert read_run(job.folders[0]).status == "interrupted"
    assert lab.runs.races_of(job.owner) == {job.race: [job.folders[0]]}


@pytest.mark.parametrize(("error", "sentence"), [(WEAK, str(WEAK)), (KeyError("secret"), BROKEN)])
def test_a_training_refused_before_its_first_event_leaves_nothing(lab, tmp_path, error, sentence):
    """The job ends with the sentence, no matter who owns its folders."""
    lab._run = refuse(error)
    assert trained(lab).failure == sentence
    assert trained(lab, CONFIG, OTHER).failure == sentence
    assert trained(lab, folders=[lab.runs.new_run()]).failure == sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("first", [[], [(0, GpuTime(used_seconds=1.0, left_seconds=2.0))]])
def test_a_resume_refused_before_its_first_event_changes_nothing(lab, first):
    """Even if a borrowed GPU has measured the pace by then: no file of the run changes."""
    job = trained(lab, OTHER)

    def run(work, stopping):
        yield from first
        raise WEAK

    before, lab._run = state(job.folders[0]), run
    again = resumed(lab, job, 5, lr=0.5)
    assert again.failure == str(WEAK)
    assert state(job.folders[0]) == before
    lab._run = run_here
    assert resumed(lab, job, 3).runs[0].epoch == 3


def test_a_job_that_waits_and_leaves_has_no_folder(lab, tmp_path):
    """Whether it is stopped or too many wait already; a run to resume stays."""
    kept = trained(lab, OTHER)
    lab.jobs._most_running, lab.jobs._most_waiting = 1, 2
    other = Job(owner="somebody")
    lab.jobs._running.append(other)
    visitor = new_visitor()
    new = lab.train(visitor, [CONFIG])
    again = lab.resume(kept.owner, kept.race, total_epochs=5, changes={})
    with pytest.raises(UserError, match="Too many people"):
        lab.train(new_visitor(), [CONFIG, OTHER])
    with pytest.raises(UserError, match="being trained already"):
        lab.resume(kept.owner, kept.race, total_epochs=6, changes={})
    assert lab.is_in_training(new.folders)
    for owner in (visitor, kept.owner):
        lab.jobs.stop(owner)
    assert new.ended.is_set()
    assert again.ended.is_set()
    lab.jobs._running.remove(other)
    assert list(tmp_path.iterdir()) == list(kept.folders)
    assert run_folder.is_run(kept.folders[0])


def test_a_training_waits_for_the_images(tmp_path, pictures, monkeypatch):
    """It can be stopped meanwhile, and ends with the reason if there are none."""
    go_on = threading.Event()

    def load(progress):
        assert go_on.wait(60)
        return pictures

    monkeypatch.setattr("ui.lab.load_images", load)
    lab = make_lab(tmp_path)
    job, stopped = (lab.train(new_visitor(), [CONFIG]) for _ in range(2))
    lab.jobs.stop(stopped.owner)
    assert ended(stopped).failure == STOPPED
    assert job.is_active
    go_on.set()
    assert ended(job).runs[0].status == "completed"
    lab.images, lab.failure = None, "The disk is gone."
    unlucky = lab.jobs
    unlucky.start(job := type(job)(owner="x", machine=lab, folders=[lab.runs.new_run()], runs=job.runs))
    assert "There are no pictures to train on: The disk is gone." in ended(job).failure


def test_the_seconds_left_are_those_of_all_unfinished_runs(lab):
    """None while the pace of one is not known."""
    job = trained(lab, CONFIG, OTHER)
    assert job.seconds_left == 0
    for run in job.runs:
        run.status, run.history = "training", run.history[:2]
    job.runs[0].last_step = job.runs[1].last_step = None
    assert job.seconds_left == pytest.approx(sum(run.seconds_left for run in job.runs))
    assert job.seconds_left > 0
    job.runs[1].history = job.runs[1].history[:1]
    assert job.seconds_left is None


def served(seconds):
    """Runs work here, and reports after each event that it has had `seconds`."""

    def run(work, stopping):
        for event in run_here(work, stopping):
            yield event
            yield Served(seconds=seconds)

    return run


def test_the_machines_time_is_counted(lab):
    """The worker reports it after each turn; it is no event of the run."""
    lab._run = served(7.5)
    reported = []
    assert trained(lab, on_event=lambda _, event: reported.append(event)).seconds == 7.5
    assert {type(event) for event in reported} == {EpochEnded, CheckpointReady, StepLogged, LayersMeasured, Finished}


def test_a_search_finds_an_lr(lab, tmp_path, monkeypatch):
    """It has every trial and the finding; it writes nothing."""
    monkeypatch.setattr("trainer.learning.lr_finder._NUM_IMAGES", 800)  # fewer steps
    job = ended(lab.search(new_visitor(), CONFIG))
    assert job.failure == ""
    assert job.finding.reason
    assert all(isinstance(trial, Trial) for trial in job.trials)
    assert job.trials[-1].lr > job.trials[0].lr
    assert job.planned[0] < job.planned[1]
    assert list(tmp_path.iterdir()) == []
    job.seconds = 10.0
    last = job.trials[-1]
    assert job.seconds_left == pytest.approx(10.0 / last.step * (last.num_steps - last.step))


def test_a_search_that_takes_too_long_ends(lab):
    """With a sentence on what helps."""
    lab._run = served(3.0)
    job = ended(lab.search(new_visitor(), CONFIG, most_seconds=2.0))
    assert "takes too long here" in job.failure
    assert len(job.trials) == 1


def test_a_stopped_search_says_so(lab):
    """It keeps its trials."""
    visitor = new_visitor()

    def run(work, stopping):
        for event in work.run(torch.device("cpu")):
            yield event
            lab.jobs.stop(visitor)
            if stopping.is_set():
                return

    lab._run = run
    job = ended(lab.search(visitor, CONFIG))
    assert (job.failure, job.finding, len(job.trials)) == ("The search was stopped.", None, 1)
