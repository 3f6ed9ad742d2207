"""The loss landscape: the training loss over a plane in the space of a network's weights, coarse first and then finer.

It is a slice: two of the network's many thousand directions.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from trainer.errors import UserError
from trainer.images.image_data import ImageData, Split, select, to_device
from trainer.insight.plane import Plane, Stop, parts_of, set_vector
from trainer.learning.device import explain_out_of_memory
from trainer.learning.learner import frozen_statistics
from trainer.learning.training_set import training_split
from trainer.networks.architectures import memory_format
from trainer.networks.files import read_json
from trainer.networks.model import OptimizerLabModel
from trainer.runs import run_folder
from trainer.runs.training_json import as_json
from trainer.settings.config import TrainConfig

NUM_POINTS, NUM_IMAGES = 25, 1000
"""The default number of points along each axis, and of training pictures."""
FEWEST_POINTS, MOST_POINTS = 3, 101

_SEED = 0  # of the sample of the pictures
_MARGIN = 0.2  # of the paths' width and height, on each side of them
_FLATTEST = 0.25  # the height of the grid relative to its width, or the other way round, at least
_RADIUS = 1.0  # of random directions, in norms of the network's filters

# Small parts stay in a CPU's cache; batch normalisation needs all pictures at once.
_IMAGES_AT_ONCE = 100

# On a GPU. On a CPU, several at once take longer than one after another.
_POINTS_AT_ONCE = 8

_CACHE_FORMAT = 1
_LARGEST_CACHE = 1 << 20  # bytes; 101 × 101 points take a fifth of it


@dataclass(frozen=True, kw_only=True, slots=True)
class PointEvaluated:
    """The loss at a point of the grid, infinite also if it is not a number, and the fraction of points done, 0–1."""

    row: int
    column: int
    loss: float
    fraction: float


Losses = dict[tuple[int, int], float]
"""The loss at each point of a grid that has been evaluated, by row and column."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """The points of a plane to evaluate: all pairs of `xs` and `ys`, both ascending."""

    plane: Plane
    xs: tuple[float, ...]
    ys: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class LossMap:
    """The losses over a grid, as far as they are known, with all that their chart needs.

    `names` are those of the runs; `paths` and `share` are the plane's.
    """

    names: tuple[str, ...]
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    paths: tuple[tuple[Stop, ...], ...]
    share: float | None
    num_weights: int
    num_classes: int
    num_images: int
    losses: Losses = field(default_factory=dict)

    @property
    def fraction(self) -> float:
        """The part of the points that are known, 0–1."""
        return len(self.losses) / len(self.xs) ** 2

    @property
    def num_infinite(self) -> int:
        """The number of points where the loss is not finite."""
        return sum(not math.isfinite(loss) for loss in self.losses.values())


def empty_map(grid: Grid, names: Sequence[str], num_images: int) -> LossMap:
    """Returns a map without losses; `names` are those of the runs."""
    return LossMap(
        names=tuple(names),
        xs=grid.xs,
        ys=grid.ys,
        paths=grid.plane.paths,
        share=grid.plane.share,
        num_weights=len(grid.plane.origin),
        num_classes=len(grid.plane.config["class_names"]),
        num_images=num_images,
    )


def grid_over(plane: Plane, num_points: int = NUM_POINTS) -> Grid:
    """Returns a grid of num_points × num_points around the paths of a plane.

    Raises UserError for a number out of range.
    """
    if not FEWEST_POINTS <= num_points <= MOST_POINTS:
        raise UserError(
            "The grid must have from {least} to {most} points along each axis.", least=FEWEST_POINTS, most=MOST_POINTS
        )
    if plane.share is None:
        spans = [(-_RADIUS, _RADIUS)] * 2
    else:
        stops = [stop for path in plane.paths for stop in path]
        spans = [(min(values), max(values)) for values in ([stop.x for stop in stops], [stop.y for stop in stops])]
        longest = max(high - low for low, high in spans)
        spans = [_widened(low, high, _FLATTEST * longest) for low, high in spans]
    xs, ys = (tuple(low + (high - low) * i / (num_points - 1) for i in range(num_points)) for low, high in spans)
    return Grid(plane=plane, xs=xs, ys=ys)


def _widened(low: float, high: float, least: float) -> tuple[float, float]:
    half = max(high - low, least) * (0.5 + _MARGIN)
    return (low + high) / 2 - half, (low + high) / 2 + half


def training_sample(config: TrainConfig, images: ImageData, num_images: int) -> Split:
    """Returns a `sample` of the pictures that a run with these settings trains on.

    Raises UserError if the settings do not fit the images, or if `num_images` is below 1.
    """
    return sample(training_split(config, images), num_images)


def sample(split: Split, num_images: int = NUM_IMAGES) -> Split:
    """Returns a random sample of a split, the same at each call; the whole split if it has at most `num_images`.

    Raises UserError if `num_images` is below 1.
    """
    if num_images < 1:
        raise UserError("The number of pictures must be 1 or more.")
    if num_images >= len(split.labels):
        return split
    which = torch.zeros(len(split.labels), dtype=torch.bool, device=split.labels.device)
    which[torch.randperm(len(which), generator=torch.Generator().manual_seed(_SEED))[:num_images]] = True
    return select(split, which)


def coarse_to_fine(num_points: int) -> Iterator[tuple[int, int]]:
    """Yields the rows and columns of all points of a square grid: first the corners, then ever more between them."""
    done: set[tuple[int, int]] = set()
    steps = 1
    while len(done) < num_points**2:
        ticks = sorted({round(i * (num_points - 1) / steps) for i in range(steps + 1)})
        for place in ((row, column) for row in ticks for column in ticks):
            if place not in done:
                done.add(place)
                yield place
        steps *= 2


def check_fits(config: Mapping[str, Any], data: ImageData) -> None:
    """Raises UserError unless a network with this config.json takes pictures of this size, of exactly these classes.

    The classes must have the same order, because the labels are their numbers.
    """
    size = data.train.images.shape[-1]
    if config["image_size"] != size or tuple(config["class_names"]) != data.class_names:
        raise UserError("This network was made for other pictures than those the app uses now.")


def evaluate(grid: Grid, split: Split, *, device: str | torch.device = "cpu") -> Iterator[PointEvaluated]:
    """Yields the mean cross-entropy on the pictures of `split` at each point of the grid, coarse first.

    The pictures are not augmented. Batch normalisation uses the statistics of these pictures at each point: those that
    were measured along the training would be wrong everywhere else. A CUDA GPU computes several points at a time.

    Raises UserError if the device has too little memory.
    """
    device = torch.device(device)
    model = OptimizerLabModel(**grid.plane.config)
    model.to(device, memory_format=memory_format(device)).train()  # type: ignore[call-overload]
    on_device = to_device(split, device)

    def losses_at(weights: Tensor) -> list[float]:
        if len(weights) > 1:
            return mean_losses(model, weights.to(device), on_device).tolist()
        set_vector(model, weights[0])
        return [mean_loss(model, on_device)]

    return visit(grid, losses_at, at_once=_POINTS_AT_ONCE if device.type == "cuda" else 1)


def revisit(grid: Grid, losses: Losses) -> Iterator[PointEvaluated]:
    """Yields the known losses of all points of the grid, as `evaluate` does."""
    for number, (row, column) in enumerate(coarse_to_fine(len(grid.xs)), 1):
        yield PointEvaluated(row=row, column=column, loss=losses[row, column], fraction=number / len(losses))


def visit(grid: Grid, losses_at: Callable[[Tensor], Sequence[float]], *, at_once: int = 1) -> Iterator[PointEvaluated]:
    """Yields the loss at each point of the grid, coarse first.

    `losses_at` takes the weights of up to `at_once` points, float32 [points, n].
    """
    origin, (across, up) = grid.plane.origin, grid.plane.directions
    num_points, number = len(grid.xs), 0
    places = coarse_to_fine(num_points)
    while some := list(islice(places, at_once)):
        weights = torch.stack([origin + grid.xs[column] * across + grid.ys[row] * up for row, column in some])
        for (row, column), loss in zip(some, losses_at(weights), strict=True):
            number += 1
            loss = loss if math.isfinite(loss) else math.inf
            yield PointEvaluated(row=row, column=column, loss=loss, fraction=number / num_points**2)


@torch.inference_mode()
def mean_loss(model: OptimizerLabModel, split: Split) -> float:
    """Returns the mean cross-entropy of a model in training mode; batch normalisation sees all pictures at once."""
    has_norms = any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    step = _IMAGES_AT_ONCE if split.images.device.type == "cpu" and not has_norms else len(split.labels)
    total = 0.0
    with explain_out_of_memory(), frozen_statistics(model):
        for images, labels in zip(split.images.split(step), split.labels.split(step), strict=True):
            total += functional.cross_entropy(model(images), labels, reduction="sum").item()
    return total / len(split.labels)


@torch.inference_mode()
def mean_losses(model: OptimizerLabModel, weights: Tensor, split: Split) -> Tensor:
    """Returns the `mean_loss` with each of several vectors of weights, float32 [points, n], as float32 [points]."""
    parameters = dict(model.named_parameters())

    def loss_with(vector: Tensor) -> Tensor:
        parts = dict(zip(parameters, parts_of(vector, list(parameters.values())), strict=True))
        return functional.cross_entropy(functional_call(model, parts, (split.images,)), split.labels)

    with explain_out_of_memory(), frozen_statistics(model):
        return vmap(loss_with)(weights)


def point_row(grid: Grid, event: PointEvaluated) -> dict[str, Any]:
    """Returns a point as a row of the public stream."""
    return {
        "event": "point",
        "row": event.row,
        "column": event.column,
        "x": grid.xs[event.column],
        "y": grid.ys[event.row],
        "loss": event.loss if math.isfinite(event.loss) else None,
        "fraction": event.fraction,
    }


def map_row(found: LossMap) -> dict[str, Any]:
    """Returns the last row of the public stream: the grid and the paths."""
    return {
        "event": "landscape",
        "xs": found.xs,
        "ys": found.ys,
        "paths": [
            {"run": name, "epochs": [{"epoch": stop.epoch, "x": stop.x, "y": stop.y} for stop in path]}
            for name, path in zip(found.names, found.paths, strict=True)
        ],
        "share": found.share,
        "images": found.num_images,
        "infinite": found.num_infinite,
    }


def read_cache(folder: Path, grid: Grid, split: Split) -> Losses | None:
    """Returns the losses that `write_cache` saved for exactly this grid and these pictures; None if there are none."""
    try:
        content = read_json(folder / _cache_file(grid), at_most=_LARGEST_CACHE)
    except UserError:
        return None
    rows, num_points = content.get("losses"), len(grid.xs)
    if (
        content.get("key") != _key(grid, split)
        or not isinstance(rows, list)
        or not all(isinstance(row, list) and len(row) == num_points for row in [rows, *rows])
        or not all(value is None or (type(value) is float and math.isfinite(value)) for row in rows for value in row)
    ):
        return None
    return {
        (row, column): math.inf if value is None else value
        for row, values in enumerate(rows)
        for column, value in enumerate(values)
    }


def write_cache(folder: Path, grid: Grid, split: Split, losses: Losses) -> None:
    """Saves the losses of all points of a grid in a run's folder, in place of those of an earlier one.

    Raises UserError if the run is in training, or if the folder cannot be written.
    """
    places = range(len(grid.xs))
    rows = [[loss if math.isfinite(loss := losses[row, column]) else None for column in places] for row in places]
    run_folder.add_files(folder, {_cache_file(grid): as_json({"key": _key(grid, split), "losses": rows})})


def _cache_file(grid: Grid) -> str:
    # One file of each kind, so that looking at many landscapes does not fill the disk.
    kind = "random" if grid.plane.share is None else "race" if len(grid.plane.paths) > 1 else "epochs"
    return f"insight/landscape-{kind}.json"


def _key(grid: Grid, split: Split) -> str:
    """Returns a digest of all that the losses depend on."""
    digest = hashlib.sha256(json.dumps([_CACHE_FORMAT, grid.plane.config, grid.xs, grid.ys]).encode())
    for tensor in (grid.plane.origin, grid.plane.directions, split.images, split.labels):
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()
