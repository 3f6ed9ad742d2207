"""fastai, by `Learner.fit`."""

import time
from functools import partial

from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import SGD
from torch import nn
from torch.utils.data import Subset

from benchmarks.peers.task import BATCH_SIZE, LR, MOMENTUM, Epochs, Task, serve
from benchmarks.peers.tutorial import first_network, test_loss, training_pictures


class _Stopwatch(Callback):
    """Measures the training of an epoch, without its validation."""

    started = seconds = 0.0

    def before_train(self) -> None:
        self.started = time.perf_counter()

    def after_train(self) -> None:
        self.seconds = time.perf_counter() - self.started


def epochs(task: Task) -> Epochs:
    pictures, stopwatch = training_pictures(task), _Stopwatch()
    few = Subset(pictures, range(BATCH_SIZE))  # to validate on, which fastai cannot do without
    learner = Learner(
        DataLoaders.from_dsets(pictures, few, bs=BATCH_SIZE, num_workers=0, device="cpu"),
        first_network(task),
        loss_func=nn.CrossEntropyLoss(),
        opt_func=partial(SGD, mom=MOMENTUM),
        lr=LR,
        cbs=stopwatch,
    )
    while True:
        with learner.no_logging():
            learner.fit(1)
        yield stopwatch.seconds, test_loss(learner.model, task)


if __name__ == "__main__":
    serve(epochs)
