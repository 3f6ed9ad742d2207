"""Jobs for a GPU that is borrowed for a declared number of seconds: a measurement, a slice of a race, an lr search.

A job runs in another process, which runs other visitors' jobs before and after it. Jobs and their events are therefore
plain data and bytes; the process maps the images from their file, and keeps nothing else.
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

# Seconds to declare for a measurement: long enough for a device that starts slowly, shorter if the quota demands it.
LONGEST_MEASUREMENT, SHORTEST_MEASUREMENT = 15, 8
# The declared duration includes starting the process and the device, and loading the images.
START_SECONDS = 5
_MARGIN = 1.25  # factor on estimated seconds: other processes can slow the device down


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The first event of every job: the device is available."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """The last event of a job that cannot be run, with the reason as a sentence for the user."""

    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """The app's images as part of a job: the file to map them from, and its digest."""

    path: Path
    digest: str

    @classmethod
    def of(cls, images: ImageData) -> "ImageFile":
        """Returns the file of `images`. Raises UserError if they are not in a file."""
        if images.path is None:
            raise UserError("The pictures could not be saved on the disk, and the GPU can read them only from there.")
        return cls(path=images.path, digest=images.digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """The state of a contender between two slices: its config, and the events of the last epoch that has ended.

    `ended` and `ready` are None before epoch 0 has ended.
    """

    config: TrainConfig
    ended: EpochEnded | None = None
    ready: CheckpointReady | None = None

    @classmethod
    def of(cls, config: TrainConfig, checkpoint: Checkpoint | None) -> "RunState":
        """Returns the state of a contender that starts from `checkpoint`, if any."""
        if checkpoint is None:
            return cls(config=config)
        ready = CheckpointReady(
            epoch=checkpoint.epoch,
            model_config={},
            model=_to_bytes(checkpoint.weights),
            training=_to_bytes(checkpoint.tensors),
            state=dict(checkpoint.state),
        )
        return cls(config=config, ended=checkpoint.history[-1], ready=ready)

    @property
    def epochs_left(self) -> int:
        """The number of epochs still to train."""
        return self.config.epochs - (self.ready.epoch if self.ready else 0)

    def checkpoint(self) -> Checkpoint | None:
        """Returns the checkpoint that `train` resumes from; None if no epoch has ended."""
        if self.ready is None or self.ended is None:
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
    """Measures the pace of a config."""

    images: ImageFile
    config: TrainConfig
    seconds: int = LONGEST_MEASUREMENT

    def run(self, device: torch.device) -> Iterator[Pace]:
        """Yields the Pace."""
        yield measure(self.config, _open_images(self.images), device=device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """A part of a race, for a declared duration of `seconds`; each contender stops at the end of an epoch.

    `states` and `paces` have the same keys: the indices of the contenders in the race.
    """

    images: ImageFile
    states: Mapping[int, RunState]
    paces: Mapping[int, Pace]
    seconds: int

    def run(self, device: torch.device) -> Iterator[tuple[int, Event]]:
        """Yields the events of `race`, with the indices of `states`. Each contender trains at least one epoch.

        The next slice resumes contenders with epochs left exactly, from their last CheckpointReady.
        """
        started = time.perf_counter()
        images = _open_images(self.images)
        indices = list(self.states)
        epoch_seconds = {index: self.paces[index].epoch_seconds(self.states[index].config, images) for index in indices}

        def pause(position: int) -> bool:
            # If this contender continues, each contender may train one more epoch before all can be paused.
            seconds_left = self.seconds - START_SECONDS - (time.perf_counter() - started)
            if _MARGIN * sum(epoch_seconds.values()) <= seconds_left:
                return False
            del epoch_seconds[indices[position]]
            return True

        contenders = [(state.config, state.checkpoint()) for state in self.states.values()]
        for position, event in race(contenders, images, device=device, pause=pause):
            index = indices[position]
            if isinstance(event, EpochEnded) and event.epoch > 0:
                epoch_seconds[index] = event.seconds
            elif isinstance(event, Finished):
                del epoch_seconds[index]
            yield index, event


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """A learning-rate range test."""

    images: ImageFile
    config: TrainConfig
    seconds: int

    def run(self, device: torch.device) -> Iterator[Trial | Finding]:
        """Yields the events of `find_lr`."""
        yield from find_lr(self.config, _open_images(self.images), device=device)


Job = Measurement | Slice | Search


def gpu_seconds(job: Job) -> int:
    """Returns the duration to declare for a job, in whole seconds."""
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
    """Returns a measurement of `config` that declares `longest` seconds, limited to 8–15."""
    seconds = max(SHORTEST_MEASUREMENT, min(LONGEST_MEASUREMENT, math.floor(longest)))
    return Measurement(images=ImageFile.of(images), config=config, seconds=seconds)


def next_slice(states: Mapping[int, RunState], paces: Mapping[int, Pace], images: ImageData, longest: float) -> Slice:
    """Returns the next slice of a race: all remaining epochs, or as many as fit in `longest` seconds.

    Its duration exceeds `longest` if one epoch of each contender takes longer.
    """
    epoch_seconds = {index: pace.epoch_seconds(states[index].config, images) for index, pace in paces.items()}
    all_epochs = seconds_to_declare(sum(epoch_seconds[index] * state.epochs_left for index, state in states.items()))
    one_epoch = seconds_to_declare(sum(epoch_seconds[index] for index in states))
    return Slice(
        images=ImageFile.of(images),
        states=dict(states),
        paces=dict(paces),
        seconds=max(one_epoch, min(all_epochs, math.floor(longest))),
    )


def search(config: TrainConfig, pace: Pace, images: ImageData) -> Search:
    """Returns the range test of `config`, with a duration that is enough for its batches."""
    seconds = seconds_to_declare(num_trials(config) * pace.batch_seconds)
    return Search(images=ImageFile.of(images), config=config, seconds=seconds)


def seconds_to_declare(working_seconds: float) -> int:
    """Returns the duration to declare for a job whose work takes `working_seconds` after its start."""
    return math.ceil(START_SECONDS + _MARGIN * working_seconds)


@functools.lru_cache(maxsize=1)
def _open_images(file: ImageFile) -> ImageData:
    """Returns the app's images. Only these stay in the process between jobs, because all visitors share them."""
    images = open_images(file.path)
    if images.digest != file.digest:
        raise UserError("The file of the pictures has changed since the app started.")
    return images


def _to_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})
