"""How long a training is likely to take on this machine."""

from collections.abc import Mapping

from trainer.images.image_data import ImageData
from trainer.jobs.pace import Pace
from trainer.learning.training_set import images_per_epoch
from trainer.settings.config import SETTINGS, TrainConfig
from trainer.settings.optimizers import OPTIMIZERS

# On two cores, while the machine's own pace is not known.
_TYPICAL = Pace(batch_seconds=SETTINGS["batch_size"].default / 2500, test_seconds=0.0)
_WORK = {"quick": 1, "fast": 7}  # of a network


def seconds_of(config: TrainConfig, paces: Mapping[str, Pace], images: ImageData | None = None) -> float:
    """How long a run trains, at the pace of its optimizer or, if that is not known, at about that of another one.

    `paces` has those of `quick` by the names of optimizers. Images of None stand for CIFAR-10. Raises UserError if the
    config does not fit the images.
    """
    batches = config.epochs * images_per_epoch(config, images) / SETTINGS["batch_size"].default
    if own := paces.get(config.optimizer):
        return batches * _WORK[config.model] * own.batch_seconds
    steps = 2 if OPTIMIZERS[config.optimizer].is_sharpness_aware else 1
    other = next(iter(paces.values()), _TYPICAL)
    return batches * _WORK[config.model] * steps * other.batch_seconds
