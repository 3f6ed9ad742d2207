"""The batches of an epoch: order, augmentation and each rank's share."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest
import torch
from image_sets import noise, numbered_split

from trainer.images.batches import batches, num_batches
from trainer.images.image_data import Split
from trainer.settings.config import TrainConfig


class Settings(NamedTuple):
    """The fields of TrainConfig that batches reads."""

    batch_size: int = 8
    shuffle: bool = True
    drop_last: bool = False
    flip: bool = False
    shift: int = 0
    seed: int = 0


def epoch_of(split: Split, epoch: int = 1, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    """All images and labels of an epoch."""
    images, labels = zip(*batches(split, Settings(**settings), epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize(("flip", "shift"), [(False, 0), (True, 2)])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("num", "batch_size"), [(20, 8), (24, 8), (5, 8), (2500, 7), (2100, 1500), (2100, 0)])
def test_each_image_comes_once(num, batch_size, shuffle, flip, shift):
    """An epoch has each image once, with its label, in order unless shuffled; only the last batch may be smaller.

    A batch_size of 0 stands for all images.
    """
    # Each image is a single grey, which augmentation does not change.
    split = numbered_split((torch.arange(num) % 251).byte().view(-1, 1, 1, 1).repeat(1, 3, 4, 4))
    config = Settings(batch_size=batch_size, shuffle=shuffle, flip=flip, shift=shift)
    sizes, all_labels = [], []
    for images, labels in batches(split, config, 1):
        assert images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images[:, 0, 0, 0].long(), labels % 251)
        sizes.append(len(labels))
        all_labels += labels.tolist()
    assert len(sizes) == num_batches(num, config)
    assert set(sizes[:-1]) <= {batch_size}
    assert batch_size or sizes == [num]
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
    images, labels = epoch_of(split, 3, seed=7, flip=True, shift=2)
    torch.manual_seed(1)
    again, same_labels = epoch_of(split, 3, seed=7, flip=True, shift=2)
    assert torch.equal(images, again)
    assert torch.equal(labels, same_labels)
    pairs = [*itertools.product(range(12), range(12)), (2**32 + 5, 0), (5, 2**32), (1, 112), (11, 12), (111, 2)]
    orders = {tuple(epoch_of(split, epoch, seed=seed)[1].tolist()) for seed, epoch in pairs}
    assert len(orders) == len(set(pairs))


def test_augmentation_differs_without_shuffling():
    """Each epoch draws its own shifts and flips, even without shuffling."""
    split = numbered_split(noise(64))
    first, second = (epoch_of(split, epoch, shuffle=False, flip=True, shift=2)[0] for epoch in (1, 2))
    assert not torch.equal(first, second)


def test_global_generators_are_left_alone():
    """An epoch does not advance the global random state of torch or NumPy."""
    split = numbered_split(noise(64))
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    epoch_of(split, flip=True, shift=2)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.parametrize(("flip", "shift", "num_ways"), [(True, 2, 50), (True, 0, 2), (False, 1, 9), (False, 4, 81)])
def test_augmentation_is_a_mirrored_crop_and_a_flip(flip, shift, num_ways):
    """Each augmented image is one of those that reflection padding, cropping and flipping can produce.

    All of them occur, about equally often.
    """
    size, width = 8, 2 * shift + 1
    split = numbered_split(noise(40 * num_ways, height=size, width=size))
    images, labels = epoch_of(split, flip=flip, shift=shift)
    counts = np.zeros((width, width, 1 + flip), int)
    for image, label in zip(images.numpy(), labels.tolist(), strict=True):
        padded = np.pad(split.images[label].numpy(), ((0, 0), (shift, shift), (shift, shift)), "reflect")
        matches = [
            (down, across, mirrored)
            for down, across, mirrored in np.ndindex(counts.shape)
            if np.array_equal(image, padded[:, down : down + size, across : across + size][:, :, :: 1 - 2 * mirrored])
        ]
        assert len(matches) == 1
        counts[matches[0]] += 1
    assert counts.size == num_ways
    # The expected count is 40; the bounds are four standard deviations away.
    assert counts.min() > 15
    assert counts.max() < 66


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_shares_make_up_the_batches(world_size, shift, tiny):
    """The ranks' shares, joined in order, are the batches of one process; sizes differ by at most 1.

    The last batch has 2 images, so that some ranks get none of it.
    """
    config = TrainConfig(batch_size=8, flip=shift > 0, shift=shift)
    by_rank = [list(batches(tiny.train, config, 2, rank=rank, world_size=world_size)) for rank in range(world_size)]
    for whole, *shares in zip(batches(tiny.train, config, 2), *by_rank, strict=True):
        for part, parts in zip(whole, zip(*shares, strict=True), strict=True):
            assert torch.equal(torch.cat(parts), part)
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
