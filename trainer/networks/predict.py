"""Classification of a picture, for the page, the API, the command line and the library."""

import math
import os
from dataclasses import dataclass

from torch import Tensor

from trainer.errors import UserError
from trainer.images.picture import fit, read_picture
from trainer.networks.model import OptimizerLabModel

UNSURE_BELOW = 0.5
"""The probability below which an answer counts as unsure.

Nine of ten test pictures get a surer answer from the networks that come with the app, and most pictures of noise do not
get one from `fast`: see benchmarks/README.md.
"""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The likeliest class of a picture, and the probability, 0–1, of each class by name, likeliest first.

    `seen` is the picture as it was passed to the network, uint8 [3, size, size].
    """

    label: str
    confidences: dict[str, float]
    seen: Tensor

    @property
    def is_unsure(self) -> bool:
        """Whether the picture may well be of another class, or of none that the network knows."""
        return self.confidences[self.label] < UNSURE_BELOW


def classify(model: OptimizerLabModel, picture: str | os.PathLike[str] | Tensor) -> Prediction:
    """Returns the prediction for an image file or uint8 RGB pixels [3, height, width], resized by the model's own rule.

    The model must be in evaluation mode, as `from_pretrained` returns it.

    Raises UserError if the file cannot be read as a picture, or if the network's output is not finite.
    """
    pixels = picture if isinstance(picture, Tensor) else read_picture(picture)
    seen = fit(pixels, model.image_size, model.resize)
    probabilities = model.probabilities(seen.unsqueeze(0).to(model.mean.device))[0].tolist()
    if not all(map(math.isfinite, probabilities)):
        raise UserError("The network's output is not a number: its weights are too large.")
    ranked = sorted(zip(model.class_names, probabilities, strict=True), key=lambda pair: -pair[1])
    return Prediction(label=ranked[0][0], confidences=dict(ranked), seen=seen)
