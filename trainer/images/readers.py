"""Reads pictures from the rows of a dataset, or from the files of an image folder or zip.

All are decoded by `decode_picture` and cropped to SIZE×SIZE. The few that cannot be read are skipped.
"""

import glob
import random
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import torch
from torch import Tensor

from trainer.errors import Message, UserError, as_clause, first_line
from trainer.images.address import DatasetAddress
from trainer.images.class_names import check_class_names
from trainer.images.image_folder import Files, arrange, split_names
from trainer.images.picture import decode_picture, fit
from trainer.progress import Report, quiet

SIZE = 32
"""The width and height, in pixels, of every picture of an image set."""
# CIFAR-10 has 60,000; 300,000 take 0.9 GB of memory.
MAX_IMAGES = 300_000
CIFAR10_REPO = "uoft-cs/cifar10"
CIFAR10_NAME, CIFAR10_JPEG_NAME = "CIFAR-10", "CIFAR-10 (JPEG)"
CIFAR10_SIZES = {"train": 50_000, "test": 10_000}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_AT_ONCE = 20  # rows or files: a photograph may have megabytes
_THREADS = 4  # that decode: a large picture takes a gigabyte meanwhile
_BYTES = SIZE * SIZE * 3
_MOST_SKIPPED = 0.05  # of a set
_NAMED = 10  # of those that were skipped
_TEST_SHARE = 0.1  # split off from a set that has no test pictures

_ABSENT = {
    "train": "There are no training pictures of {names}.",
    "test": "There are no test pictures of {names}.",
}

_IMAGE_COLUMNS = ("image", "img", "picture", "pixel_values")
_LABEL_COLUMNS = ("label", "labels", "fine_label", "coarse_label", "class", "category", "target")
_LABEL_TYPE = re.compile(r"u?int\d+|(large_)?string")

Label = int | str | None


class Pictures(NamedTuple):
    """An image set as it was read: each split is pictures, uint8 [n, SIZE, SIZE, 3], and labels, int64 [n]."""

    name: str
    class_names: tuple[str, ...]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    remarks: tuple[Message, ...] = ()
    """Sentences for the user on what was skipped, split off or missing."""


class _Item(NamedTuple):
    """A picture before it is read."""

    name: str
    label: Label
    read: Callable[[], bytes]


class _Reading:
    """Reads the pictures of a set, counts them for the progress, and collects the names of those that it skips."""

    def __init__(self, name: str, what: str, expected: int, report: Report):
        self.name, self.what, self.expected, self.report = name, what, expected, report
        self.done = 0
        self.skipped: list[str] = []
        self.formats: set[str] = set()

    def split(self, batches: Iterable[list[_Item]]) -> tuple[bytearray, list[Label]]:
        """Returns the pixels of the pictures in the batches that can be read, and their labels."""
        # A bytearray grows in place; torch.cat would need memory for all pixels twice.
        pixels, labels = bytearray(), list[Label]()
        pool = ThreadPoolExecutor(_THREADS)
        try:
            for batch in batches:
                _check_count(self.done + len(batch), self.what)
                for item, result in zip(batch, pool.map(_read, batch), strict=True):
                    self.done += 1
                    if result is None:
                        self.skipped.append(item.name)
                    else:
                        pixels += result[0]
                        labels.append(item.label)
                        self.formats.add(result[1])
                    self.report(_fraction(self.done, self.expected), self._doing())
        finally:
            # On an interrupt, do not wait for the remaining pictures.
            pool.shutdown(cancel_futures=True)
        return pixels, labels

    def remarks(self, outside: Sequence[str] = ()) -> list[Message]:
        """Returns a sentence on the files that were skipped, if any, with those that are `outside` the classes.

        Raises UserError if more than _MOST_SKIPPED of the pictures could not be read.
        """
        if len(self.skipped) > _MOST_SKIPPED * self.done:
            raise UserError(
                "{what} has {count} of {total} pictures that cannot be read, more than one in twenty: {names}.",
                what=self.what,
                count=f"{len(self.skipped):,}",
                total=f"{self.done:,}",
                names=listed(sorted(self.skipped)),
            )
        names = sorted([*self.skipped, *outside])
        if not names:
            return []
        return [Message("Skipped files ({count}): {names}.", count=f"{len(names):,}", names=listed(names))]

    def _doing(self) -> Message:
        if self.expected:
            return Message(
                "Reading {name}: {done} of {total} pictures",
                name=self.name,
                done=f"{self.done:,}",
                total=f"{self.expected:,}",
            )
        return Message("Reading {name}: {done} pictures", name=self.name, done=f"{self.done:,}")


def read_files(files: Files, name: str, what: str, report: Report) -> Pictures:
    """Returns the pictures in the files of an image folder or zip, in an order of the splits that is always the same.

    Raises UserError, with a sentence that begins with `what`, if the files have another layout, or if more than a
    twentieth of them cannot be read.
    """
    layout = arrange(files, what)
    class_names = _checked(layout.class_names, what)
    reading = _Reading(name, what, sum(map(len, layout.splits.values())), report)
    splits = {}
    for split, placed in layout.splits.items():
        items = [_Item(path, label, files[path]) for path, label in placed]
        # num_images takes the first n files: in the order of the classes they would all be of one class.
        random.Random(0).shuffle(items)  # noqa: S311
        splits[split] = reading.split(items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))
    remarks = reading.remarks(layout.outside)
    return assembled(name, class_names, splits, remarks, what)


def read_dataset(address: DatasetAddress, what: str, report: Report) -> Pictures:
    """Returns the pictures of a dataset on the Hub, which has a column of images and one of labels.

    Raises UserError, with a sentence that begins with `what`, if it cannot be read, lacks a column or the train split,
    or has several configurations of which the address names none.
    """
    report(0.0, Message("Opening {name}", name=address.repo_id))
    import datasets  # takes a second or more

    def load(**options: Any) -> Any:
        try:
            return datasets.load_dataset(address.repo_id, address.config, revision=address.revision, **options)
        except ValueError as error:
            names = re.findall("'(.+?)'", "".join(re.findall(r"(?:available configs|Available): (\[.*\])", str(error))))
            if not names:
                raise
            if address.config:
                raise UserError(
                    "{what} has no configuration {name}: choose one of these: {names}.",
                    what=what,
                    name=repr(address.config),
                    names=listed(names),
                ) from error
            raise UserError(
                "{what} has several configurations: choose one, as in {repo}:{first} ({names}).",
                what=what,
                repo=address.repo_id,
                first=names[0],
                names=listed(names),
            ) from error

    return _read_rows(load, address.repo_id, address.label, what, report)


def read_parquet(folder: Path, name: str, what: str, report: Report) -> Pictures:
    """Returns the pictures of a dataset's Parquet files in a folder, which are named as on the Hub.

    Raises UserError, with a sentence that begins with `what`, if they cannot be read or lack a column or the train
    split.
    """
    report(0.0, Message("Opening {name}", name=name))
    import datasets
    from pyarrow.dataset import ParquetFragmentScanOptions
    from pyarrow.parquet import read_metadata

    files: dict[str, list[str]] = {}
    num_rows = 0
    for file in sorted(find_tables(folder)):
        words = re.split(r"[^a-z]+", file.relative_to(folder).as_posix().lower().removesuffix(".parquet"))
        for split in split_names(words):
            files.setdefault(split, []).append(glob.escape(str(file)))
            with _dataset_errors(what):
                num_rows += read_metadata(file).num_rows
    # Arrow would keep all that it has read of a file until its end: gigabytes of photographs.
    options = ParquetFragmentScanOptions(pre_buffer=False)
    load = partial(datasets.load_dataset, "parquet", data_files=files, fragment_scan_options=options)
    return _read_rows(load, name, None, what, report, num_rows)


def find_tables(folder: Path) -> list[Path]:
    """Returns the Parquet files of a folder that is laid out as a dataset's repository; [] for an image folder."""
    return [*folder.glob("*.parquet"), *folder.glob("*/*.parquet")]


def _read_rows(
    load: Callable[..., Any], name: str, label: str | None, what: str, report: Report, num_rows: int = 0
) -> Pictures:
    """Returns the pictures of a dataset that `load` opens. `label` is the column of the labels, if it was chosen.

    `num_rows` is the number of its rows, 0 if only the dataset may know it.
    """
    import datasets

    # Streaming, because a download reports no progress and leaves the set on the disk twice, as files and as Arrow.
    with quiet(datasets), quiet(huggingface_hub), tempfile.TemporaryDirectory(prefix="optimizer-lab-") as scratch:
        with _dataset_errors(what):
            found = load(streaming=True, cache_dir=scratch)
        chosen = split_names(found)
        if "train" not in chosen:
            raise UserError("{what} has no {split} split.", what=what, split="train")
        first = found[chosen["train"]]
        features = first.features or {}  # `datasets` casts the other splits to the same features
        encoded = [column for column in _IMAGE_COLUMNS if column in features and _holds_bytes(features[column])]
        image = _column(features, datasets.Image, encoded, what)
        label = label or _column(features, datasets.ClassLabel, _LABEL_COLUMNS, what)
        if label not in features:
            raise UserError("{what} has no column {column}.", what=what, column=repr(label[:100]))
        if not isinstance(features[label], datasets.ClassLabel) and not _LABEL_TYPE.fullmatch(_type(features[label])):
            raise UserError("{what} has labels that are neither texts nor whole numbers.", what=what)
        sizes = first.info.splits or {}
        expected = num_rows or sum(sizes[part].num_examples or 0 for part in chosen.values() if part in sizes)
        reading, splits = _Reading(name, what, expected, report), {}
        for split, part in chosen.items():
            rows = found[part].select_columns([image, label])
            if isinstance(features[image], datasets.Image):
                rows = rows.cast_column(image, datasets.Image(decode=False))
            splits[split] = reading.split(_batches(rows, image, label, split, what))
    remarks = reading.remarks()
    values = getattr(features[label], "names", None) or _distinct(splits)
    class_names = _checked([str(value) for value in values], what)
    # Those with names are positions already.
    positions: dict[Label, Label] = {value: position for position, value in enumerate(values)}
    labelled = {
        split: (pixels, [positions.get(value, value) for value in labels]) for split, (pixels, labels) in splits.items()
    }
    return assembled(_accurate_name(name, class_names, reading.formats), class_names, labelled, remarks, what)


def _batches(rows: Any, image: str, label: str, split: str, what: str) -> Iterator[list[_Item]]:
    """Yields the rows of a split, some at a time."""
    number = 0
    with _dataset_errors(what):
        for table in rows.with_format("arrow").iter(batch_size=_AT_ONCE):
            columns = table.column(image).to_pylist(), table.column(label).to_pylist()
            batch = []
            for encoded, value in zip(*columns, strict=True):
                data = (encoded.get("bytes") if isinstance(encoded, dict) else encoded) or b""
                batch.append(_Item(f"{split}/{number}", value, partial(bytes, data)))
                number += 1
            yield batch


def _holds_bytes(feature: Any) -> bool:
    """Whether the values of a column are the bytes of files, alone or next to their paths."""
    return "binary" in _type(feature.get("bytes") if isinstance(feature, dict) else feature)


def _type(feature: Any) -> str:
    """Returns the name of the type of a column whose values are single ones; "" for others, such as lists."""
    import datasets

    return feature.dtype if isinstance(feature, datasets.Value) else ""


def _distinct(splits: Mapping[str, tuple[bytearray, list[Label]]]) -> list[Any]:
    """Returns the classes of labels that have no names of their own: texts, or numbers that stand for themselves."""
    return sorted({value for _, labels in splits.values() for value in labels if value is not None})


def assembled(
    name: str,
    class_names: tuple[str, ...],
    splits: Mapping[str, tuple[bytearray, Sequence[Label]]],
    remarks: list[Message],
    what: str,
) -> Pictures:
    """Returns the set of the pixels and labels of its splits, with more remarks.

    Without a test split, a tenth of each class is for testing. Raises UserError, with a sentence that begins with
    `what`, if a split has no pictures or one without a label.
    """
    tensors = {}
    for split, (pixels, labels) in splits.items():
        where = Message("in its {split} split", split=split)
        tensors[split] = _in_mixed_order(*_as_tensors(pixels, labels, len(class_names), where, what))
    if "test" not in tensors:
        tensors["train"], tensors["test"] = _split_off(*tensors["train"])
        count = len(tensors["test"][1])
        if not count:
            raise UserError("{what} has too few pictures: one class at least needs two.", what=what)
        remarks.append(
            Message("A tenth of each class was split off for testing: {count} pictures.", count=f"{count:,}")
        )
    for split, template in _ABSENT.items():
        counts = torch.bincount(tensors[split][1], minlength=len(class_names))
        if absent := [class_names[label] for label in (counts == 0).nonzero()[:, 0].tolist()]:
            remarks.append(Message(template, names=listed(absent)))
    return Pictures(name, class_names, tensors["train"], tensors["test"], tuple(remarks))


def _split_off(images: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Returns the set without _TEST_SHARE of each class, of at least one picture where there are two, and that part."""
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        where = (labels == label).nonzero()[:, 0]
        count = max(1, round(_TEST_SHARE * len(where))) if len(where) > 1 else 0
        chosen = random.Random(0).sample(range(len(where)), count)  # noqa: S311
        is_test[where[torch.tensor(chosen, dtype=torch.long)]] = True
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])


def _in_mixed_order(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a split, shuffled in a fixed order if it is sorted by class, because num_images takes the first ones."""
    num_changes = int((labels[1:] != labels[:-1]).sum())
    if len(labels) < 3 or num_changes >= max(len(labels.unique()), len(labels) / 20):
        return images, labels
    order = torch.tensor(random.Random(0).sample(range(len(labels)), len(labels)))  # noqa: S311
    return images[order], labels[order]


def _read(item: _Item) -> tuple[bytes, str] | None:
    """Returns a picture's pixels and its format: JPEG, PNG or other; None if it cannot be read."""
    try:
        data = item.read()
        picture = fit(decode_picture(data), SIZE, "crop")
    except UserError:
        return None
    kind = "JPEG" if data.startswith(b"\xff\xd8\xff") else "PNG" if data.startswith(b"\x89PNG") else "other"
    return picture.permute(1, 2, 0).numpy().tobytes(), kind


@contextmanager
def _dataset_errors(what: str) -> Iterator[None]:
    """Turns any error of `datasets` and the libraries below it into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError("{what} cannot be read ({reason}).", what=what, reason=first_line(error)) from error


def _column(features: Mapping[str, Any], kind: type, names: Sequence[str], what: str) -> str:
    """Returns the first column of a type, or of a usual name; of several labels, as in CIFAR-100, the first is the
    finest.
    """
    for column, feature in features.items():
        if isinstance(feature, kind):
            return column
    for name in names:
        if name in features:
            return name
    raise UserError("{what} has no column of the type {type}.", what=what, type=kind.__name__)


def _checked(class_names: Sequence[str], what: str) -> tuple[str, ...]:
    try:
        return check_class_names(class_names)
    except UserError as error:
        raise UserError("{what} cannot be used: {why}.", what=what, why=as_clause(error)) from error


def _as_tensors(
    pixels: bytearray, labels: Sequence[Label], num_classes: int, where: str, what: str
) -> tuple[Tensor, Tensor]:
    if not labels:
        raise UserError("{what} has no pictures {where}.", what=what, where=where)
    # -1 is a withheld label, as in the test splits of competitions.
    if not all(isinstance(label, int) and 0 <= label < num_classes for label in labels):
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


def listed(names: Sequence[str]) -> str:
    """Returns the first _NAMED of some names, and an ellipsis if there are more."""
    return ", ".join(name[-100:] for name in names[:_NAMED]) + (" …" if len(names) > _NAMED else "")


def _check_count(num: int, what: str) -> None:
    if num > MAX_IMAGES:
        raise UserError("{what} has more than {most} pictures, which is the limit.", what=what, most=f"{MAX_IMAGES:,}")


def _fraction(done: int, expected: int) -> float:
    """Returns the progress, 0–1; if the total is unknown, a fraction that grows ever more slowly and stays below 1."""
    return min(1.0, done / expected) if expected else done / (done + 20_000)
