"""The tutorial's loop in plain torch, with pictures in memory; and what the other peers on torch share with it."""

import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers.task import BATCH_SIZE, LR, MOMENTUM, Epochs, Task, serve
from trainer.networks.architectures import quick


def epochs(task: Task) -> Epochs:
    network, pictures = first_network(task), training_pictures(task)
    loader = DataLoader(pictures, batch_size=BATCH_SIZE, shuffle=True)
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM)
    while True:
        start = time.perf_counter()
        for images, labels in loader:
            loss = loss_function(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        yield time.perf_counter() - start, test_loss(network, task)


def first_network(task: Task) -> nn.Module:
    """Returns the network with the first weights."""
    network = quick(len(task.weights["linear2.bias"]), task.images.shape[1], "relu")
    network.load_state_dict({name: torch.from_numpy(values) for name, values in task.weights.items()})
    return network


def training_pictures(task: Task) -> TensorDataset:
    """Returns pairs of a picture, float32 [3, size, size], and its label."""
    return TensorDataset(_channels_first(task.images), torch.from_numpy(task.labels))


def test_loss(network: nn.Module, task: Task) -> float:
    """Returns the network's loss on the test pictures."""
    with torch.inference_mode():
        return task.loss(network(_channels_first(task.test_images)).numpy())


def _channels_first(images) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


if __name__ == "__main__":
    serve(epochs)
