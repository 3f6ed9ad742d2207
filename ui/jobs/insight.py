"""The jobs that look inside runs: a loss landscape, the sharpness at each epoch, and the mistakes."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.images.image_data import ImageData
from trainer.insight import landscape, mistakes, plane
from trainer.insight.landscape import LossMap, check_fits
from trainer.insight.mistakes import Answers
from trainer.insight.plane import read_snapshots
from trainer.insight.sharpness import MOST_EPOCHS, Measured, RunSharpness, SharpnessMeasured
from trainer.insight.timeline import Timeline
from trainer.jobs.process import Served
from trainer.jobs.work import Classification, ImageFile, Landscape, Sharpness, Work
from trainer.networks.model import OptimizerLabModel
from trainer.settings.config import TrainConfig
from ui.jobs.queue import STOPPED
from ui.jobs.trainings import MachineJob


def _ignore(row: dict[str, Any]) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A run to look inside: its settings, its epochs, and its last network with the number of its epoch.

    `digest` is that of the pictures that it was trained on, None if it is not known.
    """

    config: TrainConfig
    timeline: Callable[[], Timeline]
    last: Callable[[], tuple[OptimizerLabModel, int]]
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """The name of a run to look inside, its folder if it is kept here, and what opens it in the job's thread."""

    name: str
    open: Callable[[], Opened]
    folder: Path | None = None

    @property
    def key(self) -> str:
        """What the run is chosen by: its folder's name if it is kept here."""
        return self.folder.name if self.folder else self.name


@dataclass(kw_only=True, eq=False)
class InsightJob(MachineJob):
    """Computes a view of some runs, for at most `most_seconds` of the machine's time.

    `remarks` are sentences on what the view is worth, for the
    visitor. `on_row` is called in the job's thread with each row of the public stream.
    """

    inspected: Sequence[Inspected]
    num_images: int
    most_seconds: float = math.inf
    remarks: list[str] = field(default_factory=list)
    share: float = 0.0  # of the work that is done, 0–1
    on_row: Callable[[dict[str, Any]], None] = _ignore

    @property
    def seconds_left(self) -> float | None:
        """The seconds that the rest takes, at the pace so far."""
        return self.seconds / self.share * (1 - self.share) if self.share and self.seconds else None

    def work(self) -> None:
        """Computes until the view is complete or the job is stopped."""
        try:
            self.compute(self.wait_for_images())
        finally:
            self.on_row = _ignore  # what it holds is not needed while the app remembers the job
        if self.share < 1:
            raise UserError(self.stopped_because or "Stopped.")

    def compute(self, images: ImageData) -> None:
        """Computes the view."""
        raise NotImplementedError

    def remark_on(self, runs: Sequence[Opened], config: dict[str, Any], images: ImageData, num_missing: int) -> None:
        """Adds the remarks on the runs, whose network has this config.json. Raises UserError if it does not fit."""
        check_fits(config, images)
        remarks = {
            "This was trained on other pictures than those the app uses now.": any(
                run.digest not in (None, images.digest) for run in runs
            ),
            "The network ends in a softmax, and as in its training the loss applies a second one.": config["softmax"],
            "Some epochs are left out, because their weights are missing, damaged or not finite.": num_missing > 0,
        }
        self.remarks += [remark for remark, applies in remarks.items() if applies and remark not in self.remarks]

    def events(self, work: Work, *, part: int = 0, parts: int = 1) -> Iterator[Any]:
        """Yields the events of some work, a part of the job's, and stops the job at its limit."""
        before = self.seconds
        for event in self.machine.run(work, self.stopping):
            if isinstance(event, Served):
                self.was_served(before + event.seconds)
                if self.seconds > self.most_seconds and self.share < 1:
                    raise UserError("This takes too long here; what is computed so far is displayed.")
            else:
                self.share = (part + event.fraction) / parts
                yield event
            self.changed()

    def timeline_of(self, run: Opened) -> Timeline:
        """Returns the timeline of a run. Its `open`, which may download, raises UserError once the job is stopped."""
        timeline = run.timeline()

        def open_epoch(epoch: int) -> OptimizerLabModel:
            if self.stopping.is_set():
                raise UserError(STOPPED)
            return timeline.open(epoch)

        return replace(timeline, open=open_epoch)


@dataclass(kw_only=True, eq=False)
class LandscapeJob(InsightJob):
    """Computes the loss landscape around the path of runs or, `is_random`, around the last network of one.

    It is read from the first run's folder and saved there if that is a visitor's own.
    """

    kind = "landscape"

    is_random: bool = False
    num_points: int = landscape.NUM_POINTS
    found: LossMap | None = None

    def compute(self, images: ImageData) -> None:
        """Computes the landscape, or reads it."""
        runs, folder = [run.open() for run in self.inspected], self.inspected[0].folder
        if self.is_random:
            flat = plane.around(*runs[0].last())
        else:
            flat = plane.through_epochs([self.timeline_of(run) for run in runs])
        self.remark_on(runs, flat.config, images, flat.num_missing)
        config = runs[0].config
        split = landscape.training_sample(config, images, self.num_images)
        grid = landscape.grid_over(flat, self.num_points)
        self.found = found = landscape.empty_map(grid, [run.name for run in self.inspected], len(split.labels))
        cached = landscape.read_cache(folder, grid, split) if folder else None
        work = Landscape(images=ImageFile.of(images), config=config, grid=grid, num_images=self.num_images)
        for event in landscape.revisit(grid, cached) if cached else self.events(work):
            found.losses[event.row, event.column] = event.loss
            self.share = event.fraction
            self.on_row(landscape.point_row(grid, event))
        if folder and not cached and self.share == 1:
            with suppress(UserError):  # a run in training, or a disk that refuses
                landscape.write_cache(folder, grid, split, found.losses)


@dataclass(kw_only=True, eq=False)
class SharpnessJob(InsightJob):
    """Measures the sharpness at the epochs of runs, one run after another."""

    kind = "sharpness"

    runs: list[RunSharpness] = field(default_factory=list)
    epoch: int = 0  # the one being measured

    def compute(self, images: ImageData) -> None:
        """Measures one epoch after another."""
        for index, inspected in enumerate(self.inspected):
            run = inspected.open()
            timeline = self.timeline_of(run)
            snapshots = read_snapshots(timeline, MOST_EPOCHS)
            self.remark_on([run], snapshots.config, images, snapshots.num_missing)
            known = RunSharpness(name=inspected.name, config=run.config)
            self.runs.append(known)
            measured = Measured.of(timeline.run, snapshots)
            work = Sharpness(
                images=ImageFile.of(images), config=run.config, measured=measured, num_images=self.num_images
            )
            for event in self.events(work, part=index, parts=len(self.inspected)):
                self.epoch = event.epoch
                if isinstance(event, SharpnessMeasured):
                    known.rows.append(event)


@dataclass(kw_only=True, eq=False)
class MistakesJob(InsightJob):
    """Classifies the test pictures with the last network of a run. `key` is the run's name as the visitor chose it."""

    kind = "mistakes"

    key: str = ""
    num_images: int = 0  # all
    answers: Answers | None = None

    def compute(self, images: ImageData) -> None:
        """Classifies the pictures."""
        model, _ = self.inspected[0].open().last()
        mistakes.check_fits(model, images)
        for event in self.events(Classification.of(model, images)):
            self.answers = event.answers
