"""Whether a mirror changes what the pictures of a set show, and the settings that follow from it."""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional

from trainer.images.class_names import have_sides
from trainer.images.image_data import ImageData
from trainer.settings.config import AUGMENT

_NAMES_SAY_SO = "flip is off, because a mirror would make these letters, digits or directions wrong."
_PICTURES_SAY_SO = "flip is off, because in a mirror these pictures look like those of another class."

_reasons: WeakKeyDictionary[ImageData, str] = WeakKeyDictionary()

_MOST_PROBED = 2000
_LEAST_LOSS = 0.15  # of the accuracy, for a mirror to matter
_CLEAR = 3.0  # standard deviations: a smaller loss may be chance


def suited(settings: Mapping[str, Any], images: ImageData) -> tuple[dict[str, Any], str]:
    """Returns the settings, with `flip` off if a mirror makes these pictures wrong, and the reason; "" if unchanged.

    Settings that say something of `flip` stay as they are.
    """
    reason = "" if {"flip", AUGMENT} & settings.keys() else why_unflipped(images)
    return {**settings, **({"flip": False} if reason else {})}, reason


def why_unflipped(images: ImageData) -> str:
    """Returns the reason, in a sentence, for which pictures must not be mirrored; "" if there is none.

    The names of the classes say so, or a short probe of up to _MOST_PROBED training pictures: a classifier by the
    nearest mean picture recognises them, but much fewer of their mirror images. It cannot see what is not in the mean
    pictures, such as small things at random places.
    """
    if images not in _reasons:
        reason = _NAMES_SAY_SO if have_sides(images.class_names) else ""
        if not reason and mirror_matters(images.train.images, images.train.labels):
            reason = _PICTURES_SAY_SO
        _reasons[images] = reason
    return _reasons[images]


def mirror_matters(images: Tensor, labels: Tensor) -> bool:
    """Returns whether many fewer mirror images than pictures are closest to the mean picture of their own class.

    `images` is uint8 [n, 3, size, size] and `labels` int64 [n]. The means are those of one half of the pictures, and
    the other half is compared with them.
    """
    step = -(-len(labels) // _MOST_PROBED)
    grey = images[::step].float().mean(1, keepdim=True)
    labels, classes = labels[::step].unique(return_inverse=True)[1], int(labels.max()) + 1
    # Coarse, so that a shift of a few pixels does not matter, and without brightness and contrast.
    pixels = functional.normalize((coarse := functional.avg_pool2d(grey, 2).flatten(1)) - coarse.mean(1, keepdim=True))
    mirrored = pixels.unflatten(1, (-1, grey.shape[-1] // 2)).flip(-1).flatten(1)
    order = labels.argsort(stable=True)
    first, second = order[::2], order[1::2]
    right, wrong = 0, 0
    for known, other in ((first, second), (second, first)):
        sums = torch.zeros(classes, pixels.shape[1]).index_add_(0, labels[known], pixels[known])
        means = functional.normalize(sums)
        found, found_mirrored = ((each[other] @ means.T).argmax(1) == labels[other] for each in (pixels, mirrored))
        right += int((found & ~found_mirrored).sum())
        wrong += int((~found & found_mirrored).sum())
    # McNemar's test (1947): if a mirror did not matter, each picture that changes sides would do so either way.
    lost = right - wrong
    return lost > _LEAST_LOSS * len(labels) and lost > _CLEAR * (right + wrong) ** 0.5
