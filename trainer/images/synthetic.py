"""Drawn shapes: ten classes of small pictures that need no network, no download and no licence.

Each picture has one shape of random colour, position, size and rotation, on a shaded background with a few strokes and
some noise. Only the outline depends on the class: colours, brightness and position have the same distribution for all.
A linear model classifies a quarter of the pictures correctly, a small convolutional network nearly all.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from trainer.images.readers import SIZE

CLASS_NAMES = (
    "circle",
    "square",
    "triangle",
    "star",
    "cross",
    "ring",
    "heart",
    "crescent",
    "stripes",
    "checkerboard",
)
NUM_TRAIN = 10_000
NUM_TEST = 2_000
# Part of the cache file's name: increase it with any change to this module that changes a pixel.
VERSION = 1

# float64, and only rand, randint and randperm for random numbers. Unlike float32's sines and normal random numbers,
# which depend on the processor's vector width, these round to the same bytes on nearly every machine, so that a run can
# be resumed on another one.
_FLOAT = torch.float64
# Pictures drawn at once: few enough for their arrays to stay in the processor's cache, and for the allocator to reuse
# them instead of requesting memory from the system in each step.
_AT_ONCE = 60
# Lengths in pixels, brightness in 0..1.
_MAX_SHIFT = 3.0
_RADIUS = (8.0, 12.0)
_MAX_TURN = math.radians(30)
_NUM_STROKES = 3
_LIGHT_ON_DARK = 0.75
_MIN_CONTRAST = 0.3
_NOISE = 0.05


def draw_shapes(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draws the pictures, uint8 [NUM_TRAIN + NUM_TEST, SIZE, SIZE, 3], and returns them with their labels, int64.

    They are in random order; each class has the same number of pictures in the whole set, not in each split.
    """
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randperm(NUM_TRAIN + NUM_TEST, generator=rng) % len(CLASS_NAMES)
    images = torch.empty(len(labels), SIZE, SIZE, 3, dtype=torch.uint8)
    with _one_thread():
        for label, outline in enumerate(_OUTLINES):
            for indices in (labels == label).nonzero()[:, 0].split(_AT_ONCE):
                images[indices] = _draw(outline, len(indices), rng)
    return images, labels


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limits torch to one thread: each of the many small steps would wait for the slowest thread.

    On two busy cores, drawing would take more than ten seconds instead of one.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _draw(outline: Callable[[Tensor, Tensor], Tensor], num: int, rng: torch.Generator) -> Tensor:
    """Draws `num` pictures of one outline, uint8 [num, SIZE, SIZE, 3]."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num, *shape, generator=rng, dtype=_FLOAT)

    across = (torch.arange(SIZE, dtype=_FLOAT) - (SIZE - 1) / 2).expand(num, SIZE, SIZE)
    down = across.transpose(1, 2)

    background, foreground = _colours(num, rng)
    canvas = background[:, None, None, :] + _shade(across, down, uniform)[..., None]
    for _ in range(_NUM_STROKES):
        canvas = torch.lerp(canvas, uniform(0, 1, 1, 1, 3), _stroke(across, down, uniform)[..., None])

    radius, turn = uniform(*_RADIUS, 1, 1), uniform(-_MAX_TURN, _MAX_TURN, 1, 1)
    x = (across - uniform(-_MAX_SHIFT, _MAX_SHIFT, 1, 1)) / radius
    y = (down - uniform(-_MAX_SHIFT, _MAX_SHIFT, 1, 1)) / radius
    distance = radius * outline(x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin())
    canvas = torch.lerp(canvas, foreground[:, None, None, :], _coverage(distance)[..., None])

    canvas += uniform(-_NOISE, _NOISE, SIZE, SIZE, 3)
    return canvas.clamp_(0, 1).mul_(255).round_().to(torch.uint8)


def _colours(num: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws two RGB colours, 0–1, for each picture, [num, 3] each, at least _MIN_CONTRAST apart in brightness."""
    brightness = torch.rand(2, num, generator=rng, dtype=_FLOAT)
    low, high = brightness.amin(0), brightness.amax(0)
    low, high = low * (1 - _MIN_CONTRAST), _MIN_CONTRAST + high * (1 - _MIN_CONTRAST)
    # Mostly light on dark: if both were equally frequent, plain SGD on raw pixels would learn nothing for ten epochs.
    swap = torch.rand(num, generator=rng, dtype=_FLOAT) < _LIGHT_ON_DARK
    tint = 0.5 * (torch.rand(2, num, 3, generator=rng, dtype=_FLOAT) - 0.5)
    tint -= tint.mean(2, keepdim=True)
    background = torch.where(swap, low, high)[:, None] + tint[0]
    foreground = torch.where(swap, high, low)[:, None] + tint[1]
    return background.clamp(0, 1), foreground.clamp(0, 1)


def _shade(across: Tensor, down: Tensor, uniform: Callable[..., Tensor]) -> Tensor:
    """A linear gradient of brightness over each picture, at most ±0.15 at the middle of an edge."""
    return (across * uniform(-0.15, 0.15, 1, 1) + down * uniform(-0.15, 0.15, 1, 1)) / (SIZE / 2)


def _stroke(across: Tensor, down: Tensor, uniform: Callable[..., Tensor]) -> Tensor:
    """The fraction of each pixel that a short thin line covers, at a random position."""
    turn = uniform(0, math.pi, 1, 1)
    x, y = across - uniform(-SIZE / 2, SIZE / 2, 1, 1), down - uniform(-SIZE / 2, SIZE / 2, 1, 1)
    along, aside = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    return _coverage(torch.maximum(along.abs() - uniform(2, 6, 1, 1), aside.abs() - uniform(0.4, 1.2, 1, 1)))


def _coverage(distance: Tensor) -> Tensor:
    """The fraction of a pixel inside an outline at `distance` pixels (negative: inside): one pixel of antialiasing."""
    return (0.5 - distance).clamp(0, 1)


# Each outline maps points, in units of the shape's radius (x to the right, y down), to their signed distance from the
# shape's edge in the same units, negative inside: exact along straight edges, approximate at corners. The minimum of
# two such functions is a union, the maximum an intersection, and the maximum with a negated one cuts a hole.


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.9


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.8


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return _by_sides(x, y, 3).amax(0) - 0.55


def _star(x: Tensor, y: Tensor) -> Tensor:
    # A point is inside a pentagram if it is outside at most one of the five lines through the edges.
    return _by_sides(x, y, 5).topk(2, dim=0).values[1] - 0.38


def _cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.minimum(torch.maximum(x - 0.95, y - 0.28), torch.maximum(x - 0.28, y - 0.95))


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.75).abs() - 0.2


def _heart(x: Tensor, y: Tensor) -> Tensor:
    # A square rotated by 45°, with a half disc on each of its two upper sides.
    half, y = 0.5, y - 0.15
    s, t = (x - y) / math.sqrt(2), (-x - y) / math.sqrt(2)
    square = torch.maximum(s.abs(), t.abs()) - half
    lobes = torch.minimum(torch.hypot(s - half, t), torch.hypot(s, t - half)) - half
    return torch.minimum(square, lobes)


def _crescent(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(torch.hypot(x, y) - 0.95, 0.75 - torch.hypot(x - 0.45, y))


def _stripes(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(torch.maximum(x.abs(), y.abs()) - 0.9, _bands(x))


def _checkerboard(x: Tensor, y: Tensor) -> Tensor:
    a, b = _bands(x + 0.15), _bands(y + 0.15)
    checks = torch.maximum(torch.minimum(a, b), -torch.maximum(a, b))
    return torch.maximum(torch.maximum(x.abs(), y.abs()) - 0.9, checks)


def _by_sides(x: Tensor, y: Tensor, num: int) -> Tensor:
    """Each point's distance from the centre along the normal of each side of a regular polygon, [num, …]."""
    turns = [2 * math.pi * side / num + math.pi / 2 for side in range(num)]
    return torch.stack([x * math.cos(turn) + y * math.sin(turn) for turn in turns])


def _bands(x: Tensor, period: float = 0.6) -> Tensor:
    """Signed distance to vertical bands, as wide as the gaps between them, one of them centred on x = 0."""
    return (torch.remainder(x + period / 2, period) - period / 2).abs() - period / 4


_OUTLINES = (
    _circle,
    _square,
    _triangle,
    _star,
    _cross,
    _ring,
    _heart,
    _crescent,
    _stripes,
    _checkerboard,
)
