"""Lab: what one running app shares among its visitors, and what it keeps separate."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from trainer.errors import Message, UserError
from trainer.images.batches import images_per_batch
from trainer.images.image_data import ImageData, facts, load_images
from trainer.jobs.pace import Pace, pace_of
from trainer.jobs.work import ImageFile, Timing, Work
from trainer.learning.race import TimeLimit
from trainer.learning.training_set import num_training_images, training_split
from trainer.progress import repeating
from trainer.runs import run_folder
from trainer.runs.reader import read_run, read_settings
from trainer.runs.run import Run
from trainer.settings.config import SETTINGS, TrainConfig
from trainer.sweeps import folder as sweep_folder
from trainer.sweeps.axes import Axis, Grid, grid
from trainer.sweeps.folder import Sweep
from trainer.sweeps.runner import fitting, sweep_settings
from ui.jobs.insight import Inspected, LandscapeJob, MistakesJob, SharpnessJob
from ui.jobs.queue import STOPPED, Job, Jobs
from ui.jobs.sweeps import SweepJob
from ui.jobs.trainings import LrSearch, ResumedTraining, Training, resumable_checkpoints
from ui.limits import Limits
from ui.picture_sets import PictureSets
from ui.run_index import is_key
from ui.stored_runs import StoredRuns
from ui.visitors import checked_visitor, digest_of

_logger = logging.getLogger(__name__)

_POLL_SECONDS, _SECONDS_BETWEEN_LINES = 0.5, 4.0  # on the page and in the log, while the images load

J = TypeVar("J", bound=Job)


class Lab:
    """The images, loaded once in the background; the stored runs; the visitors' jobs.

    A random key, stored in the browser, identifies a visitor.
    """

    def __init__(
        self,
        *,
        checkpoints: Path,
        device: torch.device,
        run: Callable[[Work, threading.Event], Iterator[Any]],
        parallel: int = 1,
        limits: Limits | None = None,
        is_public: bool = False,
        share_machine: bool = True,
        forgets: bool = False,
    ):
        self.device = device
        self._run = run
        self.parallel = parallel  # the number of devices that `run` trains on
        self.paces: dict[str, Pace] = {}  # of optimizers, otherwise with the default settings, as far as measured
        self._measuring = threading.Lock()
        self.shares_machine = share_machine
        self.limits = limits or Limits()
        self.jobs = Jobs(
            most_running=self.limits.at_once,
            most_waiting=self.limits.queue,
            is_public=is_public,
            share_machine=share_machine,
        )
        self.time_limit = _time_limit(self.limits.seconds)
        self.runs = StoredRuns(checkpoints, self.jobs, most=self.limits.runs)
        self.forgets = forgets  # whether its disk is emptied at a restart
        self.loading: tuple[float, str] = (0.0, "Looking for training pictures")
        self.images: ImageData | None = None  # None while they load, and if there are none
        self.failure = ""  # why there are none
        self.sets = PictureSets(checkpoints / ".pictures", self.limits, any_dataset=not is_public)
        threading.Thread(target=self._load, daemon=True).start()

    def loaded(self) -> ImageData | None:
        """Returns the images to train on, or None while they load. Raises UserError if there are none."""
        if self.failure:
            raise UserError("There are no pictures to train on: {reason}", reason=self.failure)
        return self.images

    def ready_images(self) -> ImageData:
        """The images to train on. Raises UserError while they load, and if there are none."""
        images = self.loaded()
        if images is None:
            raise UserError("The pictures are still being loaded: try again in a moment.")
        return images

    def owner(self, visitor: str) -> str:
        """Returns what stands for a visitor in the app's files. Raises UserError if a request has no visitor's key."""
        return digest_of(checked_visitor(visitor))

    def chosen_images(self, visitor: str | None) -> ImageData | None:
        """Returns the images that a visitor has chosen; None for the app's own, which may still load.

        Raises UserError if they have chosen their own pictures, and those are too few.
        """
        return self.sets.images(digest_of(visitor)) if is_key(visitor) else None

    def shown_images(self, visitor: str | None) -> ImageData | None:
        """Returns the images that a visitor has chosen or, if these are the app's own or too few, the app's own."""
        with suppress(UserError):
            return self.chosen_images(visitor) or self.images
        return self.images

    def images_with(self, visitor: str | None, digest: Any) -> ImageData | None:
        """Returns the images with a digest: the app's own, the visitor's choice or their pictures; None without any."""
        if self.images and self.images.digest == digest:
            return self.images
        return self.sets.find(digest_of(visitor), digest) if is_key(visitor) else None

    def images_of_run(self, visitor: str | None, run: str | Path | None) -> ImageData | None:
        """Returns the images that a run was trained on, if they are the app's own or the visitor's, else None."""
        with suppress(UserError):
            folder = run if isinstance(run, Path) else self.runs.checkpoint(run)
            return self.images_with(visitor, read_settings(folder)[1]["digest"])
        return None

    def until_loaded(self) -> Iterator[ImageData | None]:
        """Yields the images, or None while they load: at once, then twice a second until they have loaded or failed."""
        is_done = False
        while not is_done:
            is_done = self.images is not None or bool(self.failure)
            yield self.images
            if not is_done:
                time.sleep(_POLL_SECONDS)

    def wait_for_images(self, stopping: threading.Event) -> ImageData:
        """Returns the images, once they have loaded. Raises UserError if there are none or `stopping` is set first."""
        while (images := self.loaded()) is None:
            if stopping.wait(_POLL_SECONDS):
                raise UserError(STOPPED)
        return images

    def run(self, work: Work, stopping: threading.Event) -> Iterator[Any]:
        """Yields the events of the work until it ends or `stopping` is set. Raises UserError if it cannot be done."""
        return self._run(work, stopping)

    def train(
        self,
        owner: str,
        configs: Sequence[TrainConfig],
        *,
        images: ImageData | None = None,
        folders: Sequence[Path] | None = None,
        **options: Any,
    ) -> Training:
        """Starts a job that trains these settings and returns it; its owner owns the new runs, unless in `folders`.

        It trains on `images`, by default those that the owner has chosen.

        Raises UserError if the settings exceed the limits or do not fit the images, if the owner has too many runs, or
        if too many trainings wait.
        """
        images = images or self.chosen_images(owner)
        self.check(configs, images)
        folders = folders or self.runs.new_race(owner, len(configs))
        runs = [Run(config=config) for config in configs]
        job = Training(owner=owner, machine=self, images=images, folders=folders, runs=runs, **options)
        return self._start(job)

    def resume(self, visitor: str, race: str | None, *, total_epochs: int, changes: Mapping[str, Any]) -> Training:
        """Starts a job that resumes a visitor's race up to `total_epochs`, with `changes` to its settings.

        Raises UserError if there is no such race, or if it cannot be resumed so.
        """
        folders = self.runs.own_race(visitor, race)
        if self.is_in_training(folders):
            raise UserError("This run is being trained already.")
        found = self.images_with(visitor, read_settings(folders[0])[1]["digest"])
        if images := found or self.loaded():
            checkpoints = resumable_checkpoints(folders, images, total_epochs, changes)
            self.check([checkpoint.config for checkpoint in checkpoints.values()], images)
        job = ResumedTraining(
            owner=visitor,
            is_alone=True,
            machine=self,
            images=found,
            folders=folders,
            runs=[read_run(folder) for folder in folders],
            total_epochs=total_epochs,
            changes=changes,
        )
        return self._start(job)

    def search(self, owner: str, config: TrainConfig, *, most_seconds: float = math.inf) -> LrSearch:
        """Starts a job that searches for a learning rate and returns it.

        Raises UserError if the config exceeds the limits or does not fit the images, or if too many jobs wait.
        """
        images = self.chosen_images(owner)
        self.check([config], images)
        most = min(most_seconds, self.limits.seconds)
        return self._start(LrSearch(owner=owner, machine=self, images=images, config=config, most_seconds=most))

    def draw_landscape(self, owner: str, inspected: Sequence[Inspected], **options: Any) -> LandscapeJob:
        """Starts a job that computes a loss landscape and returns it. Raises UserError if too many jobs wait."""
        return self._start(LandscapeJob(**self._inside(owner, inspected), **options))

    def measure_sharpness(self, owner: str, inspected: Sequence[Inspected], **options: Any) -> SharpnessJob:
        """Starts a job that measures the sharpness of runs and returns it. Raises UserError if too many jobs wait."""
        return self._start(SharpnessJob(**self._inside(owner, inspected), **options))

    def find_mistakes(self, owner: str, inspected: Inspected, **options: Any) -> MistakesJob:
        """Starts a job that classifies the test pictures and returns it. Raises UserError if too many jobs wait."""
        return self._start(MistakesJob(**self._inside(owner, [inspected]), **options))

    def _inside(self, owner: str, inspected: Sequence[Inspected]) -> dict[str, Any]:
        """Returns the arguments of a job that looks inside runs: with the images of the first, if it is kept here."""
        folder = inspected[0].folder
        return {
            "owner": owner,
            "machine": self,
            "images": self.images_of_run(owner, folder) if folder else None,
            "inspected": inspected,
            "most_seconds": self.limits.seconds,
        }

    def sweep(
        self,
        owner: str,
        settings: Mapping[str, Any],
        axes: Sequence[Axis],
        *,
        folder: Path | None = None,
        **options: Any,
    ) -> SweepJob:
        """Starts a job that trains a sweep and returns it; its owner owns the sweep, unless in `folder`.

        Raises UserError if the sweep exceeds the limits, if none of its runs fits the images, if the owner has too
        many runs, or if too many jobs wait.
        """
        images = self.chosen_images(owner) or self.ready_images()
        settings, _ = sweep_settings(settings, axes, images)
        planned = self.sweep_grid(settings, axes, images)
        is_page = folder is None
        if folder is None:
            (folder,) = self.runs.new_race(owner, 1)
        sweep = Sweep(folder=folder, settings=settings, axes=tuple(axes), data=facts(images))
        try:
            sweep_folder.create(sweep)
        except UserError:
            run_folder.discard_unused(folder)
            raise
        # Two tabs may start one at the same time, and a page shows one.
        job = SweepJob(
            owner=owner, is_alone=is_page, machine=self, images=images, sweep=sweep, cells=planned.cells, **options
        )
        return self._start(job)

    def resume_sweep(self, visitor: str, key: str | None) -> SweepJob:
        """Starts a job that trains what is left of a visitor's sweep. Raises UserError if there is no such sweep, or if
        it cannot be resumed.
        """
        folder = self.runs.own_sweep(visitor, key)
        if self.is_in_training([folder]):
            raise UserError("This sweep is being trained already.")
        sweep = sweep_folder.read(folder)
        images = self.images_with(visitor, sweep.data.get("digest"))
        if images is None:
            self.ready_images()  # raises the error for what is missing
            raise UserError("This sweep was trained on other pictures than those the app uses now.")
        cells = self.sweep_grid(sweep.settings, sweep.axes, images).cells
        runs = sweep_folder.runs_of(sweep)
        job = SweepJob(
            owner=visitor,
            is_alone=True,
            is_new=False,
            machine=self,
            images=images,
            sweep=sweep,
            cells=cells,
            runs=runs,
        )
        return self._start(job)

    def sweep_grid(self, settings: Mapping[str, Any], axes: Sequence[Axis], images: ImageData) -> Grid:
        """Returns the runs of a sweep, and what is left out because it cannot be trained.

        Raises UserError if the sweep exceeds the limits, or if all of it is left out.
        """
        planned = grid(settings, axes, most=self.limits.cells)
        self.limits.check([cell.config for cell in planned.cells])
        return fitting(planned, images)

    def measure_pace(self, optimizer: str) -> None:
        """Adds the pace of an optimizer to `paces`, if it can be measured, which takes a second or two."""
        with self._measuring, suppress(UserError):
            if optimizer in self.paces:
                return
            work = Timing(images=ImageFile.of(self.ready_images()), config=TrainConfig(optimizer=optimizer))
            for event in self.run(work, threading.Event()):
                if isinstance(event, Pace):
                    self.paces[optimizer] = event

    def learn_pace(self, run: Run, images: ImageData) -> None:
        """Puts the pace of a run that has ended into `paces`: it tells more than the few batches of a measurement.

        Not that of another network than the default one, of which `paces` are.
        """
        if run.status == "completed" and run.config.model == SETTINGS["model"].default:
            pace = pace_of(run.history[-1], run.config, images)
            size = images_per_batch(num_training_images(run.config, images), run.config)
            batches = SETTINGS["batch_size"].default / size
            self.paces[run.config.optimizer] = replace(pace, batch_seconds=batches * pace.batch_seconds)

    def check(self, configs: Sequence[TrainConfig], images: ImageData | None = None) -> None:
        """Raises UserError if settings exceed the limits or do not fit the images.

        These are by default the app's own, once they have loaded.
        """
        self.limits.check(configs)
        if images := images or self.images:
            for config in configs:
                training_split(config, images)

    def is_in_training(self, folders: Sequence[Path]) -> bool:
        """Whether a job trains one of these runs or sweeps, or will."""
        return any(
            isinstance(job, Training | SweepJob) and set(job.folders) & set(folders) for job in self.jobs.active()
        )

    def _start(self, job: J) -> J:
        try:
            self.jobs.start(job)
        except UserError:
            job.give_up()
            raise
        return job

    def _load(self) -> None:
        self.runs.refresh()

        def say() -> None:
            _logger.info("%s: %.0f %%", self.loading[1], 100 * self.loading[0])

        try:
            with repeating(say, _SECONDS_BETWEEN_LINES):
                self.images = load_images(progress=lambda fraction, doing: setattr(self, "loading", (fraction, doing)))
        except ValueError as error:
            self.failure = str(error)
        except Exception:
            _logger.exception("Loading the images failed.")
            self.failure = "Loading them failed; see the app's log for details."
        if self.images is not None:
            _logger.info(self.images.note)
        else:
            _logger.error(self.failure)


def _time_limit(seconds: float) -> TimeLimit | None:
    if math.isinf(seconds):
        return None
    return TimeLimit(
        seconds=seconds,
        advice=Message(
            "This Space trains for up to {number} s at a time. Press Resume to continue from the last epoch.",
            number=f"{seconds:g}",
        ),
        too_slow=Message(
            "This Space trains for up to {number} s at a time, and no epoch has ended in that time. Use fewer pictures "
            "(num_images), fewer settings side by side or a smaller model.",
            number=f"{seconds:g}",
        ),
    )
