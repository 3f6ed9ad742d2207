"""The synthetic image set: reproducible, and separable by shape alone."""

import pytest
import torch

from trainer.images import synthetic
from trainer.images.image_data import load_images


@pytest.mark.slow
def test_drawing_is_deterministic():
    """Drawing again gives the same bits, with any global seed and number of threads, and changes neither."""
    images, labels = synthetic.draw_shapes()
    state, num_threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(num_threads + 1)
    try:
        again, same_labels = synthetic.draw_shapes.__wrapped__()  # not from the fixture's cache
        assert torch.get_num_threads() == num_threads + 1
    finally:
        torch.set_num_threads(num_threads)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, again)
    assert torch.equal(labels, same_labels)
    assert torch.bincount(labels).tolist() == [1200] * 10
    assert images.shape == (12_000, 32, 32, 3)


def test_colours_do_not_reveal_the_class():
    """The classes' mean brightnesses differ less than pictures of one class do."""
    data = load_images("synthetic")
    brightness = data.train.images.float().mean((1, 2, 3))
    means = torch.stack([brightness[data.train.labels == label].mean() for label in range(10)])
    assert means.max() - means.min() < brightness.std()
    assert data.class_names == synthetic.CLASS_NAMES
    assert torch.bincount(data.train.labels).min() > 900
