"""Work that runs in another process: a race, a search, a look inside, or a timing, described by plain data and bytes.

The process maps the images from their cache file, so a description stays small whatever the number of images.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load, save

from trainer.errors import UserError
from trainer.images.image_data import ImageData, open_images, to_device
from trainer.insight import landscape, sharpness
from trainer.insight.landscape import Grid, PointEvaluated, training_sample
from trainer.insight.mistakes import Answering, answer
from trainer.insight.sharpness import Measured, ProductComputed, SharpnessMeasured
from trainer.jobs.pace import Pace, measure
from trainer.learning.checkpoint import Checkpoint
from trainer.learning.lr_finder import Finding, Trial, find_lr
from trainer.learning.race import Contender, TimeLimit, limit_time, race
from trainer.networks.model import OptimizerLabModel
from trainer.progress import Steps
from trainer.runs.events import CheckpointReady, EpochEnded, Event
from trainer.runs.run import Curve
from trainer.settings.config import TrainConfig

_MOST_SETS = 4  # of images in the process; a training keeps its own


class Images(Protocol):
    """Where the process that trains finds the images."""

    def __hash__(self) -> int:
        """Returns the same number for the same images."""

    @property
    def digest(self) -> str:
        """The digest that the images must have."""

    def open(self) -> ImageData:
        """Returns the images, not copied. Raises UserError if they are damaged or gone."""


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

    def open(self) -> ImageData:
        """Returns the images, mapped from the file."""
        try:
            return open_images(self.path)
        except FileNotFoundError as error:  # of a visitor's own, while the work has waited for its turn
            raise UserError("The pictures were deleted before they could be read.") from error


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
    """A race, or a single training, to its end or until it has had the time of its `limit`.

    `served_before` is the machine's time, in seconds, that earlier parts of the same job have had: in a schedule, it
    counts as if this part had had it.
    """

    images: Images
    states: Sequence[RunState]
    limit: TimeLimit | None = None
    served_before: float = 0.0

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

    images: Images
    config: TrainConfig

    @classmethod
    def of(cls, config: TrainConfig, images: ImageData) -> "Search":
        """Returns the range test of `config`. Raises UserError if the images are not in a file."""
        return cls(images=ImageFile.of(images), config=config)

    def run(self, device: torch.device) -> Iterator[Trial | Finding]:
        """Yields the events of `find_lr`."""
        yield from find_lr(self.config, images_on(self.images, device), device=device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Landscape:
    """The loss over a grid, on a sample of the pictures that `config` trains on."""

    images: Images
    config: TrainConfig
    grid: Grid
    num_images: int

    def run(self, device: torch.device) -> Iterator[PointEvaluated]:
        """Yields the points of the grid, coarse first."""
        split = training_sample(self.config, images_in(self.images), self.num_images)
        yield from landscape.evaluate(self.grid, split, device=device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharpness:
    """The sharpness at some epochs, on a sample of the pictures that `config` trains on."""

    images: Images
    config: TrainConfig
    measured: Measured
    num_images: int

    def run(self, device: torch.device) -> Iterator[ProductComputed | SharpnessMeasured]:
        """Yields the sharpness at each epoch, and the progress in between."""
        split = training_sample(self.config, images_in(self.images), self.num_images)
        yield from sharpness.measure(self.measured, split, device=device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Classification:
    """The answers of a network for the test pictures; `config` has the settings that its pace depends on."""

    images: Images
    config: TrainConfig
    model_config: Mapping[str, Any]
    weights: bytes

    @classmethod
    def of(cls, model: OptimizerLabModel, images: ImageData) -> "Classification":
        """Returns the classification by `model`. Raises UserError if the images are not in a file."""
        return cls(
            images=ImageFile.of(images),
            config=TrainConfig(model=model.config["architecture"]),
            model_config=model.config,
            weights=_to_bytes(model.state_dict()),
        )

    def run(self, device: torch.device) -> Iterator[Answering]:
        """Yields the progress and the answers."""
        model = OptimizerLabModel(**self.model_config)
        model.load_state_dict(load(self.weights))
        steps = Steps(answer(model.to(device).eval(), images_in(self.images)))
        for fraction in steps:
            if fraction < 1:
                yield Answering(fraction=fraction)
        yield Answering(fraction=1.0, answers=steps.value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """A measurement of the pace of a config."""

    images: Images
    config: TrainConfig

    def run(self, device: torch.device) -> Iterator[Pace]:
        """Yields the pace. Raises UserError if the config does not fit the images."""
        yield measure(self.config, images_on(self.images, device), device=device)


Work = Race | Search | Landscape | Sharpness | Classification | Timing


@functools.lru_cache(maxsize=_MOST_SETS)
def images_in(place: Images) -> ImageData:
    """Returns the images. They stay in the process until _MOST_SETS others have been used.

    Raises UserError if they have changed since the app started.
    """
    images = place.open()
    if images.digest != place.digest:
        raise UserError("The file of the pictures has changed since the app started.")
    return images


@functools.lru_cache(maxsize=_MOST_SETS)
def images_on(place: Images, device: torch.device) -> ImageData:
    """Returns the images on the device, where all trainings share them."""
    images = images_in(place)
    return replace(images, train=to_device(images.train, device), test=to_device(images.test, device))


def _to_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})
