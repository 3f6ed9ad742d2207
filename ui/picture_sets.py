"""PictureSets: which picture set each visitor has chosen, and the pictures of their own."""

import json
import math
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainer.errors import UserError
from trainer.images.address import parse
from trainer.images.class_names import check_class_name
from trainer.images.image_data import OWN, ImageData, find_images, from_pictures, load_images, open_images, save_images
from trainer.images.image_folder import open_zip
from trainer.images.picture import decode_picture, file_bytes, fit
from trainer.images.readers import SIZE, assembled, listed, read_files
from trainer.progress import Report
from ui.limits import Limits
from ui.run_index import read

DEFAULT = ""
"""The choice of the pictures that the app was started with."""

# Datasets that suit 32×32 pixels; on a Space, the only ones that visitors can choose.
DATASETS = {
    "MNIST": "ylecun/mnist",
    "Fashion-MNIST": "zalando-datasets/fashion_mnist",
    "SVHN": "ufldl-stanford/svhn:cropped_digits",
    "CIFAR-100": "uoft-cs/cifar100",
    "Beans": "AI-Lab-Makerere/beans",
}

FEWEST_CLASSES, FEWEST_PICTURES = 2, 10
FEW, BATCH_OF_FEW = 1000, 16
"""Below this number of training pictures smaller batches suit, of this size."""
_TOO_FEW_CLASSES = "Add at least {classes} classes with {pictures} pictures each."
_TOO_FEW_PICTURES = "Each class needs at least {pictures} pictures; too few have: {names}."
_MOST_OPEN = 4  # sets in memory; a training keeps its own
_MOST_KEPT = 5  # versions of a visitor's own pictures: a run can be resumed only with its own
_DRAFT, _CHOSEN = "draft.safetensors", "chosen"
_ZIP_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A visitor's own pictures, uint8 [n, SIZE, SIZE, 3], with their labels, int64 [n], and classes."""

    class_names: tuple[str, ...] = ()
    images: Tensor
    labels: Tensor

    @property
    def counts(self) -> list[int]:
        """The number of pictures of each class."""
        return torch.bincount(self.labels, minlength=len(self.class_names)).tolist()

    @property
    def is_enough(self) -> bool:
        """Whether it can be trained on."""
        return self.lacks is None

    @property
    def lacks(self) -> UserError | None:
        """Why it cannot be trained on; None if it can."""
        small = [name for name, count in zip(self.class_names, self.counts, strict=True) if count < FEWEST_PICTURES]
        if len(self.class_names) < FEWEST_CLASSES:
            return UserError(_TOO_FEW_CLASSES, classes=FEWEST_CLASSES, pictures=FEWEST_PICTURES)
        return UserError(_TOO_FEW_PICTURES, pictures=FEWEST_PICTURES, names=listed(small)) if small else None


EMPTY = Draft(images=torch.empty(0, SIZE, SIZE, 3, dtype=torch.uint8), labels=torch.empty(0, dtype=torch.int64))


class PictureSets:
    """The sets of an app's visitors. An owner is the digest of a visitor's key, and names a folder of `folder`.

    Own pictures are stored only as the network sees them, decoded and of SIZE×SIZE pixels. Thread-safe.
    """

    def __init__(self, folder: Path, limits: Limits, *, any_dataset: bool):
        self._folder, self._limits, self._any_dataset = folder, limits, any_dataset
        self._lock = threading.Lock()
        self._open: OrderedDict[str, ImageData] = OrderedDict()  # by file or source, the latest used last

    def choice(self, owner: str) -> str:
        """Returns what the owner has chosen: DEFAULT, OWN, or the source of a set."""
        return read(self._folder / owner / _CHOSEN) or DEFAULT

    def choose(self, owner: str, source: str, progress: Report) -> ImageData | None:
        """Makes a set the owner's choice and returns it; None for the app's own, and for own pictures that are too few.

        Raises UserError if it cannot be loaded, or if visitors may not choose it.
        """
        images: ImageData | None = None
        if source not in (DEFAULT, OWN):
            images = self.load(source, progress)
            source = images.source
        self._folder_of(owner, _CHOSEN).write_text(source, encoding="utf-8")
        return self._save_own(owner) if source == OWN and self.draft(owner).is_enough else images

    def load(self, source: str, progress: Report) -> ImageData:
        """Returns the drawn shapes, or a dataset of the Hub. Raises UserError if visitors may not choose it."""
        if source != "synthetic":
            dataset = parse(source)
            if dataset is None:
                raise UserError("Write the name of a dataset on the Hub, as owner/name.")
            if not self._any_dataset and source not in DATASETS.values():
                raise UserError("This app offers only the sets of the list; {name} is none of them.", name=source[:100])
            if os.path.exists(os.path.expanduser(source)):  # noqa: PTH111 - a folder of the server
                raise UserError("Write the name of a dataset on the Hub, as owner/name.")
        return self._kept(load_images(source, progress=progress))

    def images(self, owner: str) -> ImageData | None:
        """Returns the set that the owner has chosen; None for the app's own, and if the set no longer exists."""
        choice = self.choice(owner)
        if choice == DEFAULT:
            return None
        if choice == OWN:
            if lacks := self.draft(owner).lacks:
                raise lacks
            versions = self._versions(owner)
            return self._opened(versions[0]) if versions else self._save_own(owner)
        with self._lock:
            if choice in self._open:
                self._open.move_to_end(choice)
                return self._open[choice]
        found = find_images(choice)
        return self._kept(found) if found else None

    def find(self, owner: str, digest: object) -> ImageData | None:
        """Returns the set with a digest among the owner's choice and their own pictures."""
        with suppress(UserError):
            chosen = self.images(owner)
            if chosen and chosen.digest == digest:
                return chosen
        return next((self._opened(file) for file in self._versions(owner) if file.stem == digest), None)

    def draft(self, owner: str) -> Draft:
        """Returns the owner's own pictures."""
        try:
            with safe_open(self._folder / owner / _DRAFT, "pt") as file:
                names = json.loads(file.metadata()["class_names"])
                return Draft(
                    class_names=tuple(names), images=file.get_tensor("images"), labels=file.get_tensor("labels")
                )
        except (OSError, SafetensorError, LookupError, TypeError, ValueError):
            return EMPTY

    def add(self, owner: str, class_name: str, files: Sequence[Path]) -> tuple[Draft, list[Path]]:
        """Adds pictures to a class of the owner's own; returns all of them, and the files that are none.

        Raises UserError if the class name is not valid, or if there would be more pictures or classes than allowed.
        """
        name = " ".join(class_name.split())
        check_class_name(name)
        images, skipped = [], []
        for file in files:
            try:
                picture = fit(decode_picture(file_bytes(file)), SIZE, "crop")
                images.append(picture.permute(1, 2, 0).contiguous())
            except UserError:
                skipped.append(file)
        if not images:
            raise UserError("None of these files is a picture that can be read: use JPEG, PNG, WebP or GIF.")
        with self._lock:
            draft = self.draft(owner)
            names = draft.class_names if name in draft.class_names else (*draft.class_names, name)
            labels = torch.full((len(images),), names.index(name))
            return self._save_draft(owner, names, [draft.images, *images], [draft.labels, labels]), skipped

    def add_zip(self, owner: str, path: Path, progress: Report) -> tuple[Draft, list[str]]:
        """Replaces the owner's own pictures by those of a zip; returns them, and sentences on what was skipped."""
        started = time.monotonic()

        def report(fraction: float, doing: str) -> None:
            if time.monotonic() - started > _ZIP_SECONDS:
                raise UserError("Reading the zip takes too long: use fewer or smaller pictures.")
            progress(fraction, doing)

        with open_zip(path, "The zip") as files:
            if len(files) > self._limits.pictures:
                raise self._too_many()
            pictures = read_files(files, OWN, "The zip", report)
        images, labels = ([getattr(pictures, split)[part] for split in ("train", "test")] for part in (0, 1))
        with self._lock:
            draft = self._save_draft(owner, pictures.class_names, images, labels)
        return draft, [str(remark) for remark in pictures.remarks if "split off" not in remark]

    def delete(self, owner: str) -> None:
        """Deletes the owner's own pictures and choice."""
        with self._lock:
            shutil.rmtree(self._folder / owner, ignore_errors=True)
            for key in [key for key in self._open if owner in key]:
                del self._open[key]

    def clear(self) -> None:
        """Deletes pictures that are older than the limit, then the oldest ones until the rest fits in the limit."""
        with suppress(OSError):
            owners = [(_changed(folder), folder) for folder in self._folder.iterdir()]
            sizes = {folder: sum(file.stat().st_size for file in folder.iterdir()) for _, folder in owners}
            total = sum(sizes.values())
            for changed, folder in sorted(owners):
                if time.time() - changed > self._limits.days * 86400 or total > self._limits.disk_gb * 1e9:
                    self.delete(folder.name)
                    total -= sizes[folder]

    def _save_own(self, owner: str) -> ImageData | None:
        """Makes the owner's own pictures a set to train on."""
        draft = self.draft(owner)
        splits = {"train": (bytearray(draft.images.numpy().tobytes()), draft.labels.tolist())}
        data = from_pictures(assembled("own pictures", draft.class_names, splits, [], OWN), source=OWN, revision=None)
        path = self._folder_of(owner, f"{data.digest}.safetensors")
        if not path.exists():
            temporary = path.with_suffix(".new")
            save_images(data, temporary)
            temporary.replace(path)
        os.utime(path)  # the latest version is the one to train on
        for old in self._versions(owner)[_MOST_KEPT:]:
            with suppress(OSError):
                old.unlink()
        return self._opened(path)

    def _versions(self, owner: str) -> list[Path]:
        """The files of the owner's own sets, the latest first."""
        try:
            files = [file for file in (self._folder / owner).glob("*.safetensors") if file.name != _DRAFT]
            return sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)
        except OSError:
            return []

    def _opened(self, file: Path) -> ImageData | None:
        with self._lock:
            if str(file) in self._open:
                self._open.move_to_end(str(file))
                return self._open[str(file)]
        try:
            return self._kept(open_images(file), str(file))
        except (FileNotFoundError, UserError):
            return None

    def _kept(self, images: ImageData, key: str = "") -> ImageData:
        """Keeps a set open until _MOST_OPEN others have been used."""
        with self._lock:
            self._open[key or images.source] = images
            self._open.move_to_end(key or images.source)
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return images

    def _save_draft(
        self, owner: str, names: tuple[str, ...], images: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> Draft:
        parts = [part if part.dim() == 4 else part[None] for part in images]
        draft = Draft(class_names=names, images=torch.cat(parts), labels=torch.cat(list(labels)))
        if len(draft.labels) > self._limits.pictures or len(names) > self._limits.classes:
            raise self._too_many()
        path = self._folder_of(owner, _DRAFT)
        temporary = path.with_suffix(".new")
        save_file(
            {"images": draft.images, "labels": draft.labels}, temporary, metadata={"class_names": json.dumps(names)}
        )
        temporary.replace(path)
        return draft

    def _too_many(self) -> UserError:
        return UserError(
            "Here a set can have up to {pictures} pictures and {classes} classes.",
            pictures=_number(self._limits.pictures),
            classes=_number(self._limits.classes),
        )

    def _folder_of(self, owner: str, name: str) -> Path:
        path = self._folder / owner / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _number(limit: float) -> str:
    return f"{limit:,.0f}" if math.isfinite(limit) else "∞"


def _changed(folder: Path) -> float:
    return max((file.stat().st_mtime for file in folder.iterdir()), default=folder.stat().st_mtime)
