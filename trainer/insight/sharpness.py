"""Sharpness: the largest eigenvalue of the training loss's Hessian, at the epochs of a run."""

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from trainer.images.image_data import Split, to_device
from trainer.insight.plane import Snapshots, parts_of, set_vector
from trainer.learning.device import explain_out_of_memory
from trainer.learning.learner import frozen_statistics
from trainer.networks.architectures import memory_format
from trainer.networks.model import OptimizerLabModel
from trainer.progress import Steps
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig

NUM_IMAGES = 500
"""The default number of training pictures: a product with the Hessian takes ten times as long as an evaluation."""
MOST_EPOCHS = 40

_TOLERANCE = 0.01  # of the eigenvalue
_MOST_PRODUCTS = 60  # for one epoch
_IMAGES_AT_ONCE = 250

Product = Callable[[Tensor], Tensor]
"""Returns the product of a symmetric matrix with a vector."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductComputed:
    """Progress: `number` products with the Hessian of this epoch have been computed; `fraction` of the epochs, 0–1."""

    epoch: int
    number: int
    fraction: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SharpnessMeasured:
    """The sharpness of an epoch's network, and `limit`, 2/lr, with the lr of the epoch's last step.

    Gradient descent with all pictures and without momentum is stable where the sharpness is below the limit. `loss` is
    that of the same pictures. All three are None where they are not finite; `limit` also at epoch 0. `fraction` is the
    part of the epochs that is done, 0–1.
    """

    epoch: int
    sharpness: float | None
    limit: float | None
    loss: float | None
    fraction: float


@dataclass(frozen=True, kw_only=True, eq=False)
class RunSharpness:
    """What is known of the sharpness of a run so far."""

    name: str
    config: TrainConfig
    rows: list[SharpnessMeasured] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class Eigenvalue:
    """An eigenvalue, and its eigenvector of norm 1."""

    value: float
    vector: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What to measure: the weights at some epochs, the lr of the last step before each, and the label_smoothing."""

    snapshots: Snapshots
    lrs: tuple[float | None, ...]
    label_smoothing: float

    @classmethod
    def of(cls, run: Run, snapshots: Snapshots) -> "Measured":
        """Returns what to measure of a run."""
        rows = {row.epoch: row for row in run.history}
        lrs = tuple(rows[epoch].lr if epoch in rows else None for epoch in snapshots.epochs)
        return cls(snapshots=snapshots, lrs=lrs, label_smoothing=run.config.label_smoothing)


def measure(
    measured: Measured, split: Split, *, device: str | torch.device = "cpu"
) -> Iterator[ProductComputed | SharpnessMeasured]:
    """Yields the sharpness at each epoch, and the progress in between.

    The loss is the run's own training loss, with its label_smoothing, on the pictures of `split` as they are; weight
    decay is left out. Batch normalisation uses the statistics of 250 pictures at a time. Each search starts from the
    eigenvector of the epoch before, and ends at an error of about 1 %. Raises UserError if the device has too little
    memory.
    """
    device = torch.device(device)
    on_device = to_device(split, device)
    epochs, label_smoothing = measured.snapshots.epochs, measured.label_smoothing
    model = OptimizerLabModel(**measured.snapshots.config)
    model.to(device, memory_format=memory_format(device)).train()  # type: ignore[call-overload]
    num_weights = measured.snapshots.weights.shape[1]
    start = torch.randn(num_weights, generator=torch.Generator().manual_seed(0)).to(device)
    for index, (epoch, lr) in enumerate(zip(epochs, measured.lrs, strict=True)):
        set_vector(model, measured.snapshots.weights[index])
        loss = training_loss(model, on_device, label_smoothing)
        search = Steps(largest_eigenvalue(hessian(model, on_device, label_smoothing), start))
        for number, _ in enumerate(search, 1):
            yield ProductComputed(epoch=epoch, number=number, fraction=index / len(epochs))
        found = search.value
        if math.isfinite(found.value):
            start = found.vector
        yield SharpnessMeasured(
            epoch=epoch,
            sharpness=found.value if math.isfinite(found.value) else None,
            limit=2 / lr if lr else None,
            loss=loss if math.isfinite(loss) else None,
            fraction=(index + 1) / len(epochs),
        )


def stability_limit(config: TrainConfig) -> float | None:
    """Returns the number c for which full-batch steps are stable up to a sharpness of c/lr; None if it is not known.

    It is 2 for gradient descent. Momentum raises it (Cohen et al. 2021, arXiv:2103.00065, appendix B); adaptive
    optimizers have a limit for another matrix (Cohen et al. 2022, arXiv:2207.14484).
    """
    if config.optimizer != "sgd" or config.dampening:
        return None
    momentum = config.momentum or 0.0
    return (2 + 2 * momentum) / (1 + 2 * momentum if config.nesterov else 1)


def training_loss(model: OptimizerLabModel, split: Split, label_smoothing: float = 0.0) -> float:
    """Returns the mean training loss of a model in training mode."""
    with explain_out_of_memory(), torch.no_grad():
        return sum(loss.item() for loss in _losses(model, split, label_smoothing))


def hessian(model: OptimizerLabModel, split: Split, label_smoothing: float = 0.0) -> Product:
    """Returns the product of the Hessian of the mean training loss with a vector, float32 [n].

    The gradient of (gradient · vector) is exactly that product (Pearlmutter 1994, "Fast Exact Multiplication by the
    Hessian"). The model must be in training mode.
    """
    weights = list(model.parameters())

    @explain_out_of_memory()
    def product(vector: Tensor) -> Tensor:
        parts = parts_of(vector, weights)
        total = torch.zeros_like(vector)
        for loss in _losses(model, split, label_smoothing):
            gradients = torch.autograd.grad(loss, weights, create_graph=True)
            # materialize_grads: a last bias, for example, may have no influence on any gradient.
            products = torch.autograd.grad(gradients, weights, parts, materialize_grads=True)
            total += torch.cat([part.reshape(-1) for part in products])
        return total

    return product


def _losses(model: OptimizerLabModel, split: Split, label_smoothing: float) -> Iterator[Tensor]:
    """Yields the loss of a few pictures after another; their sum is the mean loss of all."""
    parts = zip(split.images.split(_IMAGES_AT_ONCE), split.labels.split(_IMAGES_AT_ONCE), strict=True)
    for images, labels in parts:
        with frozen_statistics(model):
            loss = functional.cross_entropy(model(images), labels, label_smoothing=label_smoothing, reduction="sum")
        yield loss / len(split.labels)


def largest_eigenvalue(
    product: Product, start: Tensor, *, tolerance: float = _TOLERANCE, most_products: int = _MOST_PRODUCTS
) -> Generator[None, None, Eigenvalue]:
    """Returns the largest eigenvalue of a symmetric matrix, after yielding once for each product with a vector.

    Lanczos' method with full reorthogonalisation. It ends when the estimate of the relative error, residual² / gap to
    the next eigenvalue (Parlett 1980, "The Symmetric Eigenvalue Problem", section 11.7), is below `tolerance`, or after
    `most_products`. The value is NaN if a product is not finite.
    """
    basis = [start / torch.linalg.vector_norm(start)]
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    while True:
        vector = product(basis[-1])
        yield
        diagonal.append(torch.dot(vector, basis[-1]).item())
        if not math.isfinite(diagonal[-1]):
            return Eigenvalue(value=math.nan, vector=basis[0])
        known = torch.stack(basis)
        for _ in range(2):  # once is not enough in float32
            vector = vector - known.T @ (known @ vector)
        rest = torch.linalg.vector_norm(vector).item()
        values, vectors = torch.linalg.eigh(_tridiagonal(diagonal, off_diagonal))
        largest, gap = values[-1].item(), (values[-1] - values[-2]).item() if len(values) > 1 else 0.0
        residual = rest * abs(vectors[-1, -1].item())
        is_found = residual**2 <= tolerance * abs(largest) * gap or rest <= 1e-6 * abs(largest)
        if is_found or len(diagonal) >= min(most_products, len(start)):
            return Eigenvalue(value=largest, vector=known.T @ vectors[:, -1].to(known))
        off_diagonal.append(rest)
        basis.append(vector / rest)


def _tridiagonal(diagonal: list[float], off_diagonal: list[float]) -> Tensor:
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for index, value in enumerate(off_diagonal):
        matrix[index, index + 1] = matrix[index + 1, index] = value
    return matrix
