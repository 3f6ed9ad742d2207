"""The jobs of the lab: trainings, which record their runs in folders, and learning-rate searches."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from trainer.errors import UserError
from trainer.images.image_data import ImageData, facts
from trainer.jobs.process import Served
from trainer.jobs.work import Race, Search, Work
from trainer.learning.checkpoint import Checkpoint, continued, resumed
from trainer.learning.lr_finder import Finding, Trial
from trainer.learning.race import Contender, TimeLimit
from trainer.learning.schedulers import planned_lrs, thinned
from trainer.runs import run_folder
from trainer.runs.events import EpochEnded, Event, Finished
from trainer.runs.reader import read_checkpoint, read_run, read_settings
from trainer.runs.recorder import Recorder, record_race
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from ui.jobs.queue import STOPPED, Job, sentence_of


class Machine(Protocol):
    """What jobs need of the lab: the images, and something that runs work on them, `parallel` pieces at a time."""

    time_limit: TimeLimit | None
    parallel: int

    def run(self, work: Work, stopping: Any) -> Iterator[Any]:
        """Yields the events of the work until it ends or `stopping` is set."""

    def learn_pace(self, run: Run, images: ImageData) -> None:
        """Remembers the pace of a run that has ended, on these images."""

    def wait_for_images(self, stopping: Any) -> ImageData:
        """Returns the images. Raises UserError if there are none or `stopping` is set first."""


def _ignore(index: int, event: Event) -> None:
    pass


@dataclass(kw_only=True, eq=False)
class MachineJob(Job):
    """A job that computes with `images` or, by default, with the app's own once they have loaded."""

    machine: Machine
    images: ImageData | None = None

    def wait_for_images(self) -> ImageData:
        """Returns the images. Raises UserError if there are none or the job is stopped first."""
        return self.images or self.machine.wait_for_images(self.stopping)


@dataclass(kw_only=True, eq=False)
class Training(MachineJob):
    """Trains new runs, a race or a single one, and records each in its folder.

    `planned` is the schedule of a single run as (epochs passed, lr). `on_event` is called in the job's thread.
    """

    kind = "training"

    folders: Sequence[Path]
    runs: list[Run]
    planned: list[tuple[float, float]] = field(default_factory=list)
    on_event: Callable[[int, Event], None] = _ignore

    @property
    def size(self) -> int:
        """The number of runs."""
        return len(self.folders)

    @property
    def race(self) -> str:
        """The key of the race: that of its first run."""
        return self.folders[0].name

    @property
    def seconds_left(self) -> float | None:
        """The seconds that the unfinished runs still need."""
        left = [run.seconds_left for run in self.runs if run.status == "training"]
        known = [seconds for seconds in left if seconds is not None]
        return sum(known) if len(known) == len(left) else None

    def work(self) -> None:
        """Trains and records until all runs have ended; a run that is stopped or fails can be resumed."""
        try:
            images = self.wait_for_images()
            with _writing(self.folders):
                self._train(images)
        finally:
            self.on_event = _ignore  # what it holds is not needed while the app remembers the job
            self.give_up()

    def give_up(self) -> None:
        """Removes the folders in which nothing was saved."""
        for folder in self.folders:
            run_folder.discard_unused(folder)

    def start_from(self, images: ImageData) -> dict[int, Contender]:
        """Returns the contenders by the index of their run, and sets `runs` and `planned`."""
        if len(self.runs) == 1:
            self.planned = thinned(planned_lrs(self.runs[0].config, images))
        return {index: (run.config, None) for index, run in enumerate(self.runs)}

    def _train(self, images: ImageData) -> None:
        contenders = self.start_from(images)
        recorders = [
            Recorder(run=run, folder=folder, data=facts(images), resume=contenders.get(index, (None, None))[1])
            for index, (run, folder) in enumerate(zip(self.runs, self.folders, strict=True))
        ]
        work = Race.of(list(contenders.values()), images, self.machine.time_limit)
        try:
            for index, event in record_race(self._events(work, list(contenders)), recorders):
                self._report(index, event)
            end = Finished(reason="stopped", advice=self.stopped_because)
        except Exception as error:
            end = Finished(reason="interrupted", advice=sentence_of(error))
        unfinished = [index for index, run in enumerate(self.runs) if run.status == "training"]
        started = [recorder.run for recorder in recorders if recorder.has_started]
        if not any(run.history for run in started):
            raise UserError(end.advice or next((run.advice for run in started if run.advice), STOPPED))
        for index in unfinished:
            recorders[index].record(end)
            self._report(index, end)

    def _events(self, work: Race, indices: Sequence[int]) -> Generator[tuple[int, Event], None, None]:
        ended: dict[int, EpochEnded] = {}
        for event in self.machine.run(work, self.stopping):
            if isinstance(event, Served):
                self.was_served(event.seconds)
                continue
            position, reported = event
            index = indices[position]
            # An epoch counts once its checkpoint is here: a stop between the two would lose what the page displays.
            if isinstance(reported, EpochEnded):
                ended[index] = reported
                continue
            if index in ended:
                yield index, ended.pop(index)
            yield index, reported

    def _report(self, index: int, event: Event) -> None:
        self.changed()
        self.on_event(index, event)


@dataclass(kw_only=True, eq=False)
class ResumedTraining(Training):
    """Resumes the runs of a race up to `total_epochs`, with `changes` to their settings.

    Runs that have no epochs left stay as they are.
    """

    total_epochs: int
    changes: Mapping[str, Any]

    def start_from(self, images: ImageData) -> dict[int, Contender]:
        """Returns the contenders by the index of their run, and sets `runs` and `planned`."""
        resumable = resumable_checkpoints(self.folders, images, self.total_epochs, self.changes)
        self.runs = [
            resumed(resumable[index]) if index in resumable else read_run(folder)
            for index, folder in enumerate(self.folders)
        ]
        if len(self.folders) == 1:
            start = resumable[0].schedule_from
            rest = replace(resumable[0].config, epochs=resumable[0].config.epochs - start)
            self.planned = thinned([(start + epochs, lr) for epochs, lr in planned_lrs(rest, images)])
        return {index: (state.config, state) for index, state in resumable.items()}


@dataclass(kw_only=True, eq=False)
class LrSearch(MachineJob):
    """A learning-rate search, for at most `most_seconds` of the machine's time."""

    kind = "search"

    config: TrainConfig
    most_seconds: float = math.inf
    trials: list[Trial] = field(default_factory=list)
    finding: Finding | None = None
    planned: tuple[float, float] | None = None  # the lowest and highest lr of the schedule

    @property
    def seconds_left(self) -> float | None:
        """The seconds until the last trial, at the pace so far."""
        if not self.trials or not self.seconds:
            return None
        last = self.trials[-1]
        return self.seconds / last.step * (last.num_steps - last.step)

    def work(self) -> None:
        """Searches until there is a finding."""
        images = self.wait_for_images()
        lrs = [lr for _, lr in planned_lrs(self.config, images) if lr > 0]
        self.planned = (min(lrs), max(lrs)) if lrs else None
        for event in self.machine.run(Search.of(self.config, images), self.stopping):
            match event:
                case Served():
                    self.was_served(event.seconds)
                    if self.seconds > self.most_seconds:
                        raise UserError(
                            "The search takes too long here; a smaller batch_size or zero_grad_every helps."
                        )
                case Trial():
                    self.trials.append(event)
                case Finding():
                    self.finding = event
            self.changed()
        if self.finding is None:
            raise UserError(self.stopped_because or "The search was stopped.")


def resumable_checkpoints(
    folders: Sequence[Path], images: ImageData, epochs: int, changes: Mapping[str, Any]
) -> dict[int, Checkpoint]:
    """Returns the checkpoints to resume, by their index in the race.

    Raises UserError if there are none, if they were trained on other images, or if settings would become the same.
    """
    race = [read_run(folder) for folder in folders]
    resumable = {}
    for index, (folder, run) in enumerate(zip(folders, race, strict=True)):
        _, data = read_settings(folder)
        if data["digest"] != images.digest:
            raise UserError(
                "This run was trained on other pictures ({name}) than those the app uses now.", name=data["name"]
            )
        total = max(epochs, run.config.epochs)
        is_over = run.epoch >= total or (run.status == "diverged" and not changes)
        if len(race) == 1 or not is_over:
            resumable[index] = continued(read_checkpoint(folder), epochs=total, changes=changes)
    if not resumable:
        raise UserError("Every run of this race has trained all its epochs; choose a larger total to continue.")
    states: list[Run | Checkpoint] = [resumable.get(index, run) for index, run in enumerate(race)]
    after = {state.config for state in states}
    if len(after) < len({run.config for run in race}):
        raise UserError(
            "Some settings of this race would become the same: they differ only in their schedule or epochs. "
            "Start a new race with more epochs instead."
        )
    return resumable


@contextmanager
def _writing(folders: Sequence[Path]) -> Iterator[None]:
    """Holds the locks of all folders until the with block ends."""
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(run_folder.writing(folder))
        yield
