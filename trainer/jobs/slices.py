"""Work for a GPU that is lent by the second, in jobs of a declared duration.

Each job is done in another process, which may have served somebody else before and will again: what goes in and what
comes out is plain data and bytes, the images are mapped there from their file, and nothing else is kept.
"""

import functools
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from trainer.errors import UserError
from trainer.images.image_data import ImageData, open_images
from trainer.jobs.pace import Pace, measure
from trainer.learning.checkpoint import Checkpoint
from trainer.learning.lr_finder import Finding, Trial, find_lr, num_trials
from trainer.learning.race import race
from trainer.runs.events import CheckpointReady, EpochEnded, Event, Finished
from trainer.runs.run import Curve
from trainer.settings.config import TrainConfig

# Seconds to declare: the longer suits a device that is slow to start, the shorter a quota that has no more left.
LONGEST_MEASUREMENT, SHORTEST_MEASUREMENT = 15, 8
# A new process, the device's own start and the images' way to it come out of the declared duration as well.
START_SECONDS = 5
_MARGIN = 1.25  # of what an epoch takes: others use the device too


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The first thing that comes from a piece of work: the device is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """The last thing that comes from work that cannot be done: a sentence for whoever asked for it."""

    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """The app's images, as they cross: the file that they are mapped from, and what must be in it."""

    path: Path
    digest: str

    @classmethod
    def of(cls, images: ImageData) -> "ImageFile":
        """ValueError where they are in no file."""
        if images.path is None:
            raise UserError("The disk has not kept the pictures, and the GPU can read them only from there.")
        return cls(path=images.path, digest=images.digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """A contender between two slices: its settings and, once an epoch has ended, all that the next one needs."""

    config: TrainConfig
    ended: EpochEnded | None = None
    ready: CheckpointReady | None = None

    @classmethod
    def of(cls, config: TrainConfig, kept: Checkpoint | None) -> "RunState":
        """The contender as a race takes it, made ready to cross."""
        if kept is None:
            return cls(config=config)
        ready = CheckpointReady(
            epoch=kept.epoch,
            model_config={},
            model=_bytes(kept.weights),
            training=_bytes(kept.tensors),
            state=dict(kept.state),
        )
        return cls(config=config, ended=kept.history[-1], ready=ready)

    @property
    def epochs_left(self) -> int:
        """Epochs that it has still to train."""
        return self.config.epochs - (self.ready.epoch if self.ready else 0)

    def checkpoint(self) -> Checkpoint | None:
        """What `train` resumes from; None for a contender that has not begun."""
        if self.ready is None:
            return None
        return Checkpoint(
            config=self.config,
            data={},
            history=(self.ended,),
            weights=load(self.ready.model),
            tensors=load(self.ready.training),
            state=self.ready.state,
            curve=Curve(),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Finds out the pace of one setting."""

    images: ImageFile
    config: TrainConfig
    seconds: int = LONGEST_MEASUREMENT

    def run(self, device: torch.device) -> Iterator[Pace]:
        """Yields the Pace, and nothing else."""
        yield measure(self.config, _mapped(self.images), device=device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """A part of a race, as long as declared: ends for each contender, by its place, where an epoch ends."""

    images: ImageFile
    states: Mapping[int, RunState]
    paces: Mapping[int, Pace]
    seconds: int

    def run(self, device: torch.device) -> Iterator[tuple[int, Event]]:
        """Yields the events of `race`; every contender trains an epoch at least, and as many more as there is time for.

        Who has epochs left in the end is resumed exactly by another slice, from its last CheckpointReady.
        """
        begun = time.perf_counter()
        images = _mapped(self.images)
        places = list(self.states)
        epoch_seconds = {place: self.paces[place].epoch_seconds(self.states[place].config, images) for place in places}

        def pause(at: int) -> bool:
            # Whoever goes on, the others end the epoch that they are in: all of it together is a round at most.
            time_left = self.seconds - START_SECONDS - (time.perf_counter() - begun)
            if _MARGIN * sum(epoch_seconds.values()) <= time_left:
                return False
            del epoch_seconds[places[at]]
            return True

        contenders = [(state.config, state.checkpoint()) for state in self.states.values()]
        for at, event in race(contenders, images, device=device, pause=pause):
            if isinstance(event, EpochEnded) and event.epoch > 0:
                epoch_seconds[places[at]] = event.seconds
            elif isinstance(event, Finished):
                del epoch_seconds[places[at]]
            yield places[at], event


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """A learning-rate range test."""

    images: ImageFile
    config: TrainConfig
    seconds: int

    def run(self, device: torch.device) -> Iterator[Trial | Finding]:
        """Yields what `find_lr` yields."""
        yield from find_lr(self.config, _mapped(self.images), device=device)


Job = Measurement | Slice | Search


def gpu_seconds(job: Job) -> int:
    """The duration to declare for a piece of work, in whole seconds."""
    return job.seconds


def run_job(job: Job, device: torch.device) -> Iterator[Any]:
    """Runs the job on the device: yields Started, the job's own events and, in place of a ValueError, Refused."""
    yield Started()
    try:
        yield from job.run(device)
    except ValueError as error:
        yield Refused(sentence=str(error))
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def measurement(config: TrainConfig, images: ImageData, longest: float) -> Measurement:
    """A measurement of `config`'s pace, in `longest` seconds if that is enough for any."""
    seconds = max(SHORTEST_MEASUREMENT, min(LONGEST_MEASUREMENT, math.floor(longest)))
    return Measurement(images=ImageFile.of(images), config=config, seconds=seconds)


def next_slice(states: Mapping[int, RunState], paces: Mapping[int, Pace], images: ImageData, longest: float) -> Slice:
    """The next slice of a race: all that is left where that fits in `longest` seconds, else as much as does.

    It is longer than `longest` where a single epoch of every contender is.
    """
    epoch_seconds = {place: pace.epoch_seconds(states[place].config, images) for place, pace in paces.items()}
    needed = seconds_to_declare(sum(epoch_seconds[place] * state.epochs_left for place, state in states.items()))
    least = seconds_to_declare(sum(epoch_seconds[place] for place in states))
    return Slice(
        images=ImageFile.of(images),
        states=dict(states),
        paces=dict(paces),
        seconds=max(least, min(needed, math.floor(longest))),
    )


def search(config: TrainConfig, pace: Pace, images: ImageData) -> Search:
    """The range test of `config`, with the duration that its batches will take."""
    seconds = seconds_to_declare(num_trials(config) * pace.batch_seconds)
    return Search(images=ImageFile.of(images), config=config, seconds=seconds)


def seconds_to_declare(working_seconds: float) -> int:
    """The duration to declare for work that takes so many seconds once it has begun."""
    return math.ceil(START_SECONDS + _MARGIN * working_seconds)


@functools.lru_cache(maxsize=1)
def _mapped(file: ImageFile) -> ImageData:
    """The app's images, which are everybody's, are all that stays from one piece of work to the next."""
    images = open_images(file.path)
    if images.digest != file.digest:
        raise UserError("The file of the pictures has changed since the app was started.")
    return images


def _bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})
