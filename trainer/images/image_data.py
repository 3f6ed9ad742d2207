"""Image sets as uint8 tensors, and their cache: a safetensors file for each set."""

import hashlib
import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainer.cache import cached, write_cached
from trainer.errors import Message, UserError, as_clause, first_line
from trainer.images.readers import Pictures
from trainer.images.sources import Source, find_source
from trainer.progress import Report, ignore_progress
from trainer.settings.config import SPLITS

# The sources that `auto` tries, in this order, before it draws shapes.
_REAL = ("hub", "torchvision")
_METADATA = "optimizer-lab"
_UNBALANCED = 1.8  # times the mean class, for the largest one
_ORIGINS = {
    "synthetic": "drawn shapes (synthetic)",
    "torchvision": "{name} from torchvision",
    "own": "your own pictures",
}

OWN = "own"
"""The source of the pictures that a visitor of the app has brought: only the app has them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images uint8 [n, 3, size, size], 0-255, RGB, in channels_last memory, and their labels int64 [n]."""

    images: Tensor
    labels: Tensor


# The mean and the standard deviation of each channel.
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """An image set and its origin."""

    name: str
    """CIFAR-10, CIFAR-10 (JPEG), synthetic, or the name of the dataset's repository or folder."""
    source: str
    """The argument of load_images that loads exactly this set: hub, torchvision, synthetic, owner/name@commit, or the
    absolute path of a folder."""
    revision: str | None
    """The commit on the Hub; None for other sources."""
    digest: str
    """SHA-256, in hex, of the class names, and the shapes, pixels and labels of both splits."""
    class_names: tuple[str, ...]
    train: Split
    test: Split
    path: Path | None
    """The cache file that both splits are memory-mapped from; None if it could not be written."""
    note: str
    """One sentence for the user: which images these are and, if `auto` chose them, why."""
    remarks: tuple[str, ...] = ()
    """Sentences on what was skipped, split off or missing."""

    @property
    def sentences(self) -> str:
        """The note and the remarks."""
        return " ".join([self.note, *self.remarks])


def load_images(source: str | None = None, *, progress: Report = ignore_progress) -> ImageData:
    """Returns the image set of `source`: hub, torchvision, synthetic, a folder or zip, a dataset, or auto.

    A dataset of the Hub is written as in DatasetAddress, owner/name at the least.

    The default is the environment variable OPTIMIZER_LAB_DATA, or auto if it is not set. auto takes the first of hub
    and torchvision that is cached or, if neither is, the first that answers, or else synthetic. It decides within 15
    seconds.

    A loaded set is cached in the folder optimizer-lab of HF_HOME and memory-mapped from there the next time. If that
    cannot be written, a temporary folder takes its place. `progress` is called in this thread, at least about twice a
    second, with a fraction 0–1 and what is being done.

    Raises UserError if there is no such source, it cannot be reached, or it is not an image set.
    """
    source = source or os.environ.get("OPTIMIZER_LAB_DATA") or "auto"
    return _load_any(progress) if source == "auto" else _load(find_source(source), progress)


def find_images(source: str) -> ImageData | None:
    """Returns the image set of `source` if it has been loaded earlier, else None; contacts no server for a commit."""
    return _open_cached(find_source(source))


def save_images(data: ImageData, path: Path) -> None:
    """Writes an image set to a file that `open_images` reads. Raises OSError if it cannot be written."""
    _write(path, to_pictures(data), source=data.source, revision=data.revision, digest=data.digest)


def open_images(path: str | os.PathLike[str]) -> ImageData:
    """Returns the image set in a cache file of load_images (ImageData.path), memory-mapped, not copied.

    Raises FileNotFoundError if there is no such file, UserError if it is damaged.
    """
    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads(file.metadata()[_METADATA])
            train, test = ((file.get_tensor(f"{split}.images"), file.get_tensor(f"{split}.labels")) for split in SPLITS)
        remarks = tuple(map(Message.from_json, metadata.get("remarks", ())))  # missing in files of earlier versions
        pictures = Pictures(metadata["name"], tuple(metadata["class_names"]), train, test, remarks)
        origin = {name: metadata[name] for name in ("source", "revision", "digest")}
        is_damaged = _digest(pictures) != origin["digest"]
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise UserError("The file {name} is damaged.", name=path.name) from error
    if is_damaged:
        raise UserError("The file {name} is damaged.", name=path.name)
    return _image_data(pictures, **origin, path=path)


def to_pictures(data: ImageData) -> Pictures:
    """Returns the pictures of an image set, in the same memory."""
    train, test = ((split.images.permute(0, 2, 3, 1), split.labels) for split in (data.train, data.test))
    return Pictures(data.name, data.class_names, train, test, tuple(map(Message, data.remarks)))


def from_pictures(pictures: Pictures, *, source: str, revision: str | None) -> ImageData:
    """Returns the image set of some pictures, in the same memory, with their own digest and without a file."""
    return _image_data(pictures, source=source, revision=revision, digest=_digest(pictures), path=None)


def facts(data: ImageData) -> dict[str, Any]:
    """Returns what a run records of its images, ready for JSON: name, source, revision and digest."""
    return {"name": data.name, "source": data.source, "revision": data.revision, "digest": data.digest}


def imbalance(data: ImageData) -> str:
    """Returns a sentence on what the accuracy is worth if one class has most of the training images; else ""."""
    counts = torch.bincount(data.train.labels)
    largest, total = int(counts.max()), int(counts.sum())
    if largest < _UNBALANCED * total / int((counts > 0).sum()):
        return ""
    return Message(
        "The largest class has {share} of the pictures, so that guessing it is right as often: look at the accuracy of "
        "each class, too.",
        share=f"{largest / total:.0%}",
    )


def to_device(split: Split, device: str | torch.device) -> Split:
    """Returns the split on a device: the same tensors if they are there already."""
    return Split(images=split.images.to(device), labels=split.labels.to(device))


def subset(split: Split, num_images: int) -> Split:
    """Returns the first `num_images` images of a split as a view; 0 means all."""
    assert num_images >= 0
    end = num_images or None
    return Split(images=split.images[:end], labels=split.labels[:end])


def select(split: Split, which: Tensor) -> Split:
    """Returns copies of the images of a split for which `which`, bool [n], is true."""
    images = split.images.permute(0, 2, 3, 1)[which].permute(0, 3, 1, 2)
    return Split(images=images, labels=split.labels[which])


def pixel_statistics(split: Split) -> Statistics:
    """Returns the mean and population standard deviation of each channel over all pixels, for pixel values from 0 to 1.

    Both are computed with integers, from the number of times that each of the 256 values occurs, and are exact up to
    the last rounding. The deviation of equal pixels is exactly 0.
    """
    mean, std = zip(*(_channel_statistics(channel) for channel in split.images.unbind(1)), strict=True)
    return mean, std


def _channel_statistics(channel: Tensor) -> tuple[float, float]:
    counts = list(enumerate(torch.bincount(channel.flatten(), minlength=256).tolist()))
    number = channel.numel()
    total = sum(value * count for value, count in counts)
    squares = sum(value * value * count for value, count in counts)
    return total / number / 255, math.sqrt(number * squares - total * total) / number / 255


def _load_any(progress: Report) -> ImageData:
    sources = [find_source(address) for address in _REAL]
    for source in sources:
        if data := _open_cached(source):
            return _with_reasons(data, Message("it was downloaded earlier"))
    reasons: list[str] = []
    for source in sources:
        try:
            data = _load(source, progress)
        except UserError as error:
            reasons.append(as_clause(error))
        else:
            return _with_reasons(data, *(reasons or [Message("the Hub answered")]))
    return _with_reasons(_load(find_source("synthetic"), progress), *reasons)


def _load(source: Source, progress: Report) -> ImageData:
    if data := _open_cached(source):
        return data
    pictures = source.read(progress)
    digest = _digest(pictures)
    try:
        path = _write_cache(source, pictures, digest)
    except OSError as error:
        reason = first_line(error)
        return _image_data(
            pictures, source=source.address, revision=source.revision, digest=digest, path=None, cache_error=reason
        )
    del pictures  # before the cache file is mapped: only one copy in memory
    return open_images(path)


def _with_reasons(data: ImageData, *reasons: str) -> ImageData:
    """Returns the images with the one or two reasons for choosing them in their note."""
    note = as_clause(data.note, capital=True)
    if len(reasons) == 1:
        return replace(data, note=Message("{note}: {why}.", note=note, why=reasons[0]))
    hub, torchvision = reasons
    return replace(data, note=Message("{note}: {hub}; {torchvision}.", note=note, hub=hub, torchvision=torchvision))


def _cache_file(source: Source) -> str:
    return f"{source.key}.safetensors"


def _open_cached(source: Source) -> ImageData | None:
    """Returns the source's images from the cache; None if they are missing or damaged."""
    try:
        return open_images(cached(_cache_file(source)))
    except (FileNotFoundError, UserError):
        return None


def _write_cache(source: Source, pictures: Pictures, digest: str) -> Path:
    """Writes the pictures to the cache, and returns the file's path. Raises OSError if it cannot be written."""
    origin = {"source": source.address, "revision": source.revision, "digest": digest}
    return write_cached(_cache_file(source), lambda path: _write(path, pictures, **origin))


def _write(path: Path, pictures: Pictures, **origin: str | None) -> None:
    """Writes pictures to a file, with their source, revision and digest. Raises OSError if it cannot be written."""
    metadata = {
        "name": pictures.name,
        "class_names": pictures.class_names,
        "remarks": [remark.to_json() for remark in pictures.remarks],
        **origin,
    }
    tensors = {}
    for split in SPLITS:
        tensors[f"{split}.images"], tensors[f"{split}.labels"] = getattr(pictures, split)
    try:
        save_file(tensors, path, metadata={_METADATA: json.dumps(metadata)})
    except SafetensorError as error:
        raise OSError(str(error)) from None


def _image_data(
    pictures: Pictures, *, source: str, revision: str | None, digest: str, path: Path | None, cache_error: str = ""
) -> ImageData:
    train, test = (
        Split(images=images.permute(0, 3, 1, 2), labels=labels) for images, labels in (pictures.train, pictures.test)
    )
    origin = "{name} from the Hub" if revision else "{name} from a folder"
    if source in _ORIGINS:
        origin = _ORIGINS[source]
    values = {
        "what": Message(origin, name=pictures.name),
        "train": f"{len(train.labels):,}",
        "test": f"{len(test.labels):,}",
    }
    note = Message("Training on {what}, {train} training and {test} test images.", **values)
    if cache_error:
        note = Message(
            "Training on {what}, {train} training and {test} test images, which could not be cached ({reason}).",
            **values,
            reason=cache_error,
        )
    return ImageData(
        name=pictures.name,
        source=source,
        revision=revision,
        digest=digest,
        class_names=pictures.class_names,
        train=train,
        test=test,
        path=path,
        note=note,
        remarks=pictures.remarks,
    )


def _digest(pictures: Pictures) -> str:
    tensors = [*pictures.train, *pictures.test]
    shapes = [list(tensor.shape) for tensor in tensors]
    digest = hashlib.sha256(json.dumps([pictures.class_names, shapes]).encode())
    for tensor in tensors:
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
