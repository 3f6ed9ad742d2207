"""Reads pictures from the rows of a dataset, or from an image folder with a folder for each class.

All are decoded by `decode_picture` and cropped to SIZE×SIZE.
"""

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import torch
from torch import Tensor

from trainer.errors import Message, UserError, as_clause, first_line
from trainer.images.class_names import check_class_names
from trainer.images.picture import decode_picture, fit, read_picture
from trainer.progress import Report, quiet
from trainer.settings.config import SPLITS

SIZE = 32
"""The width and height, in pixels, of every picture of an image set."""
# CIFAR-10 has 60,000; 300,000 take 0.9 GB of memory.
MAX_IMAGES = 300_000
CIFAR10_REPO = "uoft-cs/cifar10"
CIFAR10_NAME, CIFAR10_JPEG_NAME = "CIFAR-10", "CIFAR-10 (JPEG)"
CIFAR10_SIZES = {"train": 50_000, "test": 10_000}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_ROWS_AT_ONCE = 1000
_BYTES = SIZE * SIZE * 3


class Pictures(NamedTuple):
    """An image set as it was read: each split is pictures, uint8 [n, SIZE, SIZE, 3], and labels, int64 [n]."""

    name: str
    class_names: tuple[str, ...]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def read_dataset(path: str, revision: str | None, name: str, what: str, report: Report) -> Pictures:
    """Returns the pictures of a dataset, on the Hub or in a folder, that has an Image and a ClassLabel column.

    Raises UserError, with a sentence that begins with `what`, if it cannot be read or lacks a column or split.
    """
    report(0.0, Message("Opening {name}", name=name))
    import datasets  # takes a second or more

    # Streaming, because a download reports no progress and leaves the set on the disk twice, as files and as Arrow.
    with quiet(datasets), quiet(huggingface_hub), tempfile.TemporaryDirectory(prefix="optimizer-lab-") as scratch:
        with _dataset_errors(what):
            splits = datasets.load_dataset(path, revision=revision, streaming=True, cache_dir=scratch)
        for split in SPLITS:
            if split not in splits:
                raise UserError("{what} has no {split} split.", what=what, split=split)
        features = splits["train"].features or {}  # `datasets` casts the other splits to the same features
        image = _column(features, datasets.Image, what)
        label = _column(features, datasets.ClassLabel, what)
        class_names = _checked(features[label].names, what)

        sizes = splits["train"].info.splits or {}
        expected = sum(sizes[split].num_examples or 0 for split in SPLITS if split in sizes)
        done, formats, results = 0, set(), []
        for split in SPLITS:
            rows = splits[split].select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
            # A bytearray grows in place; torch.cat would need memory for all pixels twice.
            pixels, labels = bytearray(), []
            for table in _tables(rows, what):
                for encoded in table.column(image).to_pylist():
                    try:
                        picture, kind = _decode_row(encoded)
                    except UserError as error:
                        raise UserError(
                            "{what}: row {row} of its {split} split cannot be read ({reason}).",
                            what=what,
                            row=len(pixels) // _BYTES,
                            split=split,
                            reason=as_clause(error),
                        ) from error
                    pixels += picture.permute(1, 2, 0).numpy().tobytes()
                    formats.add(kind)
                labels += table.column(label).to_pylist()
                done += len(table)
                _check_count(done, what)
                doing = Message("Reading {name}: {done} pictures", name=name, done=f"{done:,}")
                report(_fraction(done, expected), doing)
            results.append(
                _as_tensors(pixels, labels, len(class_names), Message("in its {split} split", split=split), what)
            )
    return Pictures(_accurate_name(name, class_names, formats), class_names, *results)


def find_tables(folder: Path) -> list[Path]:
    """Returns the Parquet files of a folder that is laid out as a dataset's repository; [] for an image folder."""
    return [*folder.glob("*.parquet"), *folder.glob("*/*.parquet")]


Files = list[tuple[Path, int]]
"""A split of an image folder: its files, each with its label."""


def find_pictures(folder: Path, what: str) -> tuple[tuple[str, ...], tuple[Files, Files]]:
    """Returns the class names of an image folder, {train,test}/<class>/*, and the files of both splits.

    Raises UserError, with a sentence that begins with `what`, if the folder has another layout, and OSError if it
    cannot be listed.
    """
    found = {split: _folders(folder / split) for split in SPLITS}
    if not any(found.values()):
        raise UserError(
            "{what} has neither train/<class>/ and test/<class>/ with pictures nor Parquet files.",
            what=what,
        )
    for split, classes in found.items():
        if not classes:
            raise UserError(
                "{what} has no {split} split: pictures must be in {folder}/<class>/ too.",
                what=what,
                split=split,
                folder=split,
            )
    class_names, test_names = (tuple(classes) for classes in found.values())
    if unmatched := sorted(set(class_names) ^ set(test_names)):
        name = repr(unmatched[0])
        raise UserError("{what} has the class {name} in only one of train and test.", what=what, name=name)
    _checked(class_names, what)
    train, test = (_files(classes, split, what) for split, classes in found.items())
    _check_count(len(train) + len(test), what)
    return class_names, (train, test)


def read_pictures(name: str, class_names: tuple[str, ...], splits: tuple[Files, Files], report: Report) -> Pictures:
    """Returns the pictures in the files that find_pictures found.

    Raises UserError, with the file's name, if one cannot be read.
    """
    done, total, results = 0, sum(map(len, splits)), []
    pool = ThreadPoolExecutor()
    try:
        for files in splits:
            images = torch.empty(len(files), SIZE, SIZE, 3, dtype=torch.uint8)
            for image, picture in zip(images, pool.map(_read_file, [file for file, _ in files]), strict=True):
                image.copy_(picture.permute(1, 2, 0))
                done += 1
                report(
                    done / total,
                    Message(
                        "Reading {name}: {done} of {total} pictures", name=name, done=f"{done:,}", total=f"{total:,}"
                    ),
                )
            results.append((images, torch.tensor([label for _, label in files])))
    finally:
        # On an interrupt, do not wait for the remaining pictures.
        pool.shutdown(cancel_futures=True)
    return Pictures(name, class_names, *results)


@contextmanager
def _dataset_errors(what: str) -> Iterator[None]:
    """Turns any error of `datasets` and the libraries below it into a UserError."""
    try:
        yield
    except Exception as error:
        raise UserError("{what} cannot be read ({reason}).", what=what, reason=first_line(error)) from error


def _tables(rows: Any, what: str) -> Iterator[Any]:
    with _dataset_errors(what):
        yield from rows.with_format("arrow").iter(batch_size=_ROWS_AT_ONCE)


def _column(features: Mapping[str, Any], kind: type, what: str) -> str:
    """Returns the name of the first column of a type; of several labels, as in CIFAR-100, the first is the finest."""
    for column, feature in features.items():
        if isinstance(feature, kind):
            return column
    raise UserError("{what} has no column of the type {type}.", what=what, type=kind.__name__)


def _checked(class_names: Sequence[str], what: str) -> tuple[str, ...]:
    try:
        return check_class_names(class_names)
    except UserError as error:
        raise UserError("{what} cannot be used: {why}.", what=what, why=as_clause(error)) from error


def _decode_row(value: Mapping[str, Any] | None) -> tuple[Tensor, str]:
    """Returns a row's picture, uint8 [3, SIZE, SIZE], and its format: JPEG, PNG or other."""
    data = (value or {}).get("bytes") or b""
    kind = "JPEG" if data.startswith(b"\xff\xd8\xff") else "PNG" if data.startswith(b"\x89PNG") else "other"
    return fit(decode_picture(data), SIZE, "crop"), kind


def _as_tensors(
    pixels: bytearray, labels: list[int | None], num_classes: int, where: str, what: str
) -> tuple[Tensor, Tensor]:
    if not labels:
        raise UserError("{what} has no pictures {where}.", what=what, where=where)
    # -1 is a withheld label, as in the test splits of competitions.
    if not all(label is not None and 0 <= label < num_classes for label in labels):
        raise UserError("{what} has pictures without a label {where}.", what=what, where=where)
    return torch.frombuffer(pixels, dtype=torch.uint8).view(-1, SIZE, SIZE, 3), torch.tensor(labels)


def _accurate_name(name: str, class_names: tuple[str, ...], formats: set[str]) -> str:
    """Returns the name of a dataset: CIFAR10_NAME or CIFAR10_JPEG_NAME for a copy of CIFAR-10, otherwise `name`.

    Another repo with the classes of CIFAR-10 keeps its name unless its pictures are JPEG.
    """
    if class_names != CIFAR10_CLASSES:
        return name
    if "JPEG" in formats:
        return CIFAR10_JPEG_NAME
    is_other_repo = "/" in name and name != CIFAR10_REPO
    return CIFAR10_NAME if formats == {"PNG"} and not is_other_repo else name


def _folders(folder: Path) -> dict[str, Path]:
    """Returns a folder's subfolders by name, sorted; {} if it is not a folder."""
    return {entry.name: entry for entry in _visible(folder) if entry.is_dir()} if folder.is_dir() else {}


def _files(classes: dict[str, Path], split: str, what: str) -> Files:
    """Returns the files of a split, in a random order that is always the same."""
    files = []
    for label, (name, folder) in enumerate(classes.items()):
        class_files = [(file, label) for file in _visible(folder)]
        if not class_files:
            raise UserError(
                "{what} has no pictures {where}.", what=what, where=Message("in {folder}", folder=f"{split}/{name}")
            )
        files += class_files
    # num_images takes the first n files: in the order of the classes they would all be of one class.
    random.Random(0).shuffle(files)  # noqa: S311
    return files


def _visible(folder: Path) -> list[Path]:
    """Returns a folder's entries, sorted, without dot files such as .DS_Store."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _read_file(file: Path) -> Tensor:
    try:
        return fit(read_picture(file), SIZE, "crop")
    except UserError as error:
        raise UserError("{name}: {why}", name=file.name, why=str(error)) from error


def _check_count(num: int, what: str) -> None:
    if num > MAX_IMAGES:
        raise UserError("{what} has more than {most} pictures, which is the limit.", what=what, most=f"{MAX_IMAGES:,}")


def _fraction(done: int, expected: int) -> float:
    """Returns the progress, 0–1; if the total is unknown, a fraction that grows ever more slowly and stays below 1."""
    return min(1.0, done / expected) if expected else done / (done + 20_000)
