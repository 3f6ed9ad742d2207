"""The task of every peer: the same network, from the same weights, on the same pictures, an epoch for each request."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BATCH_SIZE, LR, MOMENTUM = 64, 0.02, 0.9


@dataclass(frozen=True, kw_only=True)
class Task:
    """Pictures, float32 [n, size, size, 3], normalised; labels, int64 [n]; the first weights, in torch's layout.

    `source` is the argument of load_images for the image set of the pictures, which are its first ones.
    """

    source: str
    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    weights: Mapping[str, np.ndarray]

    def loss(self, outputs: np.ndarray) -> float:
        """Returns the mean cross-entropy of the network's outputs, float [n, classes], for the test pictures."""
        shifted = outputs - outputs.max(1, keepdims=True)
        chosen = shifted[np.arange(len(self.test_labels)), self.test_labels]
        return float((np.log(np.exp(shifted).sum(1)) - chosen).mean())


# (seconds of an epoch, loss on the test pictures after it), endlessly
Epochs = Iterator[tuple[float, float]]


def save(task: Task, path: Path) -> None:
    """Writes a task to an .npz file."""
    np.savez(path, **{**vars(task), "weights": np.array(list(task.weights))}, **task.weights)


def load(path: Path) -> Task:
    """Reads a task from an .npz file."""
    with np.load(path) as arrays:
        names = ("images", "labels", "test_images", "test_labels")
        return Task(
            source=str(arrays["source"]),
            weights={str(name): arrays[name] for name in arrays["weights"]},
            **{name: arrays[name] for name in names},
        )


def channels_last(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns weights of `quick` in the layout of TensorFlow and JAX, for pictures [n, height, width, channels]."""
    channels = len(weights["conv3.bias"])
    moved = {}
    for name, values in weights.items():
        if name == "linear1.weight":  # its inputs are those of a flattened [channels, height, width]
            side = round((values.shape[1] / channels) ** 0.5)
            values = values.reshape(-1, channels, side, side).transpose(0, 2, 3, 1).reshape(len(values), -1)
        moved[name] = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T
    return moved


def serve(epochs: Callable[[Task], Epochs]) -> None:
    """Trains an epoch for each line on stdin, and prints its seconds and loss as JSON.

    The command line's only argument is the file of the task.
    """
    results = sys.stdout
    with redirect_stdout(sys.stderr):
        trained = epochs(load(Path(sys.argv[1])))
        for _ in sys.stdin:
            print(json.dumps(next(trained)), file=results, flush=True)
