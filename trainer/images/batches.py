"""The batches of an epoch: shuffled, augmented, and split among the ranks of a distributed training."""

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from trainer.images.image_data import Split
from trainer.settings.config import TrainConfig

PADDING = 2
"""The augmentation shifts an image by at most this many pixels in each direction."""

# Small batches are gathered several at a time, about this many images together.
_TOGETHER = 1024


def num_batches(num_images: int, config: TrainConfig) -> int:
    """How many batches an epoch over `num_images` images has; none where drop_last drops the only one."""
    whole, rest = divmod(num_images, config.batch_size)
    return whole + (rest > 0 and not config.drop_last)


def batches(
    split: Split, config: TrainConfig, epoch: int, *, rank: int = 0, world_size: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch's batches: images uint8 [b, 3, size, size] in channels_last memory, labels int64 [b], on its device.

    Each image once, in an order and with an augmentation that depend on (config.seed, epoch) alone: the same on every
    device, in a run that is resumed at an epoch's beginning, and however many ranks there are. Of every batch, which
    has config.batch_size images but for the last, rank `rank` of `world_size` gets its share, which may be empty.

    With config.augment each image is moved by up to 2 pixels in each direction, its border mirrored to fill the gap,
    and half of the images are flipped. It is what He et al. (2015, arXiv:1512.03385, section 4.2) do for CIFAR-10,
    with the milder crop of Jordan (2024, arXiv:2404.00498), whose mirrored border leaves no black edge to learn from.
    """
    images, labels = split.images.permute(0, 2, 3, 1), split.labels
    used = num_batches(len(labels), config) * config.batch_size
    draws = torch.from_numpy(_draw_epoch(len(labels), config, epoch)[:, :used]).to(labels.device)
    # Several small batches are gathered at once: the few steps it takes cost more than the pixels they move.
    together = max(1, _TOGETHER // config.batch_size) * config.batch_size
    for start in range(0, used, together):
        whole = draws[:, start : start + together].split(config.batch_size, 1)
        shares = [share(batch, rank, world_size, dim=1) for batch in whole]
        sizes = [part.shape[1] for part in shares]
        order, flips, down, across = torch.cat(shares, 1)
        chosen = _moved(images, order, flips, down, across) if config.augment else images[order]
        yield from zip(chosen.permute(0, 3, 1, 2).split(sizes), labels[order].split(sizes), strict=True)


def passes(split: Split, config: TrainConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one epoch after the other, without end."""
    for epoch in itertools.count(1):
        yield from batches(split, config, epoch)


def share(whole: Tensor, rank: int, world_size: int, dim: int = 0) -> Tensor:
    """A rank's part of a tensor, cut along `dim`: the parts differ in length by at most one, and may be empty."""
    return whole.tensor_split(world_size, dim)[rank]


def _draw_epoch(num_images: int, config: TrainConfig, epoch: int) -> np.ndarray:
    """All of an epoch's chance at once, int64 [4, num_images]: order, flips 0 or 1, shifts down and across."""
    # NumPy's generator, because torch's for the CPU keeps 32 bits of its seed, too few to keep all pairs of seed and
    # epoch apart. A hash, because NumPy's own mixing takes (2**32 + 5, 0) and (5, 1) for the same.
    pair = hashlib.sha256(f"{config.seed}/{epoch}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(pair, "big"))
    draws = np.zeros((4, num_images), np.int64)
    draws[0] = rng.permutation(num_images) if config.shuffle else np.arange(num_images)
    if config.augment:
        draws[1] = rng.integers(2, size=num_images)
        draws[2:] = rng.integers(-PADDING, PADDING + 1, size=(2, num_images))
    return draws


def _moved(images: Tensor, order: Tensor, flips: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """The images [n, size, size, 3] of `order`, shifted and flipped: reads each pixel from where it comes from."""
    size = images.shape[1]
    places = torch.arange(size, device=images.device)
    rows = _mirrored(places + down[:, None], size)
    columns = _mirrored(places + across[:, None], size)
    columns = torch.where(flips[:, None] == 1, columns.flip(1), columns)
    return images[order[:, None, None], rows[:, :, None], columns[:, None, :]]


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Places beyond 0..size-1 reflected at the edge's pixel, as numpy.pad's "reflect" does."""
    return size - 1 - (size - 1 - places.abs()).abs()
