"""Image sets as uint8 tensors: loaded once, kept as safetensors, cut into batches without a loop over images."""

import hashlib
import json
import math
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainer.errors import Message, UserError, as_clause, first_line
from trainer.images.readers import Pictures
from trainer.images.sources import Source, find_source
from trainer.progress import Report, ignore_progress
from trainer.settings.config import SPLITS

# What `auto` tries, in this order, before it settles for drawn shapes.
_REAL = ("hub", "torchvision")
_METADATA = "optimizer-lab"


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images uint8 [n, 3, size, size], 0-255, RGB, in channels_last memory, and their labels int64 [n]."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """An image set and all that is known of where it comes from."""

    name: str
    """CIFAR-10, CIFAR-10 (JPEG), synthetic, or else the name of the dataset's repository or of the folder."""
    source: str
    """What load_images takes to load exactly this again: hub, torchvision, synthetic, owner/name@commit, or the
    absolute path of a folder."""
    revision: str | None
    """The commit on the Hub; None for what does not come from there."""
    digest: str
    """SHA-256, in hex, over class names, shapes, pixels and labels of both splits."""
    class_names: tuple[str, ...]
    train: Split
    test: Split
    path: Path | None
    """The file that both splits are mapped from; None where the disk has not taken one."""
    note: str
    """One sentence for page and command line: which images these are and, where `auto` chose them, why."""


def load_images(source: str | None = None, *, progress: Report = ignore_progress) -> ImageData:
    """The images of a source: hub, torchvision, synthetic, a folder, a dataset's owner/name[@revision], or auto.

    None is the environment's OPTIMIZER_LAB_DATA, or else auto: hub or torchvision, whichever was kept or answers
    first, or else synthetic, which is decided within 15 seconds. What was loaded once is kept beside the Hugging Face
    cache, and mapped from there the next time. `progress` is called with a fraction 0..1 and what is being done, in
    this thread, about twice a second or more.

    Raises ValueError with one sentence where there is no such source, or where it is no image set or out of reach.
    """
    source = source or os.environ.get("OPTIMIZER_LAB_DATA") or "auto"
    return _load_any(progress) if source == "auto" else _load(find_source(source), progress)


def open_images(path: str | os.PathLike) -> ImageData:
    """The images that load_images has kept in a file, its ImageData.path. The file is mapped, not copied to memory.

    Raises FileNotFoundError where there is none, ValueError where it is not what was written.
    """
    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            kept = json.loads(file.metadata()[_METADATA])
            images = [(file.get_tensor(f"{split}.images"), file.get_tensor(f"{split}.labels")) for split in SPLITS]
        pictures = Pictures(kept["name"], tuple(kept["class_names"]), *images)
        is_damaged = _digest(pictures) != kept["digest"]
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise UserError("The file {name} is damaged.", name=path.name) from error
    if is_damaged:
        raise UserError("The file {name} is damaged.", name=path.name)
    return _image_data(pictures, kept["source"], kept["revision"], kept["digest"], path)


def facts(data: ImageData) -> dict[str, Any]:
    """What a run remembers of its images, ready for JSON: name, source, revision and digest."""
    return {"name": data.name, "source": data.source, "revision": data.revision, "digest": data.digest}


def to_device(split: Split, device: str | torch.device) -> Split:
    """The split on a device; the same tensors where they are there already."""
    return Split(images=split.images.to(device), labels=split.labels.to(device))


def subset(split: Split, num_images: int) -> Split:
    """The first `num_images` of a split, or all there are: 0, too, means all. Nothing is copied."""
    assert num_images >= 0
    end = num_images or None
    return Split(images=split.images[:end], labels=split.labels[:end])


def pixel_statistics(split: Split) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and population standard deviation of each channel over all pixels of a split, in units of 0..1.

    Exact up to the last rounding: both come from whole numbers, how often each of the 256 values occurs. The deviation
    is 0 where all pixels are alike.
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
        if kept := _open_kept(source):
            return _because(kept, Message("it was kept from an earlier download"))
    reasons: list[str] = []
    for source in sources:
        try:
            data = _load(source, progress)
        except ValueError as error:
            reasons.append(as_clause(error))
        else:
            return _because(data, *(reasons or [Message("the Hub answered")]))
    return _because(_load(find_source("synthetic"), progress), *reasons)


def _load(source: Source, progress: Report) -> ImageData:
    if kept := _open_kept(source):
        return kept
    pictures = source.read(progress)
    digest = _digest(pictures)
    try:
        path = _keep(source, pictures, digest)
    except (OSError, SafetensorError) as error:
        return _image_data(pictures, source.address, source.revision, digest, None, unkept=first_line(error))
    del pictures  # before the same are mapped
    return open_images(path)


def _because(data: ImageData, *reasons: str) -> ImageData:
    """The images with the one or two reasons why they were chosen in their note."""
    if len(reasons) == 1:
        return replace(data, note=Message("{note}: {why}.", note=as_clause(data.note, capital=True), why=reasons[0]))
    hub, torchvision = reasons
    note = Message(
        "{note}: {hub}; {torchvision}.", note=as_clause(data.note, capital=True), hub=hub, torchvision=torchvision
    )
    return replace(data, note=note)


def _cache_file(source: Source) -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME, "optimizer-lab", f"{source.key}.safetensors")


def _open_kept(source: Source) -> ImageData | None:
    """The source's images from the cache; None where they are not there, or damaged, and must be read again."""
    try:
        return open_images(_cache_file(source))
    except (FileNotFoundError, ValueError):
        return None


def _keep(source: Source, pictures: Pictures, digest: str) -> Path:
    """Writes the pictures to the cache, in such a way that nobody ever sees half a file."""
    path = _cache_file(source)
    kept = {
        "name": pictures.name,
        "source": source.address,
        "revision": source.revision,
        "class_names": pictures.class_names,
        "digest": digest,
    }
    tensors = {}
    for split in SPLITS:
        tensors[f"{split}.images"], tensors[f"{split}.labels"] = getattr(pictures, split)
    # A name of its own: another process may be writing the same set.
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, unfinished, metadata={_METADATA: json.dumps(kept)})
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return path


def _image_data(
    pictures: Pictures, source: str, revision: str | None, digest: str, path: Path | None, unkept: str = ""
) -> ImageData:
    train, test = (Split(images=images.permute(0, 3, 1, 2), labels=labels) for images, labels in pictures[2:])
    origin = "{name} from the Hub" if revision else "{name} from a folder"
    if source in ("synthetic", "torchvision"):
        origin = {"synthetic": "drawn shapes (synthetic)", "torchvision": "{name} from torchvision"}[source]
    facts_of_it = {
        "what": Message(origin, name=pictures.name),
        "train": f"{len(train.labels):,}",
        "test": f"{len(test.labels):,}",
    }
    note = Message("Training on {what}, {train} training and {test} test images.", **facts_of_it)
    if unkept:
        note = Message(
            "Training on {what}, {train} training and {test} test images, which the disk could not keep ({reason}).",
            **facts_of_it,
            reason=unkept,
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
    )


def _digest(pictures: Pictures) -> str:
    shapes = [list(tensor.shape) for split in pictures[2:] for tensor in split]
    digest = hashlib.sha256(json.dumps([pictures.class_names, shapes]).encode())
    for split in pictures[2:]:
        for tensor in split:
            digest.update(tensor.numpy())
    return digest.hexdigest()
