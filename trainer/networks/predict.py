"""One picture in, class probabilities out: the one way in which page, API, command line and library classify."""

import math
import os
from dataclasses import dataclass

from torch import Tensor

from trainer.errors import UserError
from trainer.images.picture import fit, read_picture
from trainer.networks.model import OptimizerLabModel


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a network thinks of a picture: the likeliest class, and every class with its probability, likeliest first.

    `seen` is the picture the network really got, uint8 [3, size, size].
    """

    label: str
    confidences: dict[str, float]
    seen: Tensor


def classify(model: OptimizerLabModel, picture: str | os.PathLike | Tensor) -> Prediction:
    """Classifies an image file, or uint8 RGB pixels [3, height, width], with the model's own resize rule.

    Raises ValueError with one sentence where the file is no picture that can be read, or the network overflows.
    """
    pixels = picture if isinstance(picture, Tensor) else read_picture(picture)
    seen = fit(pixels, model.image_size, model.resize)
    probabilities = model.probabilities(seen.unsqueeze(0).to(model.mean.device))[0].tolist()
    if not all(map(math.isfinite, probabilities)):
        raise UserError("The network's answer is not a number: its weights are too large.")
    ranked = sorted(zip(model.class_names, probabilities, strict=True), key=lambda pair: -pair[1])
    return Prediction(label=ranked[0][0], confidences=dict(ranked), seen=seen)
