"""The batches of an epoch: shuffled, augmented, and split among the ranks of a distributed training."""

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from trainer.images.image_data import Split
from trainer.settings.config import TrainConfig

# Small batches are gathered several at a time, about this many images at once.
_IMAGES_AT_ONCE = 1024


def images_per_batch(num_images: int, config: TrainConfig) -> int:
    """Returns the number of images in a whole batch of an epoch over `num_images` images."""
    return config.batch_size or num_images


def num_batches(num_images: int, config: TrainConfig) -> int:
    """Returns the number of batches in an epoch over `num_images` images; 0 if drop_last leaves out the only one."""
    whole, rest = divmod(num_images, images_per_batch(num_images, config))
    return whole + (rest > 0 and not config.drop_last)


def batches(
    split: Split, config: TrainConfig, epoch: int, *, rank: int = 0, world_size: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the batches of an epoch, on the split's device.

    Each batch is a pair of images, uint8 [b, 3, size, size] in channels_last memory, and labels, int64 [b]. All but the
    last have `images_per_batch` images; rank `rank` of `world_size` gets its share of each, which may be empty.

    Each image occurs once, but config.drop_last leaves out those of a partial last batch. Order and augmentation depend
    only on (config.seed, epoch): they are the same on every device, in a resumed run, and with any number of ranks.

    Each image is shifted by up to config.shift pixels in each direction, with a mirrored border, and with config.flip
    half of the images are mirrored. By default this is the augmentation of He et al. (2015, arXiv:1512.03385, section
    4.2) for CIFAR-10, with the smaller shift and the mirrored border of Jordan (2024, arXiv:2404.00498), which leaves
    no black edge to learn from.
    """
    images, labels = split.images.permute(0, 2, 3, 1), split.labels
    size = images_per_batch(len(labels), config)
    used = num_batches(len(labels), config) * size
    draws = torch.from_numpy(_draw_epoch(len(labels), config, epoch)[:, :used]).to(labels.device)
    # For a small batch the calls cost more than moving the pixels, so several batches are gathered at once.
    step = max(1, _IMAGES_AT_ONCE // size) * size
    for start in range(0, used, step):
        wholes = draws[:, start : start + step].split(size, 1)
        shares = [share(whole, rank, world_size, dim=1) for whole in wholes]
        sizes = [part.shape[1] for part in shares]
        order, flips, down, across = torch.cat(shares, 1)
        gathered = _augmented(images, order, flips, down, across) if config.flip or config.shift else images[order]
        yield from zip(gathered.permute(0, 3, 1, 2).split(sizes), labels[order].split(sizes), strict=True)


def passes(split: Split, config: TrainConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the batches of one epoch after another, endlessly."""
    for epoch in itertools.count(1):
        yield from batches(split, config, epoch)


def share(whole: Tensor, rank: int, world_size: int, dim: int = 0) -> Tensor:
    """Returns a rank's part of a tensor, split along `dim`; the parts' lengths differ by at most 1 and may be 0."""
    return whole.tensor_split(world_size, dim)[rank]


def _draw_epoch(num_images: int, config: TrainConfig, epoch: int) -> np.ndarray:
    """Draws an epoch's random numbers, int64 [4, num_images]: order, flips (0 or 1), shifts down and across."""
    # NumPy's generator, because torch's CPU generator uses only 32 bits of its seed, so that pairs of seed and epoch
    # would collide. A hash, because NumPy's own seeding treats (2**32 + 5, 0) and (5, 1) as equal.
    pair = hashlib.sha256(f"{config.seed}/{epoch}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(pair, "big"))
    draws = np.zeros((4, num_images), np.int64)
    draws[0] = rng.permutation(num_images) if config.shuffle else np.arange(num_images)
    if config.flip:
        draws[1] = rng.integers(2, size=num_images)
    if config.shift:
        draws[2:] = rng.integers(-config.shift, config.shift + 1, size=(2, num_images))
    return draws


def _augmented(images: Tensor, order: Tensor, flips: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Returns images[order], uint8 [n, size, size, 3], shifted and flipped.

    The other arguments are int64 [n]: 0 or 1 for `flips`, pixels below the image's size for `down` and `across`.
    """
    size = images.shape[1]
    positions = torch.arange(size, device=images.device)
    rows = _reflected(positions + down[:, None], size)
    columns = _reflected(positions + across[:, None], size)
    columns = torch.where(flips[:, None] == 1, columns.flip(1), columns)
    return images[order[:, None, None], rows[:, :, None], columns[:, None, :]]


def _reflected(positions: Tensor, size: int) -> Tensor:
    """Reflects positions outside 0..size-1 at the edge pixel, as numpy.pad's "reflect" mode does."""
    return size - 1 - (size - 1 - positions.abs()).abs()
