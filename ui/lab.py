"""Lab: what one running app shares among its visitors, and what it keeps separate."""

import hashlib
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from trainer.errors import Message, UserError
from trainer.images.image_data import ImageData, load_images
from trainer.jobs.work import Work
from trainer.learning.race import TimeLimit
from trainer.learning.training_set import training_split
from trainer.runs import run_folder
from trainer.runs.reader import read_run
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig
from ui.jobs.queue import STOPPED, Job, Jobs
from ui.jobs.trainings import LrSearch, ResumedTraining, Training, resumable_checkpoints
from ui.limits import Limits
from ui.run_index import OWNER, RACE, OwnRun, RunIndex, is_key, read

_logger = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent.parent / "checkpoints"

_POLL_SECONDS = 0.5  # while the images load

J = TypeVar("J", bound=Job)


class Lab:
    """The images, loaded once in the background; the folder of runs; the visitors' jobs.

    A random key, stored in the browser, identifies a visitor. Each run's folder stores the digest of its visitor's key,
    so that no one else can see, resume, download or delete the run. The run's own key, as hard to guess, lets anyone
    who has it classify with the run. The runs of a race store the key of the first one and their index in the race.
    """

    def __init__(
        self,
        *,
        checkpoints: Path,
        device: torch.device,
        run: Callable[[Work, threading.Event], Iterator[Any]],
        limits: Limits | None = None,
        is_public: bool = False,
        share_machine: bool = True,
        forgets: bool = False,
    ):
        self.checkpoints, self.device = checkpoints, device
        self._run = run
        self.limits = limits or Limits()
        self.jobs = Jobs(
            most_running=self.limits.at_once,
            most_waiting=self.limits.queue,
            is_public=is_public,
            share_machine=share_machine,
        )
        self.time_limit = _time_limit(self.limits.seconds)
        self._index = RunIndex(checkpoints)
        self.forgets = forgets  # whether its disk is emptied at a restart
        self.loading: tuple[float, str] = (0.0, "Looking for training pictures")
        self.images: ImageData | None = None  # None while they load, and if there are none
        self.failure = ""  # why there are none
        threading.Thread(target=self._load, daemon=True).start()

    def loaded(self) -> ImageData | None:
        """Returns the images to train on, or None while they load. Raises UserError if there are none."""
        if self.failure:
            raise UserError("There are no pictures to train on: {reason}", reason=self.failure)
        return self.images

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
        self, owner: str, configs: Sequence[TrainConfig], *, folders: Sequence[Path] | None = None, **options: Any
    ) -> Training:
        """Starts a job that trains these settings and returns it; its owner owns the new runs, unless in `folders`.

        Raises UserError if the settings exceed the limits or do not fit the images, if the owner has too many runs, or
        if too many trainings wait.
        """
        self.check(configs)
        folders = folders or self.new_race(owner, len(configs))
        runs = [Run(config=config) for config in configs]
        job = Training(owner=owner, machine=self, folders=folders, runs=runs, **options)
        return self._start(job)

    def resume(self, visitor: str, race: str | None, *, total_epochs: int, changes: Mapping[str, Any]) -> Training:
        """Starts a job that resumes a visitor's race up to `total_epochs`, with `changes` to its settings.

        Raises UserError if there is no such race, or if it cannot be resumed so.
        """
        folders = self.own_race(visitor, race)
        if self.is_in_training(folders):
            raise UserError("This run is being trained already.")
        if images := self.loaded():
            checkpoints = resumable_checkpoints(folders, images, total_epochs, changes)
            self.check([checkpoint.config for checkpoint in checkpoints.values()])
        job = ResumedTraining(
            owner=visitor,
            machine=self,
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
        self.check([config])
        most = min(most_seconds, self.limits.seconds)
        return self._start(LrSearch(owner=owner, machine=self, config=config, most_seconds=most))

    def check(self, configs: Sequence[TrainConfig]) -> None:
        """Raises UserError if settings exceed the limits or, once the images have loaded, do not fit them."""
        self.limits.check(configs)
        for config in configs if self.images else ():
            training_split(config, cast("ImageData", self.images))

    def is_in_training(self, folders: Sequence[Path]) -> bool:
        """Whether a job trains one of these runs, or will."""
        return any(isinstance(job, Training) and set(job.folders) & set(folders) for job in self.jobs.active())

    def _start(self, job: J) -> J:
        try:
            self.jobs.start(job)
        except UserError:
            job.give_up()
            raise
        return job

    def check_room(self, visitor: str, num_runs: int) -> None:
        """Raises UserError if a visitor would have more runs than the limit."""
        trained = [folder for job in self.jobs.active() if isinstance(job, Training) for folder in job.folders]
        stored = len(
            {*self.runs_of(visitor), *(folder for folder in trained if read(folder / OWNER) == _digest(visitor))}
        )
        most = self.limits.runs
        if stored + num_runs > most:
            raise UserError(
                "You can store up to {most} runs here and have {count}: delete some first.",
                most=f"{most:g}",
                count=stored,
            )

    def new_race(self, visitor: str, num_runs: int) -> list[Path]:
        """Creates folders for the runs of a visitor's new race.

        Raises UserError if the visitor has too many runs or the disk refuses.
        """
        owner = _digest(checked_visitor(visitor))
        self.check_room(visitor, num_runs)
        folders = [self.new_run() for _ in range(num_runs)]
        try:
            for index, folder in enumerate(folders):
                folder.mkdir(parents=True)
                (folder / RACE).write_text(f"{folders[0].name} {index}")
                (folder / OWNER).write_text(owner)  # last: from now on another process may list the run
        except OSError as error:
            for folder in folders:
                run_folder.discard_unused(folder)
            raise UserError(
                "The run cannot be saved here: {reason}.", reason=(error.strerror or "the disk refused").lower()
            ) from None
        for index, folder in enumerate(folders):
            self._index.add(owner, OwnRun(folder, folders[0].name, index))
        return folders

    def new_run(self) -> Path:
        """The path of a new folder for a run without an owner; it does not create the folder."""
        return self.checkpoints / run_folder.new_key()

    def all_runs(self) -> list[Path]:
        """The folders of all runs, also of those that have not started; without the bundled checkpoints."""
        try:
            return [folder for folder in self.checkpoints.iterdir() if is_key(folder.name)]
        except OSError:  # the folder does not exist, or not at the moment
            return []

    def runs_of(self, visitor: str | None) -> list[Path]:
        """The folders of a visitor's runs, the latest first."""
        return [run.folder for run in self._own_runs(visitor)]

    def races_of(self, visitor: str | None) -> dict[str, list[Path]]:
        """The visitor's races by key, the latest first: the folders of each in order. A single run is a race too."""
        races: dict[str, dict[Path, int]] = {}
        for run in self._own_runs(visitor):
            races.setdefault(run.race, {})[run.folder] = run.index
        return {key: sorted(indices, key=indices.__getitem__) for key, indices in races.items()}

    def _own_runs(self, visitor: str | None) -> list[OwnRun]:
        return self._index.runs_of(_digest(visitor)) if is_key(visitor) else []

    def own_race(self, visitor: str | None, key: str | None) -> list[Path]:
        """The folders of a visitor's own race. Raises UserError for any other, without a hint that it exists."""
        folders = self.races_of(visitor).get(key) if is_key(key) else None
        if not folders:
            raise UserError("You have no such run; it may have been deleted.")
        return folders

    def own_run(self, visitor: str | None, key: str | None) -> Path:
        """The folder of a visitor's own run. Raises UserError for any other, as `own_race` does."""
        folder = self.checkpoints / key if is_key(key) else None
        if folder is None or not is_key(visitor) or read(folder / OWNER) != _digest(visitor):
            raise UserError("You have no such run; it may have been deleted.")
        return folder

    def checkpoint(self, name: str | None) -> Path:
        """The folder of a run (by key) or of a bundled checkpoint (by name). Raises UserError for anything else."""
        if is_key(name) and (self.checkpoints / name).is_dir():
            return self.checkpoints / name
        if name is not None and name in bundled():
            return BUNDLED / name
        raise UserError("There is no such checkpoint: choose one of your runs or a bundled one.")

    def _load(self) -> None:
        self._index.refresh()  # so that the first page need not wait for it
        try:
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


def new_visitor() -> str:
    """Returns a key for a browser without one: 128 random bits."""
    return secrets.token_hex(16)


def checked_visitor(value: Any) -> str:
    """Returns the visitor's key. Raises UserError if a request contains something else."""
    if not is_key(value):
        raise UserError("This browser is not known here; reload the page.")
    return value


def bundled() -> list[str]:
    """The names of the bundled checkpoints that exist, the best one first."""
    return [name for name in ("fast", "quick") if (BUNDLED / name / "config.json").exists()]


def _digest(visitor: str) -> str:
    return hashlib.sha256(visitor.encode()).hexdigest()
