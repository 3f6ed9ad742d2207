"""The images that a run trains on, those that it keeps aside, and how many batches they make."""

import functools

from torch import Tensor
from torch.nn import functional

from trainer.errors import UserError
from trainer.images.batches import images_per_batch, num_batches
from trainer.images.image_data import ImageData, Split, Statistics, pixel_statistics, select, subset
from trainer.images.readers import CIFAR10_SIZES
from trainer.settings.config import TrainConfig


def training_split(config: TrainConfig, data: ImageData) -> Split:
    """Returns the images that `config` trains on. Raises UserError as `num_training_images` does."""
    num_training_images(config, data)
    return _parts(data, config.train_split, config.num_images, config.holdout)[0]


def holdout_split(config: TrainConfig, data: ImageData) -> Split:
    """Returns the images that `config` keeps aside; none if its holdout is 0.

    They are the same part of each class, and do not depend on the run's seed. Raises UserError as
    `num_training_images` does.
    """
    num_training_images(config, data)
    return _parts(data, config.train_split, config.num_images, config.holdout)[1]


def training_statistics(config: TrainConfig, data: ImageData) -> Statistics:
    """Returns the pixel statistics of the images that `config` trains on."""
    return _statistics(data, config.train_split, config.num_images, config.holdout)


def num_training_images(config: TrainConfig, data: ImageData | None) -> int:
    """Returns the number of images that `config` trains on; `data` None stands for CIFAR-10.

    Raises UserError if num_images or batch_size is larger than the number of images.
    """
    available = CIFAR10_SIZES[config.train_split] if data is None else len(_whole(data, config.train_split).labels)
    if config.num_images > available:
        raise UserError("num_images must not be above the {count} pictures of the split.", count=f"{available:,}")
    chosen = config.num_images or available
    if config.holdout and data is None:
        chosen -= int(chosen * config.holdout)
    elif config.holdout and data is not None:
        chosen = len(_parts(data, config.train_split, config.num_images, config.holdout)[0].labels)
    if config.batch_size > chosen:
        raise UserError("batch_size must not be above the {count} pictures to train on.", count=f"{chosen:,}")
    return chosen


def batches_per_epoch(config: TrainConfig, data: ImageData | None) -> int:
    """Returns the number of batches in an epoch. `data` and the errors are as for `num_training_images`."""
    return num_batches(num_training_images(config, data), config)


def images_per_epoch(config: TrainConfig, data: ImageData | None) -> int:
    """Returns the number of images in an epoch's batches: without those that `drop_last` leaves out."""
    number = num_training_images(config, data)
    return min(number, num_batches(number, config) * images_per_batch(number, config))


def is_held_out(labels: Tensor, share: float) -> Tensor:
    """Returns which of the images with these labels, int64 [n], are kept aside, bool [n].

    They are the same `share` of each class, rounded (a half down, so that a class keeps its only image), evenly spaced
    among its images.
    """
    # The number of an image within its class, counted from 1.
    number = functional.one_hot(labels).cumsum(0).gather(1, labels[:, None])[:, 0].double()
    return (number * share + 0.49).floor() > ((number - 1) * share + 0.49).floor()


def _whole(data: ImageData, train_split: str) -> Split:
    return {"train": data.train, "test": data.test}[train_split]


# The copies are as large as the images, and the runs of a race or of a sweep share them.
@functools.lru_cache(maxsize=2)
def _parts(data: ImageData, train_split: str, num_images: int, holdout: float) -> tuple[Split, Split]:
    """Returns the images to train on and those to keep aside."""
    chosen = subset(_whole(data, train_split), num_images)
    if not holdout:
        return chosen, Split(images=chosen.images[:0], labels=chosen.labels[:0])
    held_out = is_held_out(chosen.labels, holdout)
    return select(chosen, ~held_out), select(chosen, held_out)


@functools.lru_cache(maxsize=4)
def _statistics(data: ImageData, train_split: str, num_images: int, holdout: float) -> Statistics:
    """Half a second's work that many runs on the same images share."""
    return pixel_statistics(_parts(data, train_split, num_images, holdout)[0])
