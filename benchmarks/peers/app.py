"""The app's own training."""

from dataclasses import replace

from benchmarks.peers.task import BATCH_SIZE, LR, MOMENTUM, Epochs, Task, serve
from trainer.images.image_data import load_images, subset
from trainer.learning.device import keep_freed_memory
from trainer.learning.loop import train
from trainer.runs.events import EpochEnded
from trainer.settings.config import TrainConfig

_ENDLESS = 1000  # epochs


def config(num_images: int) -> TrainConfig:
    """Returns the settings of the task."""
    return TrainConfig(
        model="quick",
        optimizer="sgd",
        scheduler="constant",
        flip=False,
        shift=0,
        lr=LR,
        momentum=MOMENTUM,
        weight_decay=0.0,
        batch_size=BATCH_SIZE,
        epochs=_ENDLESS,
        num_images=num_images,
    )


def epochs(task: Task) -> Epochs:
    keep_freed_memory()  # as the worker and the command line do
    data, count = load_images(task.source), len(task.labels)
    data = replace(data, test=subset(data.test, len(task.test_labels)))
    for event in train(config(count), data):
        if isinstance(event, EpochEnded) and event.epoch:
            assert event.images_per_second
            yield count / event.images_per_second, event.test_loss


if __name__ == "__main__":
    serve(epochs)
