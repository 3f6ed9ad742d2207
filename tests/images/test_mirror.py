"""Whether a mirror changes what pictures show: by the names of their classes, or by a probe of the pictures."""

import itertools

import pytest
import torch
from image_sets import draw_arrows, noise
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.v2.functional import pil_to_tensor

from trainer.images.image_data import from_pictures
from trainer.images.mirror import mirror_matters, suited, why_unflipped
from trainer.images.readers import Pictures


def draw_letters(letters, num, seed=0):
    """Draws letters of different sizes, at different places: uint8 [num, 3, 32, 32], int64 [num]."""
    rng = torch.Generator().manual_seed(seed)
    pictures = []
    for number in range(num):
        size, across, down, dark, light = (
            int(torch.randint(low, high, (), generator=rng))
            for low, high in ((18, 26), (6, 12), (0, 6), (0, 100), (150, 256))
        )
        picture = Image.new("L", (32, 32), dark)
        font = ImageFont.load_default(size=size)
        ImageDraw.Draw(picture).text((across, down), letters[number % len(letters)], fill=light, font=font)
        pictures.append(pil_to_tensor(picture).expand(3, -1, -1))
    return torch.stack(pictures), torch.arange(num) % len(letters)


def arrows_named(*names):
    return from_pictures(
        Pictures("arrows", names, draw_arrows(80, 0), draw_arrows(20, 1)), source="arrows", revision=None
    )


@pytest.mark.parametrize("letters", ["bd", "EFLJ", "0123456789"])
def test_letters_change_in_a_mirror(letters):
    """The probe needs no names."""
    assert mirror_matters(*draw_letters(letters, 50 * len(letters)))


def test_arrows_of_any_name():
    """What the names do not say, the pictures do; settings that choose flip themselves stay as they are."""
    arrows = arrows_named("here", "there")
    assert why_unflipped(arrows) == (
        "flip is off, because in a mirror these pictures look like those of another class."
    )
    assert suited({"lr": 0.1}, arrows) == ({"lr": 0.1, "flip": False}, why_unflipped(arrows))
    for own in ({"flip": True}, {"augment": True}):
        assert suited(own, arrows) == (own, "")
    assert "directions wrong" in why_unflipped(arrows_named("left", "right"))


def test_what_a_mirror_does_not_change():
    """Symmetric letters, and pictures without any class at all, however many classes they have."""
    assert not mirror_matters(*draw_letters("OX", 100))
    assert not mirror_matters(noise(200), torch.arange(200) % 2)
    assert not mirror_matters(noise(200), torch.arange(200))
    assert not mirror_matters(noise(2), torch.arange(2))


@pytest.mark.real
def test_no_pair_of_classes_of_cifar10(real_images):
    """From fifty pictures of each, like a visitor's own, and from all ten classes."""
    images, labels = real_images.train.images, real_images.train.labels
    assert not mirror_matters(images, labels)
    first = [(labels == label).nonzero()[:50, 0] for label in range(10)]
    for one, other in itertools.combinations(first, 2):
        chosen = torch.cat([one, other])
        assert not mirror_matters(images[chosen], (torch.arange(100) >= 50).long())
