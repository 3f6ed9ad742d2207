"""Image folders and zips: layouts, what is skipped, and zips that are refused."""

import struct
import zipfile

import pytest
import torch
from image_sets import noise, png, write_image_folder

from trainer.errors import UserError
from trainer.images import image_folder
from trainer.images.image_data import load_images
from trainer.images.image_folder import arrange


def pictures(num: int, first: int = 0) -> list[bytes]:
    """Returns different pictures as PNG files."""
    return [png(picture) for picture in noise(num, seed=first)]


def write_zip(path, files: dict[str, bytes]):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("train/a/1 train/b/2 test/a/3 test/b/4", {"train": "ab", "test": "ab"}),
        ("Train/a/1 Train/b/2 val/a/3 val/b/4", {"train": "ab", "test": "ab"}),
        ("train/a/1 train/b/2 valid/a/3", {"train": "ab", "test": "a"}),
        ("train/a/1 train/b/2 validation/b/3 test/a/4", {"train": "ab", "test": "a"}),
        ("train/a/1 train/b/2", {"train": "ab"}),
        ("a/1 b/2", {"train": "ab"}),
        ("a/deep/down/1 a/2 b/deep/3", {"train": "aab"}),
        ("top/a/1 top/b/2", {"train": "ab"}),
        ("top/train/a/1 top/train/b/2 top/dev/a/3", {"train": "ab", "test": "a"}),
        ("train/1 train/2 bus/3", {"train": "bus train train"}),
        ("a/1 b/2 readme.txt", {"train": "ab"}),
    ],
)
def test_layouts(names, expected):
    """Splits have any of their usual names or are to be split off; nested folders belong to their class."""
    layout = arrange(names.split(), "The set")
    found = {split: [layout.class_names[label] for _, label in files] for split, files in layout.splits.items()}
    assert found == {split: classes.split() if " " in classes else list(classes) for split, classes in expected.items()}
    placed = {path for files in layout.splits.values() for path, _ in files}
    assert placed.isdisjoint(layout.outside)


def test_classes_without_splits(tmp_path):
    """A tenth of each class, one picture at the least, is split off for testing, always the same, and this is said."""
    folder = write_image_folder(tmp_path / "set", {"a": pictures(20), "b": pictures(5, first=1), "c": pictures(1)})
    data = load_images(str(folder))
    assert torch.bincount(data.train.labels).tolist() == [18, 4, 1]
    assert torch.bincount(data.test.labels).tolist() == [2, 1]
    assert data.remarks == (
        "A tenth of each class was split off for testing: 3 pictures.",
        "There are no test pictures of c.",
    )
    (folder / "a" / "0").touch()
    assert load_images(str(folder)).digest == data.digest


def test_a_zip_is_read_as_its_folder(tmp_path):
    """With the same digest, whatever it is packed in, and from the cache with the same remarks."""
    classes = {"train/a": pictures(3), "train/b": pictures(2, first=1), "test/a": pictures(1, first=2)}
    folder = load_images(str(write_image_folder(tmp_path / "pets", classes)))
    files = {f"top/{name}/{number}": part for name, parts in classes.items() for number, part in enumerate(parts)}
    archive = write_zip(tmp_path / "pets.zip", {**files, "__MACOSX/top/train/a/._0": b"x", "top/train/.DS_Store": b"x"})
    for _ in range(2):
        data = load_images(str(archive))
        assert (data.name, data.digest) == (folder.name, folder.digest)
        assert data.remarks == ("There are no test pictures of b.",)


@pytest.mark.parametrize("place", ["a [b] c", "what?*", "~", "图片", "train/raw/x", "with space"])
def test_any_path(tmp_path, place):
    """A folder is read wherever it lies, also in one named as a split."""
    folder = write_image_folder(tmp_path / place, {"a": pictures(2), "b": pictures(2, first=1)})
    assert len(load_images(str(folder)).train.labels) == 2


def test_what_is_no_picture_is_skipped(tmp_path):
    """Files of the system are ignored; others are counted and named, up to a twentieth of the set."""
    folder = write_image_folder(tmp_path / "set", {"a": pictures(20), "b": pictures(20, first=1)})
    (folder / "a" / "Thumbs.db").write_bytes(b"system")
    (folder / "desktop.ini").write_bytes(b"system")
    (folder / "notes.txt").write_bytes(b"outside of the classes")
    (folder / "a" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (folder / "b" / "text.png").write_bytes(b"no picture")
    data = load_images(str(folder))
    assert data.remarks[0] == "Skipped files (3): a/cut.jpg, b/text.png, notes.txt."
    assert len(data.train.labels) + len(data.test.labels) == 40
    for number in range(12):
        (folder / "a" / f"{number}.bad").write_bytes(b"no picture")
    with pytest.raises(UserError) as error:
        load_images(str(folder))
    assert str(error.value).startswith("The folder set has 14 of 54 pictures that cannot be read")
    assert str(error.value).count(".bad") == 10
    assert str(error.value).endswith(" ….")


def password(archive: bytes) -> bytes:
    """Returns a zip whose first entry claims to be encrypted, in both of its headers."""
    content = bytearray(archive)
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + at] |= 1
    return bytes(content)


def test_hostile_zips_are_refused(tmp_path, monkeypatch):
    """Each in one sentence that names the zip; nothing is written anywhere."""
    plain = {f"{name}/{number}": png(noise(1)[0]) for name in "ab" for number in range(2)}
    link = zipfile.ZipInfo("a/link")
    link.external_attr = 0o120777 << 16
    cases = {
        "leads out": {"../../a/1": b"x", **plain},
        "leads out of it": {"/etc/passwd": b"x", **plain},
        "has links": {link: b"/etc/passwd", **plain},
        "unpacks to far more": {"a/zeros": bytes(80 * 2**20), **plain},
    }
    before = set(tmp_path.parent.rglob("*"))
    for number, (complaint, files) in enumerate(cases.items()):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content, zipfile.ZIP_DEFLATED)
        with pytest.raises(UserError, match=rf"^The zip {number}\.zip .*{complaint}"):
            load_images(str(tmp_path / f"{number}.zip"))
    sound = write_zip(tmp_path / "sound.zip", plain).read_bytes()
    for name, content, complaint in (
        ("locked", password(sound), "has a password"),
        ("cut", sound[:-30], "is not a zip"),
        ("text", b"hello", "is not a zip"),
        ("long", sound.replace(struct.pack("<HH", 4, 4), struct.pack("<HH", 65_535, 65_535)), "more than 65,000 files"),
    ):
        (tmp_path / f"{name}.zip").write_bytes(content)
        with pytest.raises(UserError, match=complaint):
            load_images(str(tmp_path / f"{name}.zip"))
    written = {path for path in set(tmp_path.parent.rglob("*")) - before if path.suffix != ".zip"}
    assert {path.name for path in written} <= {"home", "optimizer-lab"}
    monkeypatch.setattr(image_folder, "MAX_ENTRIES", 3)
    with pytest.raises(UserError, match="more than 3 files"):
        load_images(str(tmp_path / "sound.zip"))


def test_names_of_chinese_windows(tmp_path):
    """Its zips have names in GBK, without saying so."""
    files = {f"{name}/{number}": png(noise(1)[0]) for name in ("AAAA", "b") for number in range(3)}
    path = write_zip(tmp_path / "set.zip", files)
    path.write_bytes(path.read_bytes().replace(b"AAAA", "猫狗".encode("gbk")))
    assert load_images(str(path)).class_names == ("b", "猫狗")
