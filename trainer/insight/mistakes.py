"""What a network takes the test pictures for: its confusion matrix, its scores, and how far its confidence holds."""

import csv
import io
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.errors import Message, UserError
from trainer.images.image_data import ImageData, select
from trainer.networks.model import OptimizerLabModel
from trainer.runs.reader import read_settings

NUM_BINS = 15  # of the reliability diagram, as in the paper

_AT_A_TIME = 500  # pictures


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """The scores of a class: how many pictures it has, and how often the network is right about it, 0–1.

    `recall` is the share of its pictures that are recognised, which is the accuracy within the class; `precision` is
    the share of the pictures taken for it that belong to it. None: there are no such pictures.
    """

    name: str
    num_pictures: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The pictures whose answer had a confidence from `low` up to `high`: their mean confidence and accuracy, 0–1."""

    low: float
    high: float
    num_pictures: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a network answers for each picture: `labels` int64 [n], `probabilities` float32 [n, classes], on the CPU."""

    class_names: tuple[str, ...]
    labels: Tensor
    probabilities: Tensor

    @property
    def predicted(self) -> Tensor:
        """The likeliest class of each picture, int64 [n]."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """The share of the pictures that are recognised, 0–1."""
        return (self.predicted == self.labels).double().mean().item()

    @property
    def confusion(self) -> Tensor:
        """The number of pictures of each class (row) that are taken for each class (column), int64."""
        count = len(self.class_names)
        return torch.bincount(self.labels * count + self.predicted, minlength=count * count).view(count, count)

    @property
    def class_scores(self) -> list[ClassScore]:
        """The scores of each class, in the order of the network."""
        confusion = self.confusion
        right, pictures, taken = (each.tolist() for each in (confusion.diag(), confusion.sum(1), confusion.sum(0)))
        return [
            ClassScore(
                name=name,
                num_pictures=pictures[index],
                recall=right[index] / pictures[index] if pictures[index] else None,
                precision=right[index] / taken[index] if taken[index] else None,
            )
            for index, name in enumerate(self.class_names)
        ]

    @property
    def bins(self) -> list[Bin]:
        """The reliability diagram: the bins of equal width that have pictures (Guo et al. 2017, arXiv:1706.04599)."""
        confidences, predicted = self.probabilities.max(1)
        numbers = (confidences * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1
        bins = []
        for number in numbers.unique().tolist():
            chosen = numbers == number
            bins.append(
                Bin(
                    low=number / NUM_BINS,
                    high=(number + 1) / NUM_BINS,
                    num_pictures=int(chosen.sum()),
                    confidence=confidences[chosen].double().mean().item(),
                    accuracy=(predicted == self.labels)[chosen].double().mean().item(),
                )
            )
        return bins

    @property
    def calibration_error(self) -> float:
        """The expected calibration error, 0–1: by how much confidence and accuracy of the bins differ on average."""
        gaps = sum(each.num_pictures * abs(each.accuracy - each.confidence) for each in self.bins)
        return gaps / len(self.labels)

    def pictures_in(self, true: int, predicted: int) -> list[int]:
        """Returns the indices of the pictures of class `true` that are taken for `predicted`, the surest first."""
        chosen = (self.labels == true) & (self.predicted == predicted)
        return self._surest_first(chosen)

    def differs_from(self, other: "Answers") -> list[int]:
        """Returns the indices of the pictures for which another network has another answer, the surest first."""
        names = torch.tensor([self.class_names.index(name) for name in other.class_names])
        return self._surest_first(self.predicted != names[other.predicted])

    def _surest_first(self, chosen: Tensor) -> list[int]:
        indices = chosen.nonzero().flatten()
        return indices[self.probabilities[indices].amax(1).argsort(descending=True, stable=True)].tolist()


@dataclass(frozen=True, kw_only=True)
class Answering:
    """Progress of `answer`, the `fraction` done, 0–1; the last one has the answers."""

    fraction: float
    answers: Answers | None = None


def class_rows(answers: Answers) -> list[dict[str, Any]]:
    """Returns a row of the public stream for each class: its scores, and for what its pictures are taken."""
    names = answers.class_names
    return [
        {
            "class": score.name,
            "pictures": score.num_pictures,
            "recall": score.recall,
            "precision": score.precision,
            "taken_for": dict(zip(names, counts, strict=True)),
        }
        for score, counts in zip(answers.class_scores, answers.confusion.tolist(), strict=True)
    ]


def bin_rows(answers: Answers) -> list[dict[str, Any]]:
    """Returns a row of the public stream for each bin of the reliability diagram."""
    return [
        {
            "low": each.low,
            "high": each.high,
            "pictures": each.num_pictures,
            "confidence": each.confidence,
            "accuracy": each.accuracy,
        }
        for each in answers.bins
    ]


def total_row(answers: Answers) -> dict[str, Any]:
    """Returns the last row of the public stream: the figures of all pictures together."""
    return {
        "pictures": len(answers.labels),
        "accuracy": answers.accuracy,
        "calibration_error": answers.calibration_error,
    }


def to_csv(answers: Answers) -> str:
    """Returns CSV with a row for each class: its scores, and how many of its pictures are taken for each class."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["class", "pictures", "recall", "precision", *answers.class_names])
    for row in class_rows(answers):
        table.writerow([row["class"], row["pictures"], row["recall"], row["precision"], *row["taken_for"].values()])
    return text.getvalue()


def sample(data: ImageData, count: int) -> ImageData:
    """Returns the images with only `count` of their test pictures, evenly spaced, or all if there are fewer."""
    total = len(data.test.labels)
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[torch.arange(min(count, total)) * total // max(1, min(count, total))] = True
    return replace(data, test=select(data.test, chosen))


def check_fits(model: OptimizerLabModel, data: ImageData) -> None:
    """Raises UserError unless the network takes pictures of this size, and knows exactly these classes."""
    size = data.test.images.shape[-1]
    if model.image_size != size:
        raise UserError(
            "This network takes pictures of {expected} pixels, and the test pictures here have {size}.",
            expected=model.image_size,
            size=size,
        )
    if set(model.class_names) != set(data.class_names):
        raise UserError(
            "This network knows other classes ({known}) than the test pictures here ({found}).",
            known=_some(model.class_names),
            found=_some(data.class_names),
        )


def unfair_because(run: Path, data: ImageData) -> str:
    """Returns why the answers of a run's network for these test pictures are no fair score, or "" if they are."""
    config, recorded = read_settings(run)
    if recorded["digest"] != data.digest:
        return Message(
            "The run was trained on other pictures ({expected}) than these ({found}).",
            expected=recorded["name"],
            found=data.name,
        )
    if config.train_split == "test":
        return Message("The run was trained on the test pictures: not a fair score.")
    return ""


def answer(model: OptimizerLabModel, data: ImageData) -> Generator[float, None, Answers]:
    """Returns the network's answers for the test pictures, whose classes may be in another order; yields progress, 0–1.

    The model must be in evaluation mode. Raises UserError if it does not fit the pictures, or if its output is not
    finite.
    """
    check_fits(model, data)
    images, labels = data.test.images, data.test.labels.cpu()
    order = torch.tensor([model.class_names.index(name) for name in data.class_names])
    found: list[Tensor] = []
    for start in range(0, len(labels), _AT_A_TIME):
        found.append(model.probabilities(images[start : start + _AT_A_TIME].to(model.mean.device)).cpu())
        yield min(1.0, (start + _AT_A_TIME) / len(labels))
    probabilities = torch.cat(found)
    if not probabilities.isfinite().all():
        raise UserError("The network's output is not a number: its weights are too large.")
    return Answers(class_names=model.class_names, labels=order[labels], probabilities=probabilities)


def _some(names: Sequence[str]) -> str:
    """The first names, for a sentence."""
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
