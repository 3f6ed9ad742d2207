"""Drawn shapes: ten classes of small pictures that need no network, no download and no licence.

Each picture shows one shape in a random colour, place, size and rotation, on a shaded background with a few
strokes and some noise. Nothing gives the class away but the outline: colours, brightness and position are drawn
alike for all classes. A linear model gets a quarter of them right, a small convolutional network nearly all.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

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
SIZE = 32
NUM_TRAIN = 10_000
NUM_TEST = 2_000
# Part of the cache's file name: raise it whenever a change here changes a pixel.
VERSION = 1

# float64, and of the random draws only rand, randint and randperm: unlike float32's sines and normal draws, which
# depend on the processor's vector width, these round to the same bytes nearly everywhere, so that a run begun on
# one machine finds the same pixels on another.
_FLOAT = torch.float64
# Pictures drawn at once: few enough that their arrays stay in the processor's cache and are used again, where larger
# ones would be asked of the system anew for every step.
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
    """All pictures, uint8 [NUM_TRAIN + NUM_TEST, SIZE, SIZE, 3], and their labels, int64, in random order.

    Each class has the same number of pictures, in the whole set, not in each split.
    """
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randperm(NUM_TRAIN + NUM_TEST, generator=rng) % len(CLASS_NAMES)
    images = torch.empty(len(labels), SIZE, SIZE, 3, dtype=torch.uint8)
    with _one_thread():
        for label, outline in enumerate(_OUTLINES):
            for places in (labels == label).nonzero()[:, 0].split(_AT_ONCE):
                images[places] = _draw(outline, len(places), rng)
    return images, labels


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keeps torch from sharing out its work: of many small steps each would wait for the slowest thread.

    On two busy cores that made ten seconds and more of the one second that the drawing takes.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _draw(outline: Callable[[Tensor, Tensor], Tensor], num: int, rng: torch.Generator) -> Tensor:
    """`num` pictures of one outline, uint8 [num, SIZE, SIZE, 3]."""

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
    """Two RGB colours in 0..1 a picture, [num, 3] each, whose brightness differs by at least _MIN_CONTRAST."""
    brightness = torch.rand(2, num, generator=rng, dtype=_FLOAT)
    low, high = brightness.amin(0), brightness.amax(0)
    low, high = low * (1 - _MIN_CONTRAST), _MIN_CONTRAST + high * (1 - _MIN_CONTRAST)
    # Mostly light on dark: where both are as frequent, plain SGD on raw pixels takes ten epochs to begin to learn.
    swap = torch.rand(num, generator=rng, dtype=_FLOAT) < _LIGHT_ON_DARK
    tint = 0.5 * (torch.rand(2, num, 3, generator=rng, dtype=_FLOAT) - 0.5)
    tint -= tint.mean(2, keepdim=True)
    background = torch.where(swap, low, high)[:, None] + tint[0]
    foreground = torch.where(swap, high, low)[:, None] + tint[1]
    return background.clamp(0, 1), foreground.clamp(0, 1)


def _shade(across: Tensor, down: Tensor, uniform: Callable[..., Tensor]) -> Tensor:
    """A slope of brightness over the picture, at most ±0.15 at the middle of an edge."""
    return (across * uniform(-0.15, 0.15, 1, 1) + down * uniform(-0.15, 0.15, 1, 1)) / (SIZE / 2)


def _stroke(across: Tensor, down: Tensor, uniform: Callable[..., Tensor]) -> Tensor:
    """How far each pixel is covered by a short thin line somewhere in the picture."""
    turn = uniform(0, math.pi, 1, 1)
    x, y = across - uniform(-SIZE / 2, SIZE / 2, 1, 1), down - uniform(-SIZE / 2, SIZE / 2, 1, 1)
    along, aside = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    return _coverage(torch.maximum(along.abs() - uniform(2, 6, 1, 1), aside.abs() - uniform(0.4, 1.2, 1, 1)))


def _coverage(distance: Tensor) -> Tensor:
    """The share of a pixel inside an outline `distance` pixels away (negative: inside): one pixel of antialiasing."""
    return (0.5 - distance).clamp(0, 1)


# Each outline gives, for points in units of the shape's radius (x to the right, y down), a signed distance to the
# shape's edge in the same units: negative inside. Exact along straight edges, near enough at corners.
# Union is the minimum of two such functions, intersection the maximum, a hole the maximum with a negated one.


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.9


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.8


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return _by_sides(x, y, 3).amax(0) - 0.55


def _star(x: Tensor, y: Tensor) -> Tensor:
    # A pentagram is where at most one of the five lines through its edges has the point on its outer side.
    return _by_sides(x, y, 5).topk(2, dim=0).values[1] - 0.38


def _cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.minimum(torch.maximum(x - 0.95, y - 0.28), torch.maximum(x - 0.28, y - 0.95))


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.75).abs() - 0.2


def _heart(x: Tensor, y: Tensor) -> Tensor:
    # A square standing on its corner, with a half disc on each of its two upper sides.
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
    """Each point's distance from the centre along the normals of a regular polygon's sides, [num, …]."""
    turns = [2 * math.pi * side / num + math.pi / 2 for side in range(num)]
    return torch.stack([x * math.cos(turn) + y * math.sin(turn) for turn in turns])


def _bands(x: Tensor, period: float = 0.6) -> Tensor:
    """Signed distance to upright bands, as wide as the gaps between them, one centred on x = 0."""
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
