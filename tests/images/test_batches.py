"""The batches of an epoch: order, augmentation and each rank's share."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest
import torch
from image_sets import noise, numbered_split

from trainer.images.batches import PADDING, batches, num_batches
from trainer.images.image_data import Split
from trainer.settings.config import TrainConfig


class Settings(NamedTuple):
    """The fields of TrainConfig that batches reads."""

    batch_size: int = 8
    shuffle: bool = True
    drop_last: bool = False
    augment: bool = False
    seed: int = 0


def epoch_of(split: Split, epoch: int = 1, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    """All images and labels of an epoch."""
    images, labels = zip(*batches(split, Settings(**settings), epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("num", "batch_size"), [(20, 8), (24, 8), (5, 8), (2500, 7), (2100, 1500)])
def test_each_image_comes_once(num, batch_size, shuffle, augment):
    """An epoch has each image once, with its label, in order unless shuffled; only the last batch may be smaller."""
    # Each image is a single grey, which augmentation does not change.
    split = numbered_split((torch.arange(num) % 251).byte().view(-1, 1, 1, 1).repeat(1, 3, 4, 4))
    config = Settings(batch_size=batch_size, shuffle=shuffle, augment=augment)
    sizes, all_labels = [], []
    for images, labels in batches(split, config, 1):
        assert images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images[:, 0, 0, 0].long(), labels % 251)
        sizes.append(len(labels))
        all_labels += labels.tolist()
    assert len(sizes) == num_batches(num, config)
    assert set(sizes[:-1]) <= {batch_size}
    assert sorted(all_labels) == list(range(num))
    assert (all_labels == list(range(num))) is not shuffle


@pytest.mark.parametrize(("num", "expected"), [(20, 2), (24, 3), (5, 0)])
def test_drop_last_drops_the_incomplete_batch(num, expected):
    """With drop_last all batches are full; a split smaller than a batch has none."""
    config = Settings(drop_last=True)
    sizes = [len(labels) for _, labels in batches(numbered_split(noise(num)), config, 1)]
    assert sizes == [8] * expected
    assert num_batches(num, config) == expected


def test_epochs_repeat_and_differ():
    """The same (seed, epoch) gives the same epoch, bit for bit; any other pair gives another order.

    The pairs include those that a 32-bit seed, a sum or a concatenation of the two would confuse.
    """
    split = numbered_split(noise(64))
    images, labels = epoch_of(split, 3, seed=7, augment=True)
    torch.manual_seed(1)
    again, same_labels = epoch_of(split, 3, seed=7, augment=True)
    assert torch.equal(images, again)
    assert torch.equal(labels, same_labels)
    pairs = [*itertools.product(range(12), range(12)), (2**32 + 5, 0), (5, 2**32), (1, 112), (11, 12), (111, 2)]
    orders = {tuple(epoch_of(split, epoch, seed=seed)[1].tolist()) for seed, epoch in pairs}
    assert len(orders) == len(set(pairs))


def test_augmentation_differs_without_shuffling():
    """Each epoch draws its own shifts and flips, even without shuffling."""
    split = numbered_split(noise(64))
    first, second = (epoch_of(split, epoch, shuffle=False, augment=True)[0] for epoch in (1, 2))
    assert not torch.equal(first, second)


def test_global_generators_are_left_alone():
    """An epoch does not advance the global random state of torch or NumPy."""
    split = numbered_split(noise(64))
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    epoch_of(split, augment=True)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_augmentation_is_a_mirrored_crop_and_a_flip():
    """Each augmented image is one of the 50 that reflection padding, cropping and flipping can produce.

    All 50 occur, about equally often.
    """
    size, pad = 8, PADDING
    split = numbered_split(noise(2000, height=size, width=size))
    images, labels = epoch_of(split, augment=True)
    counts = np.zeros((5, 5, 2), int)
    for image, label in zip(images.numpy(), labels.tolist(), strict=True):
        padded = np.pad(split.images[label].numpy(), ((0, 0), (pad, pad), (pad, pad)), "reflect")
        matches = [
            (down, across, flip)
            for down, across, flip in np.ndindex(counts.shape)
            if np.array_equal(image, padded[:, down : down + size, across : across + size][:, :, :: 1 - 2 * flip])
        ]
        assert len(matches) == 1
        counts[matches[0]] += 1
    # The expected count is 40; the bounds are four standard deviations away.
    assert counts.min() > 15
    assert counts.max() < 65


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_shares_make_up_the_batches(world_size, augment, tiny):
    """The ranks' shares, joined in order, are the batches of one process; sizes differ by at most 1.

    The last batch has 2 images, so that some ranks get none of it.
    """
    config = TrainConfig(batch_size=8, augment=augment)
    by_rank = [list(batches(tiny.train, config, 2, rank=rank, world_size=world_size)) for rank in range(world_size)]
    for whole, *shares in zip(batches(tiny.train, config, 2), *by_rank, strict=True):
        for part, parts in zip(whole, zip(*shares, strict=True), strict=True):
            assert torch.equal(torch.cat(parts), part)
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
