"""Lightning, by `Trainer.fit`."""

import time

import lightning
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks.peers.task import BATCH_SIZE, LR, MOMENTUM, Epochs, Task, serve
from benchmarks.peers.tutorial import first_network, test_loss, training_pictures


class _Quick(lightning.LightningModule):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network = first_network(task)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=LR, momentum=MOMENTUM)
        self.started = self.seconds = 0.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer  # the same one in each fit, so that it keeps its momentum

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        return functional.cross_entropy(self.network(images), labels)

    def on_train_epoch_start(self) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self) -> None:
        self.seconds = time.perf_counter() - self.started


def epochs(task: Task) -> Epochs:
    module = _Quick(task)
    loader = DataLoader(training_pictures(task), batch_size=BATCH_SIZE, shuffle=True)
    while True:
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(module, loader)
        yield module.seconds, test_loss(module.network, task)


if __name__ == "__main__":
    serve(epochs)
