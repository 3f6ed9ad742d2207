"""Jobs for a GPU that is borrowed for a declared number of seconds: a measurement, a slice of a race, other work.

A job runs in another process, which runs other visitors' jobs before and after it. Jobs and their events are therefore
plain data and bytes; the process maps the images from their file, and keeps nothing else.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trainer.images.batches import images_per_batch
from trainer.images.image_data import ImageData
from trainer.jobs.pace import Pace
from trainer.jobs.work import Classification, ImageFile, Landscape, RunState, Search, Sharpness, Timing, images_on
from trainer.learning.lr_finder import num_trials
from trainer.learning.race import race
from trainer.learning.training_set import num_training_images
from trainer.runs.events import EpochEnded, Event, Finished
from trainer.settings.config import TrainConfig

# Seconds to declare for a measurement: long enough for a device that starts slowly, shorter if the quota demands it.
LONGEST_MEASUREMENT, SHORTEST_MEASUREMENT = 15, 8
# The declared duration includes starting the process and the device, and loading the images.
START_SECONDS = 5
_MARGIN = 1.25  # factor on estimated seconds: other processes can slow the device down
# The sharpness of an epoch takes up to twenty products with the Hessian, each as long as three training batches.
_BATCHES_OF_AN_EPOCH = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The first event of every job: the device is available."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """The last event of a job that cannot be run, with the reason as a sentence for the user."""

    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement(Timing):
    """A measurement of the pace of a config, for a declared duration of `seconds`."""

    seconds: int = LONGEST_MEASUREMENT


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
        images = images_on(self.images, device)
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


Whole = Search | Landscape | Sharpness | Classification
"""Work that is not cut into slices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """Work that is done as a whole, for a declared duration of `seconds`."""

    work: Whole
    seconds: int

    def run(self, device: torch.device) -> Iterator[Any]:
        """Yields the events of the work."""
        yield from self.work.run(device)


Job = Measurement | Slice | Timed


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


def timed(work: Whole, pace: Pace, images: ImageData) -> Timed:
    """Returns the work with a duration that is enough for it, at the pace of its config."""
    match work:
        case Search():
            seconds = num_trials(work.config) * pace.batch_seconds
        case Landscape():
            num_evaluated = len(work.grid.xs) * len(work.grid.ys) * work.num_images
            seconds = num_evaluated * pace.test_seconds / len(images.test.labels)
        case Sharpness():
            num_trained = _BATCHES_OF_AN_EPOCH * len(work.measured.snapshots.epochs) * work.num_images
            size = images_per_batch(num_training_images(work.config, images), work.config)
            seconds = num_trained * pace.batch_seconds / size
        case Classification():
            seconds = pace.test_seconds
    return Timed(work=work, seconds=seconds_to_declare(seconds))


def seconds_to_declare(working_seconds: float) -> int:
    """Returns the duration to declare for a job whose work takes `working_seconds` after its start."""
    return math.ceil(START_SECONDS + _MARGIN * working_seconds)
