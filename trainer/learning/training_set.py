"""The images that a run trains on, and how many batches they make."""

from trainer.errors import UserError
from trainer.images.batches import num_batches
from trainer.images.image_data import ImageData, Split, subset
from trainer.images.readers import CIFAR10_SIZES
from trainer.settings.config import TrainConfig


def training_split(config: TrainConfig, data: ImageData) -> Split:
    """Returns the images that `config` trains on. Raises UserError as `num_training_images` does."""
    return subset(_chosen_split(config, data), num_training_images(config, data))


def num_training_images(config: TrainConfig, data: ImageData | None) -> int:
    """Returns the number of images that `config` trains on; `data` None stands for CIFAR-10.

    Raises UserError if num_images or batch_size is larger than the number of images.
    """
    available = CIFAR10_SIZES[config.train_split] if data is None else len(_chosen_split(config, data).labels)
    if config.num_images > available:
        raise UserError("num_images must not be above the {count} pictures of the split.", count=f"{available:,}")
    chosen = config.num_images or available
    if config.batch_size > chosen:
        raise UserError("batch_size must not be above the {count} pictures to train on.", count=f"{chosen:,}")
    return chosen


def batches_per_epoch(config: TrainConfig, data: ImageData | None) -> int:
    """Returns the number of batches in an epoch. `data` and the errors are as for `num_training_images`."""
    return num_batches(num_training_images(config, data), config)


def images_per_epoch(config: TrainConfig, data: ImageData | None) -> int:
    """Returns the number of images in an epoch's batches: without those that `drop_last` leaves out."""
    return min(num_training_images(config, data), batches_per_epoch(config, data) * config.batch_size)


def _chosen_split(config: TrainConfig, data: ImageData) -> Split:
    return {"train": data.train, "test": data.test}[config.train_split]
