"""Work that runs in another process: a race or a learning-rate search, described by plain data and bytes.

The process maps the images from their cache file, so a description stays small whatever the number of images.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load, save

from trainer.errors import UserError
from trainer.images.image_data import ImageData, open_images, to_device
from trainer.learning.checkpoint import Checkpoint
from trainer.learning.lr_finder import Finding, Trial, find_lr
from trainer.learning.race import Contender, TimeLimit, limit_time, race
from trainer.runs.events import CheckpointReady, EpochEnded, Event
from trainer.runs.run import Curve
from trainer.settings.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """The images of a piece of work: the file to map them from, and their digest."""

    path: Path
    digest: str

    @classmethod
    def of(cls, images: ImageData) -> "ImageFile":
        """Returns the file of `images`. Raises UserError if they are not in a file."""
        if images.path is None:
            raise UserError(
                "The pictures could not be saved on the disk, and the process that trains can read them only from "
                "there."
            )
        return cls(path=images.path.absolute(), digest=images.digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """The state that a contender starts from: its config, and the events of the last epoch that has ended.

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
class Race:
    """A race, or a single training, to its end or until it has had the time of its `limit`."""

    images: ImageFile
    states: Sequence[RunState]
    limit: TimeLimit | None = None

    @classmethod
    def of(cls, contenders: Sequence[Contender], images: ImageData, limit: TimeLimit | None = None) -> "Race":
        """Returns the race of these contenders. Raises UserError if the images are not in a file."""
        states = tuple(RunState.of(*contender) for contender in contenders)
        return cls(images=ImageFile.of(images), states=states, limit=limit)

    def run(self, device: torch.device) -> Iterator[tuple[int, Event]]:
        """Yields the events of `race`, each with the index of its contender."""
        contenders = [(state.config, state.checkpoint()) for state in self.states]
        events = race(contenders, images_on(self.images, device), device=device)
        yield from events if self.limit is None else limit_time(events, len(contenders), self.limit)


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """A learning-rate range test."""

    images: ImageFile
    config: TrainConfig

    @classmethod
    def of(cls, config: TrainConfig, images: ImageData) -> "Search":
        """Returns the range test of `config`. Raises UserError if the images are not in a file."""
        return cls(images=ImageFile.of(images), config=config)

    def run(self, device: torch.device) -> Iterator[Trial | Finding]:
        """Yields the events of `find_lr`."""
        yield from find_lr(self.config, images_on(self.images, device), device=device)


Work = Race | Search


@functools.lru_cache(maxsize=1)
def images_in(file: ImageFile) -> ImageData:
    """Returns the images of the file, mapped. They stay in the process, because everything that runs there uses them.

    Raises UserError if the file has changed since the app started.
    """
    images = open_images(file.path)
    if images.digest != file.digest:
        raise UserError("The file of the pictures has changed since the app started.")
    return images


@functools.lru_cache(maxsize=1)
def images_on(file: ImageFile, device: torch.device) -> ImageData:
    """Returns the images of the file on the device, where all trainings share them."""
    images = images_in(file)
    return replace(images, train=to_device(images.train, device), test=to_device(images.test, device))


def _to_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})
