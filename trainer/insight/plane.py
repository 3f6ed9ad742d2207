"""Planes in the space of a network's weights: through the epochs of runs, or in random directions around a network."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.errors import UserError
from trainer.insight.timeline import MAX_SECONDS_ON_GAPS, Timeline, evenly_spaced
from trainer.networks.model import OptimizerLabModel

# The most networks that a plane is laid through, those of all runs together.
_MOST_POINTS = 120

# The variance outside a line, relative to that along it, below which the rest is rounding.
_LINE = 1e-9

_COLUMNS_AT_ONCE = 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Stop:
    """An epoch of a run, and its place in the plane: the point of the plane that is closest to its weights."""

    epoch: int
    x: float
    y: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """The points origin + x · directions[0] + y · directions[1].

    `origin` is float32 [n] and `directions` float32 [2, n], in the order of the network's parameters; `config` is the
    network's config.json. `paths` has the stops of each run. `share` is the part, 0–1, of the variance of all stops'
    weights that lies in the plane, None if the directions are random. `num_missing` epochs could not be opened.
    """

    config: dict[str, Any]
    origin: Tensor
    directions: Tensor
    paths: tuple[tuple[Stop, ...], ...]
    share: float | None
    num_missing: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshots:
    """The weights of a run's network after some of its epochs, float32 [epochs, n], and its config.json.

    `num_missing` other epochs could not be opened, or have weights that are not finite.
    """

    config: dict[str, Any]
    epochs: tuple[int, ...]
    weights: Tensor
    num_missing: int


def read_snapshots(timeline: Timeline, most: int) -> Snapshots:
    """Returns the weights of up to `most` of a run's epochs, evenly spaced.

    After MAX_SECONDS_ON_GAPS spent on epochs that cannot be opened, no further one is. Raises UserError if there are
    none at all, or if their networks differ.
    """
    config: dict[str, Any] = {}
    chosen = evenly_spaced(timeline.epochs, most)
    weights: dict[int, Tensor] = {}
    seconds_on_gaps, problem = 0.0, UserError("The weights of this run are not finite.")
    for epoch in chosen:
        started_at = time.monotonic()
        try:
            model = timeline.open(epoch)
        except UserError as error:
            problem = error
            seconds_on_gaps += time.monotonic() - started_at
            if seconds_on_gaps > MAX_SECONDS_ON_GAPS:
                break
            continue
        if model.config != (config or model.config):
            raise UserError("The networks of this run's epochs differ.")
        vector = vector_of(model)
        if vector.isfinite().all():
            config, weights[epoch] = model.config, vector
    if not weights:
        raise problem
    return Snapshots(
        config=config,
        epochs=tuple(weights),
        weights=torch.stack(list(weights.values())),
        num_missing=len(chosen) - len(weights),
    )


def vector_of(model: OptimizerLabModel) -> Tensor:
    """Returns a copy of the weights, float32 [n], without the statistics of batch normalisation."""
    return torch.cat([weight.detach().reshape(-1) for weight in model.parameters()])


@torch.no_grad()
def set_vector(model: OptimizerLabModel, vector: Tensor) -> None:
    """Copies a vector of `vector_of` into the weights."""
    weights = list(model.parameters())
    for weight, part in zip(weights, parts_of(vector, weights), strict=True):
        weight.copy_(part)


def parts_of(vector: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Returns the parts of a vector of `vector_of`, each in the shape of its weight."""
    parts = vector.split([weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]


def through_epochs(timelines: Sequence[Timeline]) -> Plane:
    """Returns the plane of the two principal components of all epochs' weights, through the first run's last epoch.

    Li et al. (2018, arXiv:1712.09913, section 7) plot the path of a training in this plane. Raises UserError if the
    runs have different networks, or too few epochs for a plane.
    """
    runs = [read_snapshots(timeline, max(2, _MOST_POINTS // len(timelines))) for timeline in timelines]
    config = runs[0].config
    if any(run.config != config for run in runs):
        raise UserError("These runs have different networks or preprocessing: their losses cannot share a landscape.")
    points = torch.cat([run.weights for run in runs])
    epochs = [run.epochs for run in runs]
    origin = points[len(epochs[0]) - 1].clone()
    directions, share = principal_directions(points)
    places = (points - origin) @ directions.T
    # The signs of principal components are arbitrary: let the first run start on the left of its end, and below it.
    signs = torch.where(places[0] > 0, -1.0, 1.0)
    of_runs = (places * signs).split([len(run) for run in epochs])
    paths = tuple(
        tuple(Stop(epoch=epoch, x=x, y=y) for epoch, (x, y) in zip(run, places.tolist(), strict=True))
        for run, places in zip(epochs, of_runs, strict=True)
    )
    return Plane(
        config=config,
        origin=origin,
        directions=directions * signs[:, None],
        paths=paths,
        share=share,
        num_missing=sum(run.num_missing for run in runs),
    )


def principal_directions(points: Tensor) -> tuple[Tensor, float]:
    """Returns the first two principal components of points, float32 [m, n], and their share of the variance, 0–1.

    The components are orthonormal, float32 [2, n]. Raises UserError if the points lie on a line.
    """
    # The points' own products, [m, m], have the same eigenvalues as the covariance, [n, n], and m is far below n.
    products = sum((centred @ centred.T for centred in _centred(points)), torch.zeros(()))
    variances, vectors = torch.linalg.eigh(products)
    first, second = variances[-1].item(), variances[-2].item() if len(points) > 1 else 0.0
    if not second > _LINE * first:
        raise UserError(
            "A plane needs the saved weights of at least three different epochs; choose random directions around the "
            "last network instead."
        )
    directions = torch.cat([vectors[:, [-1, -2]].T @ centred for centred in _centred(points)], 1)
    share = (first + second) / variances.clamp(min=0).sum().item()
    return (directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)).float(), share


def _centred(points: Tensor) -> Iterator[Tensor]:
    """Yields the points without their mean, float64, some of their columns after another to save memory."""
    for part in points.split(_COLUMNS_AT_ONCE, 1):
        yield part.double() - part.double().mean(0)


def around(model: OptimizerLabModel, epoch: int, *, seed: int = 0) -> Plane:
    """Returns the plane around the network of an epoch in two random directions, filter-normalised.

    Each filter of a direction has the norm of the network's own filter (Li et al. 2018, arXiv:1712.09913, section 4),
    so that networks can be compared whatever the scale of their weights. As there, biases and the weights of batch
    normalisation stay as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.stack([_random_direction(model, generator) for _ in range(2)])
    paths = ((Stop(epoch=epoch, x=0.0, y=0.0),),)
    return Plane(config=model.config, origin=vector_of(model), directions=directions, paths=paths, share=None)


def _random_direction(model: OptimizerLabModel, generator: torch.Generator) -> Tensor:
    parts = []
    for weight in model.parameters():
        if weight.dim() == 1:
            parts.append(torch.zeros_like(weight))
            continue
        direction = torch.randn(weight.shape, generator=generator).flatten(1)
        own, drawn = (torch.linalg.vector_norm(w, dim=1, keepdim=True) for w in (weight.detach().flatten(1), direction))
        parts.append((direction * own / drawn).reshape(-1))
    return torch.cat(parts)
