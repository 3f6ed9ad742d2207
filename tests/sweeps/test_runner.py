"""The runner: each cell trained once, whatever happens to its worker."""

import threading

import pytest
import torch

from trainer.errors import UserError
from trainer.images.image_data import facts, load_images
from trainer.jobs.process import NoWorkersError, WorkerLostError
from trainer.runs.reader import read_run
from trainer.sweeps import folder
from trainer.sweeps.axes import parse_axis
from trainer.sweeps.folder import Sweep, has_ended
from trainer.sweeps.runner import fitting, run_sweep


class Here:
    """A worker in this thread. Before the given events it loses its process, or refuses."""

    def __init__(self, *faults):
        self.faults, self.works = list(faults), []

    def run(self, work, stopping):
        self.works.append(work)
        fault = self.faults.pop(0) if self.faults else None
        for number, event in enumerate(work.run(torch.device("cpu"))):
            if stopping.is_set():
                return
            if fault and number >= fault[0]:
                raise fault[1]
            yield event


@pytest.fixture
def sweep(image_folder, tmp_path):
    """A sweep of two runs, with its images."""
    images = load_images(str(image_folder))
    settings = {"epochs": 2, "batch_size": 8, "scheduler": "constant"}
    return Sweep(
        folder=tmp_path / "s", settings=settings, axes=(parse_axis("lr=0.01,0.02"),), data=facts(images)
    ), images


def swept(sweep, images, worker, stopping=None):
    """Runs the sweep; returns the last state of each run by lr."""
    cells = fitting(sweep.grid, images).cells
    last = {}
    for report in run_sweep(sweep, cells, images, [worker], stopping or threading.Event()):
        if report:
            last[report[0].values["lr"]] = report[1]
    return last


def test_each_run_ends_once(sweep):
    runs = swept(*sweep, Here())
    assert {lr: run.status for lr, run in runs.items()} == {0.01: "completed", 0.02: "completed"}
    assert all(has_ended(run) for run in runs.values())
    saved = folder.runs_of(sweep[0])
    assert [run.history for run in saved.values()] == [run.history for run in runs.values()]


def test_a_lost_worker_continues_from_the_last_epoch(sweep):
    """The second attempt resumes; the result is that of an undisturbed run."""
    calm = {lr: run.history[-1].test_loss for lr, run in swept(*sweep, Here()).items()}
    for cell in sweep[0].grid.cells:
        folder.run_folder.delete(sweep[0].folder_of(cell))
    worker = Here((12, WorkerLostError("lost.")))
    runs = swept(*sweep, worker)
    assert {lr: run.history[-1].test_loss for lr, run in runs.items()} == calm
    assert len(worker.works) == 3
    assert worker.works[1].states[0].ready is not None


def test_a_run_that_kills_its_worker_is_given_up(sweep):
    """After three attempts; the others go on."""
    runs = swept(*sweep, Here(*[(0, WorkerLostError("The process that trains was ended."))] * 3))
    assert runs[0.01].status == "interrupted"
    assert runs[0.01].advice == "The process that trains was ended."
    assert runs[0.02].status == "completed"


def test_a_run_that_is_refused_does_not_end_the_others(sweep):
    """Such as for lack of memory, in its second epoch."""
    runs = swept(*sweep, Here((12, UserError("The device ran out of memory."))))
    assert (runs[0.01].status, runs[0.01].advice) == ("interrupted", "The device ran out of memory.")
    assert runs[0.02].status == "completed"
    assert read_run(sweep[0].folder_of(sweep[0].grid.cells[0])).status == "interrupted"


def test_without_workers_the_sweep_ends_and_can_go_on(sweep):
    """The runs that remain are not given up one after the other."""
    worker = Here((12, NoWorkersError("The cluster was lost.")))
    with pytest.raises(UserError, match="cluster was lost"):
        swept(*sweep, worker)
    assert len(worker.works) == 1
    assert {cell.values["lr"]: run.epoch for cell, run in folder.runs_of(sweep[0]).items()} == {0.01: 1}
    runs = swept(*sweep, Here())
    assert {lr: run.status for lr, run in runs.items()} == {0.01: "completed", 0.02: "completed"}


def test_a_bug_ends_the_sweep(sweep):
    """It is not hidden."""
    with pytest.raises(ZeroDivisionError):
        swept(*sweep, Here((3, ZeroDivisionError())))


def test_a_stop_leaves_runs_that_go_on(sweep):
    """What had begun is stopped, the rest is not begun, and a second sweep finishes both."""
    stopping = threading.Event()

    class Stopping(Here):
        def run(self, work, stopping):
            for number, event in enumerate(super().run(work, threading.Event())):
                if number == 9:
                    stopping.set()
                    return
                yield event

    runs = swept(*sweep, Stopping(), stopping)
    assert {lr: run.status for lr, run in runs.items()} == {0.01: "stopped"}
    runs = swept(*sweep, Here())
    assert {lr: run.status for lr, run in runs.items()} == {0.01: "completed", 0.02: "completed"}
