"""The learning-rate schedule of a config, as points for a chart."""

from dataclasses import replace

from trainer.images.image_data import ImageData
from trainer.learning.schedulers import preview
from trainer.learning.training_set import batches_per_epoch
from trainer.settings.config import TrainConfig

MOST_BATCHES = 100_000  # of a run whose schedule is computed: more would take seconds


def planned_lrs(config: TrainConfig, images: ImageData | None) -> list[tuple[float, float]]:
    """The schedule as (epochs passed, lr), with a point per epoch if lr changes once an epoch, else one per batch.

    Empty for a run of more than MOST_BATCHES batches. Without images, which may still be loading, it is the schedule on
    CIFAR-10.
    """
    per_epoch = batches_per_epoch(config, images)
    if config.scheduler_unit == "epoch":
        points = [(step - 1, lr) for step, lr in preview(replace(config, zero_grad_every=1), batches_per_epoch=1)]
        return [*points, (config.epochs, points[-1][1])]
    if config.epochs * per_epoch > MOST_BATCHES:
        return []
    return [((step - 1) / per_epoch, lr) for step, lr in preview(config, batches_per_epoch=per_epoch)]
