"""What a node of a Ray cluster does with some work."""

import pickle
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from trainer.errors import UserError
from trainer.images.image_data import ImageData, facts, from_pictures, to_pictures
from trainer.images.readers import Pictures
from trainer.jobs.schedule import Schedule, Turn
from trainer.jobs.work import Race, Work
from trainer.jobs.worker import explained
from trainer.learning.device import set_up_process
from trainer.networks.pretrained import bundled_network, receive_networks
from trainer.settings.config import SPLITS


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredImages:
    """The images of some work in Ray's object store, of which each node has one copy in shared memory."""

    digest: str
    reference: Any = field(default=None, compare=False)

    def open(self) -> ImageData:
        """Returns the images in the memory of the object store. Raises UserError if they were damaged on the way."""
        import ray

        origin, class_names, arrays = ray.get(self.reference)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of read-only memory; images are only read
            (train, train_labels), (test, test_labels) = (map(torch.from_numpy, arrays[split]) for split in SPLITS)
        pictures = Pictures(origin["name"], class_names, (train, train_labels), (test, test_labels))
        images = from_pictures(pictures, source=origin["source"], revision=origin["revision"])
        if images.digest != self.digest:
            raise UserError("The pictures were damaged on their way to a node of the Ray cluster.")
        return images


def storable(images: ImageData) -> Any:
    """Returns what `StoredImages.open` expects in the object store: NumPy arrays, which Ray maps on the nodes."""
    pictures = to_pictures(images)
    arrays = {split: tuple(tensor.numpy() for tensor in getattr(pictures, split)) for split in SPLITS}
    return facts(images), images.class_names, arrays


def packed(work: Work) -> bytes:
    """Returns the work for `turns_of`, without the place of its images on this machine.

    It includes the networks from whose convolutions it starts, because a node has only the library. Raises UserError if
    there are none here.
    """
    configs = [state.config for state in work.states] if isinstance(work, Race) else [work.config]
    networks = {config.model: bundled_network(config.model) for config in configs if config.pretrained != "none"}
    return pickle.dumps((replace(work, images=StoredImages(digest=work.images.digest)), networks))


def turns_of(work: bytes, images: Any, device: str) -> Iterator[Turn]:
    """Yields the turns of packed work with the images that a reference leads to.

    On a CPU it computes in one thread, like one of several workers of a sweep on one machine.
    """
    if device == "cpu":
        torch.set_num_threads(1)
    set_up_process(torch.device(device))
    unpacked: Work
    unpacked, networks = pickle.loads(work)  # noqa: S301 - from the process that started the task
    receive_networks(networks)
    stored = StoredImages(digest=unpacked.images.digest, reference=images)
    schedule = Schedule()
    schedule.add(0, replace(unpacked, images=stored).run(torch.device(device)))
    while len(schedule):
        yield explained(schedule.turn())
