"""StoredRuns: the runs and sweeps in the app's folder, each with the visitor who owns it."""

import errno
import logging
import os
from pathlib import Path

from trainer.cache import check_folder, writable_folder
from trainer.errors import UserError, first_line
from trainer.networks.pretrained import BUNDLED
from trainer.runs import run_folder
from trainer.sweeps import folder as sweep_folder
from ui.jobs.queue import Jobs
from ui.jobs.trainings import Training
from ui.run_index import OWNER, RACE, OwnRun, RunIndex, is_key, read
from ui.visitors import checked_visitor, digest_of

_logger = logging.getLogger(__name__)


def find_folder() -> Path:
    """Returns the folder of runs: OPTIMIZER_LAB_CHECKPOINTS or, by default, `checkpoints` where the app was started.

    If the default cannot be written, as in many containers, it is a folder of the app's cache. Raises UserError if a
    folder that was chosen cannot be written, OSError if none can. A full disk is no reason: old runs are deleted.
    """
    chosen = os.environ.get("OPTIMIZER_LAB_CHECKPOINTS")
    folder = Path(chosen or "checkpoints")
    try:
        return check_folder(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and os.path.isdir(folder):
            return folder
        if chosen:
            raise UserError(
                "Runs cannot be stored in {folder}: {reason}. Set OPTIMIZER_LAB_CHECKPOINTS to another folder.",
                folder=chosen,
                reason=first_line(error),
            ) from None
        folder = writable_folder("runs")
        _logger.warning("checkpoints cannot be written (%s): runs are stored in %s.", first_line(error), folder)
        return folder


class StoredRuns:
    """The runs in `folder`: who owns them, and folders for new ones.

    Each run's folder stores the digest of its visitor's key, so that no one else can see, resume, download or delete
    the run. The run's own key, as hard to guess, lets anyone who has it classify with the run. The runs of a race store
    the key of the first one and their index in the race.
    """

    def __init__(self, folder: Path, jobs: Jobs, *, most: float):
        self.folder = folder
        self._jobs = jobs
        self.most = most  # runs that a visitor may store
        self._index = RunIndex(folder)

    def refresh(self) -> None:
        """Reads the owners of all runs, so that the first page need not wait for it."""
        self._index.refresh()

    def check_room(self, visitor: str, num_runs: int) -> None:
        """Raises UserError if a visitor would have more runs than the limit."""
        trained = [folder for job in self._jobs.active() if isinstance(job, Training) for folder in job.folders]
        stored = len(
            {
                *self.of(visitor),
                *self.sweeps_of(visitor),
                *(folder for folder in trained if read(folder / OWNER) == digest_of(visitor)),
            }
        )
        if stored + num_runs > self.most:
            raise UserError(
                "You can store up to {most} runs here and have {count}: delete some first.",
                most=f"{self.most:g}",
                count=stored,
            )

    def new_race(self, visitor: str, num_runs: int) -> list[Path]:
        """Creates folders for the runs of a visitor's new race.

        Raises UserError if the visitor has too many runs or the disk refuses.
        """
        owner = digest_of(checked_visitor(visitor))
        self.check_room(visitor, num_runs)
        folders = [self.new_run() for _ in range(num_runs)]
        try:
            for index, folder in enumerate(folders):
                folder.mkdir(parents=True)
                (folder / RACE).write_text(f"{folders[0].name} {index}", encoding="utf-8")
                # Last, because from now on another process may list the run.
                (folder / OWNER).write_text(owner, encoding="utf-8")
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
        return self.folder / run_folder.new_key()

    def all(self) -> list[Path]:
        """The folders of all runs, also of those that have not started; without the bundled checkpoints."""
        try:
            return [folder for folder in self.folder.iterdir() if is_key(folder.name)]
        except OSError:  # the folder does not exist, or not at the moment
            return []

    def of(self, visitor: str | None) -> list[Path]:
        """The folders of a visitor's runs, the latest first."""
        return [run.folder for run in self._own_runs(visitor)]

    def races_of(self, visitor: str | None) -> dict[str, list[Path]]:
        """The visitor's races by key, the latest first: the folders of each in order. A single run is a race too."""
        races: dict[str, dict[Path, int]] = {}
        for run in self._own_runs(visitor):
            races.setdefault(run.race, {})[run.folder] = run.index
        return {key: sorted(indices, key=indices.__getitem__) for key, indices in races.items()}

    def sweeps_of(self, visitor: str | None) -> list[Path]:
        """The folders of a visitor's sweeps, the latest first."""
        return [run.folder for run in self._index.sweeps_of(digest_of(visitor))] if is_key(visitor) else []

    def _own_runs(self, visitor: str | None) -> list[OwnRun]:
        return self._index.runs_of(digest_of(visitor)) if is_key(visitor) else []

    def own_race(self, visitor: str | None, key: str | None) -> list[Path]:
        """The folders of a visitor's own race. Raises UserError for any other, without a hint that it exists."""
        folders = self.races_of(visitor).get(key) if is_key(key) else None
        if not folders:
            raise UserError("You have no such run; it may have been deleted.")
        return folders

    def own_run(self, visitor: str | None, key: str | None) -> Path:
        """The folder of a visitor's own run. Raises UserError for any other, as `own_race` does."""
        folder = self._own(visitor, key)
        if folder is None:
            raise UserError("You have no such run; it may have been deleted.")
        return folder

    def own_sweep(self, visitor: str | None, key: str | None) -> Path:
        """The folder of a visitor's own sweep. Raises UserError for any other, as `own_race` does."""
        folder = self._own(visitor, key)
        if folder is None or not sweep_folder.is_sweep(folder):
            raise UserError("You have no such sweep; it may have been deleted.")
        return folder

    def _own(self, visitor: str | None, key: str | None) -> Path | None:
        folder = self.folder / key if is_key(key) else None
        return folder if folder and is_key(visitor) and read(folder / OWNER) == digest_of(visitor) else None

    def checkpoint(self, name: str | None) -> Path:
        """The folder of a run (by key) or of a bundled checkpoint (by name). Raises UserError for anything else."""
        if is_key(name) and (self.folder / name).is_dir():
            return self.folder / name
        if name is not None and name in bundled():
            return BUNDLED / name
        raise UserError("There is no such checkpoint: choose one of your runs or a bundled one.")


def bundled() -> list[str]:
    """The names of the bundled checkpoints that exist, the best one first."""
    return [name for name in ("fast", "quick") if (BUNDLED / name / "config.json").exists()]
