"""The job of a sweep, which trains its runs one after another and records each in the sweep's folder."""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from trainer.errors import UserError
from trainer.images.image_data import ImageData
from trainer.jobs.process import Served
from trainer.jobs.work import Race, Work
from trainer.runs.events import Finished, GpuTime
from trainer.runs.run import Curve, Run
from trainer.sweeps import chart
from trainer.sweeps import folder as sweep_folder
from trainer.sweeps.axes import Cell
from trainer.sweeps.folder import Sweep, has_ended, unfinished
from trainer.sweeps.runner import run_sweep
from ui.jobs.queue import STOPPED, Job
from ui.jobs.trainings import Machine
from ui.jobs.zerogpu import GpuUnavailableError


def _ignore(cell: Cell, run: Run) -> None:
    pass


@dataclass(kw_only=True, eq=False)
class SweepJob(Job):
    """Trains the runs of a sweep that have not ended, as many at a time as the machine can.

    `cells` are those that can be trained. `runs` holds the runs that have begun; once they have ended, without their
    curves. `is_new` says that the job may remove the folder if it saves nothing. `on_end` is called in the job's thread
    when a run has ended.
    """

    kind = "sweep"

    machine: Machine
    images: ImageData
    sweep: Sweep
    cells: Sequence[Cell]
    runs: Mapping[Cell, Run] = field(default_factory=dict)
    is_new: bool = True
    on_end: Callable[[Cell, Run], None] = _ignore
    _serving: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        """The number of runs at a time."""
        return self.machine.parallel

    @property
    def key(self) -> str:
        """The key of the sweep: the name of its folder."""
        return self.sweep.folder.name

    @property
    def folders(self) -> list[Path]:
        """The sweep's folder."""
        return [self.sweep.folder]

    @property
    def ended_runs(self) -> dict[Cell, Run]:
        """The runs that the sweep does not train any further."""
        return sweep_folder.ended(self.runs)

    @property
    def share(self) -> float:
        """The part of all epochs that has passed, 0–1."""
        passed = sum(run.config.epochs if has_ended(run) else run.epochs_passed for run in self.runs.values())
        return passed / sum(cell.config.epochs for cell in self.cells)

    @property
    def seconds_left(self) -> float | None:
        """The seconds that the rest needs, at the mean pace of the epochs so far, with as many runs at a time."""
        seconds = [row.seconds for run in self.runs.values() for row in run.history[1:]]
        if not seconds:
            return None
        epochs_left = (1 - self.share) * sum(cell.config.epochs for cell in self.cells)
        return epochs_left * sum(seconds) / len(seconds) / self.machine.parallel

    def work(self) -> None:
        """Trains until all runs have ended; a sweep that is stopped or fails can be resumed."""
        try:
            workers = [_Worker(self) for _ in range(self.machine.parallel)]
            with sweep_folder.running(self.sweep.folder):
                for report in run_sweep(self.sweep, self._left(), self.images, workers, self.stopping):
                    if report:
                        self._record(*report)
                    self.changed()
                self._save_chart()
            if not any(run.history for run in self.runs.values()):
                advice = next((run.advice for run in self.runs.values() if run.advice), STOPPED)
                raise UserError(self.stopped_because or advice)
        finally:
            self.on_end = _ignore  # what it holds is not needed while the app remembers the job
            self.runs = {cell: run for cell, run in self.runs.items() if run.history}  # the others saved nothing
            self.give_up()

    def give_up(self) -> None:
        """Removes the folder of a new sweep if nothing was saved in it."""
        if self.is_new and not self.runs:
            shutil.rmtree(self.sweep.folder, ignore_errors=True)

    def serve(self, seconds: float) -> None:
        """Records more seconds of the machine's time; stops the job at the machine's limit. Thread-safe."""
        with self._serving:
            self.was_served(self.seconds + seconds)
        limit = self.machine.time_limit
        if limit and self.seconds > limit.seconds:
            self.stop(limit.advice)

    def _left(self) -> list[Cell]:
        """The cells to train, one seed after another, so that the whole range is seen early."""
        return sorted(unfinished(self.cells, self.runs), key=lambda cell: cell.config.seed)

    def _record(self, cell: Cell, run: Run) -> None:
        is_over = run.status != "training"
        # A copy, because pages read the mapping meanwhile.
        self.runs = {**self.runs, cell: replace(run, curve=Curve(), last_step=None) if is_over else run}
        if has_ended(run):
            with suppress(OSError):  # a disk that refuses now may accept them after the next run
                sweep_folder.write_results(self.sweep, self.ended_runs)
            self.machine.learn_pace(run, self.images)
            self.on_end(cell, run)

    def _save_chart(self) -> None:
        if ended := self.ended_runs:
            with suppress(OSError):
                sweep_folder.write_chart(self.sweep, chart.draw(ended, self.sweep.axes))


class _Worker:
    """Runs the work of a sweep on the lab's machine, where all parts of the sweep count as one job."""

    def __init__(self, job: SweepJob) -> None:
        self._job = job

    def run(self, work: Work, stopping: threading.Event) -> Iterator[Any]:
        """Yields the events of the work until it ends or `stopping` is set."""
        job = self._job
        before = had = job.seconds
        try:
            for event in job.machine.run(replace(cast("Race", work), served_before=before), stopping):
                job.changed()
                match event:
                    case Served(seconds=seconds):
                        job.serve(seconds - had)
                        had = seconds
                    case _, GpuTime(used_seconds=seconds):
                        job.serve(before + seconds - had)
                        had = before + seconds
                    case _, Finished(reason="out_of_time", advice=advice):
                        job.stop(advice)  # no other run would get any time either
                yield event
        except GpuUnavailableError as error:
            job.stop(str(error))
            raise
