"""Lab: what one running app shares among its visitors, and what it keeps separate."""

import hashlib
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from trainer.errors import Message, UserError
from trainer.images.image_data import ImageData, load_images
from trainer.learning.checkpoint import Checkpoint
from trainer.learning.lr_finder import Finding, Trial
from trainer.learning.race import limit_time
from trainer.runs import run_folder
from trainer.runs.events import Event
from trainer.settings.config import TrainConfig
from ui.limits import Limits
from ui.run_index import OWNER, RACE, OwnRun, RunIndex, is_key, read

_logger = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent.parent / "checkpoints"

_MOST_STOPS = 10_000  # remembered: a stranger may send any number of made-up keys
_SECONDS_BETWEEN_LOOKS = 0.5  # at images that are loading

Race = Callable[[Sequence[tuple[TrainConfig, Checkpoint | None]], ImageData], Iterator[tuple[int, Event]]]
FindLr = Callable[[TrainConfig, ImageData], Iterator[Trial | Finding]]


class Lab:
    """The images, loaded once in the background; the folder of runs; the visitors' requests to stop.

    A visitor is known by a random key that their browser keeps. A run's folder remembers the digest of that key, so
    only its visitor can see, resume, download and delete it. The run's own key, as hard to guess, lets anyone who has
    it classify with it. The runs of a race remember the first one's key, and their place.
    """

    def __init__(
        self,
        *,
        checkpoints: Path,
        device: torch.device,
        race: Race,
        find_lr: FindLr,
        limits: Limits | None = None,
        forgets: bool = False,
    ):
        self.checkpoints, self.device = checkpoints, device
        self._race, self._find_lr = race, find_lr
        self.limits = limits or Limits()
        self._index = RunIndex(checkpoints)
        self.forgets = forgets  # whether its disk is emptied at a restart
        self.loading: tuple[float, str] = (0.0, "Looking for pictures to learn from")
        self.images: ImageData | None = None  # None while they are being loaded, or where there are none
        self.failure = ""  # why there are none
        self._stops: dict[str, float] = {}
        threading.Thread(target=self._load, daemon=True).start()

    def loaded(self) -> ImageData | None:
        """The images to train on; None while they are being loaded. Raises ValueError if there are none."""
        if self.failure:
            raise UserError("There are no pictures to train on: {reason}", reason=self.failure)
        return self.images

    def until_loaded(self) -> Iterator[ImageData | None]:
        """Yields the images now and, until they have loaded or failed, twice a second; None while they are loading."""
        is_over = False
        while not is_over:
            is_over = self.images is not None or bool(self.failure)
            yield self.images
            if not is_over:
                time.sleep(_SECONDS_BETWEEN_LOOKS)

    def race(
        self, contenders: Sequence[tuple[TrainConfig, Checkpoint | None]], images: ImageData
    ) -> Iterator[tuple[int, Event]]:
        """What `race` yields, within the app's limits; raises ValueError at once if it is above them."""
        self.limits.check([config for config, _ in contenders])
        events = self._race(contenders, images)
        seconds = self.limits.seconds
        advice = Message(
            "This Space trains for up to {number} s at a time. Press Resume to go on from the last epoch.",
            number=f"{seconds:g}",
        )
        too_slow = Message(
            "This Space trains for up to {number} s at a time, and no epoch has ended in them. Fewer "
            "pictures (num_images), fewer settings side by side or a smaller model take less.",
            number=f"{seconds:g}",
        )
        return limit_time(events, len(contenders), seconds=seconds, advice=advice, too_slow=too_slow)

    def find_lr(
        self, config: TrainConfig, images: ImageData, *, seconds: float = math.inf
    ) -> Iterator[Trial | Finding]:
        """What `lr_finder.find_lr` yields; raises ValueError at once, or when it takes too long."""
        self.limits.check([config])
        return self._in_time(self._find_lr(config, images), seconds)

    def _in_time(self, facts: Iterator[Trial | Finding], seconds: float) -> Iterator[Trial | Finding]:
        begin, most = time.monotonic(), min(seconds, self.limits.seconds)
        with closing(facts):
            for fact in facts:
                yield fact
                if time.monotonic() - begin > most and isinstance(fact, Trial):
                    raise UserError("The search takes too long here; a smaller batch_size or zero_grad_every helps.")

    def check_room(self, visitor: str, num_runs: int) -> None:
        """Raises ValueError if a visitor would have more runs than the limit."""
        kept, most = len(self.runs_of(visitor)), self.limits.runs
        if kept + num_runs > most:
            raise UserError(
                "Up to {most} runs are kept for you here, and there are {kept}: delete some first.",
                most=f"{most:g}",
                kept=kept,
            )

    def stop(self, visitor: str) -> None:
        """Asks the visitor's trainings, running or waiting for their turn, to end at their next event."""
        self._stops.pop(checked_visitor(visitor), None)
        self._stops[visitor] = time.monotonic()
        if len(self._stops) > _MOST_STOPS:
            del self._stops[next(iter(self._stops))]

    def is_stopped(self, visitor: str, requested_at: float) -> bool:
        """Whether Stop was pressed after a training was requested, at `requested_at` in seconds of `time.monotonic`."""
        return self._stops.get(visitor, -1.0) >= requested_at

    def new_race(self, visitor: str, num_runs: int) -> list[Path]:
        """Makes folders for a visitor's new runs, of one race; raises ValueError if the disk refuses."""
        owner = _digest(checked_visitor(visitor))
        self.check_room(visitor, num_runs)
        folders = [self.new_run() for _ in range(num_runs)]
        try:
            for place, folder in enumerate(folders):
                folder.mkdir(parents=True)
                (folder / RACE).write_text(f"{folders[0].name} {place}")
                (folder / OWNER).write_text(owner)  # last: from now on another process may list the run
        except OSError as error:
            for folder in folders:
                run_folder.discard_unused(folder)
            raise UserError(
                "No run can be kept here: {reason}.", reason=(error.strerror or "the disk refused").lower()
            ) from None
        for place, folder in enumerate(folders):
            self._index.add(owner, OwnRun(folder, folders[0].name, place))
        return folders

    def new_run(self) -> Path:
        """The folder for a run without an owner, not made yet."""
        return self.checkpoints / run_folder.new_key()

    def all_runs(self) -> list[Path]:
        """The folders of everybody's runs, also of those that have not begun; not what comes with the app."""
        try:
            return [folder for folder in self.checkpoints.iterdir() if is_key(folder.name)]
        except OSError:  # there is no such folder, or not now
            return []

    def runs_of(self, visitor: str | None) -> list[Path]:
        """The folders of a visitor's runs, the latest first."""
        return [run.folder for run in self._own_runs(visitor)]

    def races_of(self, visitor: str | None) -> dict[str, list[Path]]:
        """The visitor's races by key, the latest first: the folders of each in their places. A run alone is a race."""
        races: dict[str, dict[Path, int]] = {}
        for run in self._own_runs(visitor):
            races.setdefault(run.race, {})[run.folder] = run.index
        return {key: sorted(places, key=places.get) for key, places in races.items()}

    def _own_runs(self, visitor: str | None) -> list[OwnRun]:
        return self._index.runs_of(_digest(visitor)) if is_key(visitor) else []

    def own_race(self, visitor: str | None, key: str | None) -> list[Path]:
        """The folders of a visitor's own race; ValueError for anyone else's, without a hint that it exists."""
        folders = self.races_of(visitor).get(key) if is_key(key) else None
        if not folders:
            raise UserError("There is no such run among yours; it may have been deleted.")
        return folders

    def own_run(self, visitor: str | None, key: str | None) -> Path:
        """The folder of a visitor's own run; ValueError as of `own_race`."""
        folder = self.checkpoints / key if is_key(key) else None
        if folder is None or not is_key(visitor) or read(folder / OWNER) != _digest(visitor):
            raise UserError("There is no such run among yours; it may have been deleted.")
        return folder

    def checkpoint(self, name: str | None) -> Path:
        """The folder of a run's key or of a bundled checkpoint's name; raises ValueError if there is none."""
        if is_key(name) and (self.checkpoints / name).is_dir():
            return self.checkpoints / name
        if name in bundled():
            return BUNDLED / name
        raise UserError("There is no such checkpoint: choose a run's key or one that comes with the app.")

    def _load(self) -> None:
        self._index.refresh()  # before the first page asks for it
        try:
            self.images = load_images(progress=lambda fraction, doing: setattr(self, "loading", (fraction, doing)))
        except ValueError as error:
            self.failure = str(error)
        except Exception:
            _logger.exception("Loading the images went wrong.")
            self.failure = "Loading them went wrong; the app's log says more."
        if self.failure:
            _logger.error(self.failure)
        else:
            _logger.info(self.images.note)


def new_visitor() -> str:
    """A key for a browser that has none yet: 128 random bits."""
    return secrets.token_hex(16)


def checked_visitor(value: Any) -> str:
    """The visitor's key; raises ValueError if a request contains something else."""
    if not is_key(value):
        raise UserError("This browser is not known here: reload the page.")
    return value


def bundled() -> list[str]:
    """The names of the checkpoints that come with the app, of those it was given, the best one first."""
    return [name for name in ("fast", "quick") if (BUNDLED / name / "config.json").exists()]


def _digest(visitor: str) -> str:
    return hashlib.sha256(visitor.encode()).hexdigest()
