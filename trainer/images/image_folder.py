"""Image folders, and zips of them: their files, and to which split and class each belongs.

Two layouts are read: {train,test}/<class>/… and <class>/…. A zip is read in place: none of it is written to the disk.
"""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from trainer.errors import UserError
from trainer.images.picture import MAX_BYTES, file_bytes

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "validation", "valid", "val", "dev", "eval")

# Limits of a zip. Pictures are compressed already, so a zip that unpacks to many times its size is an attack.
MAX_ENTRIES = 65_000
_MAX_DIRECTORY = 32 * 2**20  # bytes of the list of entries
_MAX_RATIO, _MAX_SLACK = 10, 64 * 2**20

_JUNK = {"thumbs.db", "desktop.ini"}

Files = dict[str, Callable[[], bytes]]
"""Files by their path in a folder or zip, with "/" between the parts, and what reads each."""


class Layout(NamedTuple):
    """The files of an image folder by split and class."""

    class_names: tuple[str, ...]
    splits: dict[str, list[tuple[str, int]]]
    """By "train" and, unless it is to be split off, "test": the path and label of each file, sorted by class."""
    outside: list[str]
    """The paths of the files that belong to no class."""


def list_folder(folder: Path) -> dict[str, Path]:
    """Returns the files below a folder, by their paths in it, without hidden ones. Raises OSError."""
    found, seen = {}, set()

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else folders  # a link may lead back
        for name in [] if real in seen else names:
            path = Path(place, name)
            found[path.relative_to(folder).as_posix()] = path
        seen.add(real)
    return {name: path for name, path in found.items() if not _is_hidden(name)}


def open_folder(folder: Path) -> Files:
    """Returns the files below a folder. Raises OSError if it cannot be listed."""
    return {name: partial(file_bytes, path) for name, path in list_folder(folder).items()}


@contextmanager
def open_zip(path: Path, what: str) -> Iterator[Files]:
    """Yields the files in a zip, which can be read until the block ends.

    Raises UserError, with a sentence that begins with `what`, if the file is no zip, or one with passwords, links,
    paths that lead out of it, more than MAX_ENTRIES entries, or much more content than pictures of its size can have.
    """
    _check_length(path, what)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise UserError("{what} is not a zip, or incomplete.", what=what) from error
    with archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if sum(entry.file_size for entry in entries) > _MAX_RATIO * path.stat().st_size + _MAX_SLACK:
            raise UserError("{what} unpacks to far more than pictures would: it is not read.", what=what)
        files: Files = {}
        for entry in entries:
            name = _entry_name(entry)
            if entry.flag_bits & 1:
                raise UserError("{what} has a password: pack the pictures without one.", what=what)
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise UserError("{what} has links in it: pack the pictures themselves.", what=what)
            if name.startswith("/") or ".." in name.split("/"):
                raise UserError(
                    "{what} has a path in it that leads out of it: {name}.", what=what, name=repr(name[:99])
                )
            if not _is_hidden(name):
                files[name] = partial(_entry_bytes, archive, entry)
        yield files


def _check_length(path: Path, what: str) -> None:
    """Raises UserError unless the zip's end record announces a sound number of entries.

    zipfile would read the list of all entries into memory, whatever its length.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2**16 - 22))  # the end record and the longest comment
        tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise UserError("{what} is not a zip, or incomplete.", what=what)
    entries, directory = struct.unpack_from("<HI", tail, at + 10)
    if entries > MAX_ENTRIES or directory > _MAX_DIRECTORY:  # a longer zip has 65,535 here
        raise UserError("{what} has more than {most} files, which is the limit.", what=what, most=f"{MAX_ENTRIES:,}")


def arrange(names: Iterable[str], what: str) -> Layout:
    """Returns the layout of the files with these paths.

    Raises UserError, with a sentence that begins with `what`, if they have neither layout.
    """
    paths = [PurePosixPath(name).parts for name in sorted(names, key=lambda name: name.split("/"))]
    depth = 0
    # A zip often has all of its content in one folder.
    while len(tops := {path[depth] for path in paths}) == 1 and max(map(len, paths)) > depth + 2:
        if tops.pop().lower() in TRAIN_NAMES + TEST_NAMES:
            break
        paths = [path for path in paths if len(path) > depth + 1]
        depth += 1
    tops = {path[depth] for path in paths if len(path) > depth + 1}
    chosen = split_names({path[depth] for path in paths if len(path) > depth + 2})
    if tops and not chosen.get("train") and all(name.lower() in TEST_NAMES for name in tops):
        raise UserError("{what} has no train split: pictures must be in train/<class>/ too.", what=what)
    at = depth
    if "train" in chosen:
        at += 1
    else:
        chosen = {}
    found: dict[str, dict[str, list[str]]] = {"train": {}, **({"test": {}} if "test" in chosen else {})}
    by_folder = {folder: split for split, folder in chosen.items()}
    placed = set()
    for path in paths:
        split = by_folder.get(path[depth]) if chosen else "train"
        if split and len(path) > at + 1:
            found[split].setdefault(path[at], []).append("/".join(path))
            placed.add("/".join(path))
    class_names = tuple(found["train"])
    if not class_names:
        raise UserError("{what} has neither train/<class>/ nor <class>/ with pictures nor Parquet files.", what=what)
    for name in found.get("test", ()):
        if name not in found["train"]:
            raise UserError("{what} has the class {name} in test but not in train.", what=what, name=repr(name))
    labels = {name: label for label, name in enumerate(class_names)}
    splits = {
        split: [(path, labels[name]) for name in class_names for path in classes.get(name, ())]
        for split, classes in found.items()
    }
    return Layout(class_names, splits, [name for name in names if name not in placed])


def split_names(names: Iterable[str]) -> dict[str, str]:
    """Returns which of these names are the training split and the test split, by "train" and "test"."""
    by_name = {name.lower(): name for name in names}
    chosen: dict[str, str] = {}
    for split, known in (("train", TRAIN_NAMES), ("test", TEST_NAMES)):
        for name in known:
            if name in by_name:
                chosen.setdefault(split, by_name[name])
    return chosen


def _is_hidden(name: str) -> bool:
    """Whether a file is one that systems add, such as .DS_Store, Thumbs.db and __MACOSX/…."""
    parts = name.split("/")
    return parts[-1].lower() in _JUNK or any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _entry_name(entry: zipfile.ZipInfo) -> str:
    """Returns an entry's path. Without a flag for UTF-8 it may still be UTF-8, or the code page of Chinese Windows."""
    name = entry.filename
    if not entry.flag_bits & 0x800:
        raw = name.encode("cp437", errors="replace")
        for encoding in ("utf-8", "gbk"):
            with suppress(UnicodeDecodeError):
                name = raw.decode(encoding)
                break
    return name.replace("\\", "/")


def _entry_bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > MAX_BYTES:
        raise UserError("The file is too large: a picture may have at most {size} MiB.", size=MAX_BYTES // 2**20)
    try:
        return archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise UserError("This part of the zip is damaged.") from error
