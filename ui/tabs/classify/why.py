"""Where the network looked: the picture as the network gets it, and what in it speaks for a class."""

import html
from collections.abc import Sequence

from torch import Tensor

from trainer.insight.saliency import occlusion, overlay, smooth_grad
from trainer.networks.model import OptimizerLabModel
from trainer.networks.predict import Prediction
from ui.i18n.words import translate
from ui.parts.markup import note
from ui.parts.pictures import data_url

# A fall of the probability by less is drawn faintly: it may be by chance.
_LEAST_FALL = 0.05


def seen_only(prediction: Prediction, language: str) -> str:
    """The picture as the network gets it, as HTML, with room for what `why` adds."""
    return _figures(prediction, [("", None), ("", None)], language)


def why(model: OptimizerLabModel, prediction: Prediction, label: str, language: str) -> str:
    """The picture, what in it speaks for the class `label` by two methods, and how to read them, as HTML."""
    picture, index = prediction.seen, model.class_names.index(label)
    gradient, falls = smooth_grad(model, picture, index), occlusion(model, picture, index)
    most = gradient.abs().flatten().quantile(0.99).item()
    with_title = [
        (translate("What speaks for {label}", language, label=label), overlay(picture, gradient, most)),
        (translate("If it is hidden", language), overlay(picture, falls, max(_LEAST_FALL, falls.abs().max().item()))),
    ]
    read = translate(
        "Orange speaks for {label}, blue against it. In the middle, the gradient times the input, smoothed over noise "
        "(SmoothGrad, Smilkov et al. 2017); on the right, by how much the probability of {share} falls where a square "
        "hides the picture, up to {fall} points (Zeiler & Fergus 2014). Press another class to see what speaks for it.",
        language,
        label=label,
        share=f"{prediction.confidences[label]:.1%}",
        fall=f"{100 * max(0.0, falls.max().item()):.0f}",
    )
    return _figures(prediction, with_title, language) + note(read)


def _figures(prediction: Prediction, others: Sequence[tuple[str, Tensor | None]], language: str) -> str:
    seen = (translate("What the network really sees", language), prediction.seen)
    figures = "".join(_figure(*each) for each in (seen, *others))
    return f"<div class='looks'>{figures}</div>"


def _figure(title: str, pixels: Tensor | None) -> str:
    title = html.escape(title, quote=True)
    picture = "<div></div>" if pixels is None else f"<img src='{data_url(pixels)}' alt='{title}'>"
    return f"<figure>{picture}<figcaption>{title}</figcaption></figure>"
