"""Reading image folders and Parquet files: pictures, labels and class names, and errors."""

import io
import tracemalloc

import numpy as np
import pytest
import torch
from image_sets import jpeg, noise, png, write_dataset, write_image_folder, write_pets
from PIL import Image

from trainer.images import readers
from trainer.images.image_data import load_images
from trainer.images.picture import fit
from trainer.settings.config import SPLITS


def test_image_folder_is_read_and_fitted(tmp_path):
    """Each picture is read once, cropped to 32×32 and labelled with its folder's name; dot files are ignored."""
    pictures = noise(6, height=40, width=64)
    files = [png(picture) for picture in pictures]
    classes = {"train/b": files[:2], "train/a": files[2:4], "test/a": files[4:5], "test/b": files[5:]}
    folder = write_image_folder(tmp_path / "set", classes)
    (folder / "train" / "a" / ".DS_Store").write_bytes(b"Finder")
    (folder / "train" / ".cache").mkdir()
    data = load_images(str(folder))
    assert data.class_names == ("a", "b")
    expected = {(fit(pictures[index], 32, "crop").numpy().tobytes(), index < 2) for index in range(4)}
    train = zip(data.train.images, data.train.labels, strict=True)
    assert {(image.contiguous().numpy().tobytes(), bool(label)) for image, label in train} == expected
    assert torch.equal(data.test.images[data.test.labels == 1][0], fit(pictures[5], 32, "crop"))


def test_image_folder_is_shuffled(tmp_path):
    """The first images are of all classes, so that a small num_images is too, and in the same order on each load."""
    picture = [png(noise(1)[0])]
    folder = write_image_folder(
        tmp_path / "set", {f"{split}/{name}": picture * 20 for split in ("train", "test") for name in "ab"}
    )
    labels = load_images(str(folder)).train.labels
    assert set(labels[:8].tolist()) == {0, 1}
    (folder / "train" / "a" / "0").touch()
    assert torch.equal(load_images(str(folder)).train.labels, labels)


def test_changed_folder_is_read_again(tmp_path):
    """Adding or replacing a picture makes the cached copy of the folder invalid."""
    folder = write_pets(tmp_path / "pets")
    first = load_images(str(folder))
    (folder / "train" / "cat" / "9").write_bytes(png(noise(1, seed=9)[0]))
    second = load_images(str(folder))
    (folder / "train" / "cat" / "9").write_bytes(png(noise(1, seed=10)[0]))
    third = load_images(str(folder))
    assert len(second.train.labels) == 6
    assert len({data.digest for data in (first, second, third)}) == 3


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        ({}, "neither train/<class>/ nor <class>/ with pictures nor Parquet files"),
        ({"train/cat": 1, "train/dog": 1}, "too few pictures: one class at least needs two"),
        ({"test/cat": 1, "test/dog": 1}, "no train split"),
        ({"train/cat": 1, "test/cat": 1}, "cannot be used: there must be from 2 to"),
        ({"train/cat": 1, "test/cat": 1, "test/dog": 1}, "class 'dog' in test but not in train"),
        ({f"{split}/{name}": 1 for split in ("train", "test") for name in ("a\nb", "c")}, "printable"),
        ({f"{split}/{name}": 1 for split in ("train", "test") for name in ("a" * 101, "c")}, "from 1 to 100"),
    ],
)
def test_bad_image_folders_are_refused(tmp_path, classes, complaint):
    """The error is one sentence that names the folder, without its path."""
    (tmp_path / "pets").mkdir()
    write_image_folder(tmp_path / "pets", {name: [png(noise(1)[0])] * num for name, num in classes.items()})
    with pytest.raises(ValueError, match=complaint) as raised:
        load_images(str(tmp_path / "pets"))
    assert str(tmp_path) not in str(raised.value)


def test_dataset_folder_is_read(tmp_path):
    """Rows are read in order, with the class names of the features, from an image column of any name."""
    pictures = noise(5)
    files = {"train": [png(p) for p in pictures[:3]], "test": [png(p) for p in pictures[3:]]}
    data = load_images(str(write_dataset(tmp_path / "set", files, image="picture")))
    assert data.class_names == ("cat", "dog")
    assert torch.equal(data.train.images, pictures[:3])
    assert torch.equal(data.test.images, pictures[3:])
    assert data.train.labels.tolist() == [0, 1, 0]


def test_dataset_folder_is_fitted(tmp_path):
    """A picture of another size is cropped to 32×32, and a grey one becomes RGB."""
    large, grey = noise(1, height=50, width=40)[0], noise(1)[0][:1]
    data = load_images(str(write_dataset(tmp_path / "set", {"train": [png(large), png(grey)], "test": [png(grey)]})))
    assert torch.equal(data.train.images[0], fit(large, 32, "crop"))
    assert torch.equal(data.train.images[1], grey.expand(3, -1, -1))


@pytest.mark.parametrize(("encode", "name"), [(png, "CIFAR-10"), (jpeg, "CIFAR-10 (JPEG)")])
def test_cifar10_in_jpeg_has_another_name(tmp_path, encode, name):
    """Accuracies on CIFAR-10 in JPEG do not compare with those on the original, so its name says JPEG."""
    files = [encode(picture) for picture in noise(10)]
    folder = write_dataset(tmp_path / "set", {"train": files, "test": files}, class_names=readers.CIFAR10_CLASSES)
    assert load_images(str(folder)).name == name


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"pictures": {"test": [png(noise(1)[0])]}}, "has no train split"),
        ({"class_names": ("cat",), "labels": [0, 0]}, "from 2 to"),
        ({"labels": [0, -1]}, "pictures without a label in its train split"),
        ({"labels": [0, None]}, "pictures without a label in its train split"),
        ({"pictures": {"train": [png(noise(1)[0]), b"?"], "test": [png(noise(1)[0])]}}, "cannot be read.*: train/1"),
        ({"pictures": {"train": [png(noise(1)[0])], "test": [None]}}, "cannot be read.*: test/0"),
        ({"pictures": {"train": [png(noise(1)[0])], "test": []}}, "no pictures in its test split"),
    ],
)
def test_bad_datasets_are_refused(tmp_path, change, complaint):
    """The error is one sentence that names the folder, and the split and row if there is one."""
    files = [png(picture) for picture in noise(2)]
    folder = write_dataset(tmp_path / "set", **{"pictures": {"train": files, "test": files}, **change})
    with pytest.raises(ValueError, match=f"^The folder set.*{complaint}"):
        load_images(str(folder))


def _encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _halves(upper: int, lower: int) -> np.ndarray:
    """A grey picture, uint8 [32, 32], whose upper and lower half have one level each."""
    return np.repeat(np.array([upper, lower], np.uint8), 16)[:, None].repeat(32, 1)


_ORIENTATION = Image.Exif()
_ORIENTATION[0x0112] = 3  # upside down


@pytest.mark.parametrize(
    ("encoded", "upper", "lower"),
    [
        (_encoded(Image.fromarray(np.dstack([_halves(0, 0)] * 3 + [_halves(0, 255)])), "PNG"), 255, 0),
        (_encoded(Image.fromarray(_halves(40, 200).astype(np.uint16) * 257), "PNG"), 40, 200),
        (
            _encoded(
                Image.fromarray(_halves(40, 200)),
                "GIF",
                save_all=True,
                append_images=[Image.fromarray(_halves(9, 9))],
            ),
            40,
            200,
        ),
        (_encoded(Image.fromarray(_halves(40, 200)), "PNG", exif=_ORIENTATION), 200, 40),
    ],
    ids=["transparent", "16 bits", "animated", "upside down"],
)
def test_folders_and_datasets_decode_alike(tmp_path, encoded, upper, lower):
    """Transparency over white, 16 bits, an animation's first frame and EXIF orientation, in either layout."""
    folder = write_image_folder(tmp_path / "a", {f"{split}/{name}": [encoded] for split in SPLITS for name in "ab"})
    dataset = write_dataset(tmp_path / "b", {split: [encoded] * 2 for split in SPLITS})
    expected = torch.from_numpy(_halves(upper, lower)).expand(2, 3, -1, -1)
    for source in (folder, dataset):
        data = load_images(str(source))
        assert torch.equal(data.train.images, expected)
        assert torch.equal(data.test.images, expected)


def test_a_dataset_without_test_pictures(tmp_path):
    """A tenth of each class is split off; a split named validation is the test split."""
    files = [png(picture) for picture in noise(40)]
    data = load_images(str(write_dataset(tmp_path / "a", {"train": files})))
    assert (len(data.train.labels), torch.bincount(data.test.labels).tolist()) == (36, [2, 2])
    data = load_images(str(write_dataset(tmp_path / "b", {"train": files, "validation": files[:5]})))
    assert (len(data.train.labels), len(data.test.labels)) == (40, 5)


def test_a_dataset_sorted_by_class_is_shuffled(tmp_path):
    """The first pictures are of all classes, and keep their labels."""
    pictures = noise(40)
    files = [png(picture) for picture in pictures]
    folder = write_dataset(tmp_path / "set", {"train": files, "test": files}, labels=[0] * 20 + [1] * 20)
    train = load_images(str(folder)).train
    assert set(train.labels[:8].tolist()) == {0, 1}
    where = [int((pictures == image).flatten(1).all(1).nonzero()) for image in train.images]
    assert [int(index >= 20) for index in where] == train.labels.tolist()


@pytest.mark.parametrize(
    ("labels", "class_names"),
    [(["dog", "cat", "dog"], ("cat", "dog")), ([7, 3, 7], ("3", "7"))],
    ids=["texts", "numbers"],
)
def test_labels_without_names(tmp_path, labels, class_names):
    """Texts are class names; numbers without names stand for themselves. The label's column has a usual name."""
    import datasets

    features = {"image": datasets.Image(), "fine_label": datasets.Value("string" if labels[0] == "dog" else "int64")}
    column = [{"bytes": png(picture), "path": None} for picture in noise(3)]
    rows = datasets.Dataset.from_dict({"image": column, "fine_label": labels}, features=datasets.Features(features))
    (tmp_path / "set [x]").mkdir()
    for split in SPLITS:
        rows.to_parquet(tmp_path / "set [x]" / f"{split}.parquet")
    data = load_images(str(tmp_path / "set [x]"))
    assert data.class_names == class_names
    assert data.train.labels.tolist() == [1, 0, 1]


def test_dataset_without_features_is_refused(tmp_path):
    """A Parquet file must declare an Image and a ClassLabel column."""
    import datasets

    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        datasets.Dataset.from_dict({"x": [1, 2]}).to_parquet(tmp_path / "set" / f"{split}.parquet")
    with pytest.raises(ValueError, match="The folder set has no column of the type Image"):
        load_images(str(tmp_path / "set"))


def _write_rows(folder, image, label, pictures, labels):
    """Writes the train split of a dataset with these features and values."""
    import datasets

    folder.mkdir()
    features = datasets.Features({"image": image, "label": label})
    rows = datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)
    rows.to_parquet(folder / "train.parquet")
    return folder


def test_columns_of_other_types_are_refused(tmp_path):
    """A column of labels or pictures that has the usual name, and values of another type, is refused in a sentence."""
    import datasets

    pictures = [{"bytes": png(picture), "path": None} for picture in noise(4)]
    whole, text = datasets.Value("int64"), datasets.Value("string")
    for number, (label, values) in enumerate(
        [(datasets.List(whole), [[1]] * 4), (datasets.Value("float32"), [0.5] * 4), ({"x": text}, [{"x": "a"}] * 4)]
    ):
        folder = _write_rows(tmp_path / f"{number}", datasets.Image(), label, pictures, values)
        with pytest.raises(ValueError, match=r"has labels that are neither texts nor whole numbers\.$"):
            load_images(str(folder))
    for name, (image, values) in {
        "numbers": (whole, [10**15] * 4),
        "texts": (text, ["a.png"] * 4),
        "lists": (datasets.List(datasets.Image()), [[one] for one in pictures]),
    }.items():
        folder = _write_rows(tmp_path / name, image, whole, values, [0, 1, 0, 1])
        with pytest.raises(ValueError, match=r"has no column of the type Image\.$"):
            load_images(str(folder))


def test_pictures_as_plain_bytes(tmp_path):
    """Bytes that are not declared as pictures are read too."""
    import datasets

    files = [png(picture) for picture in noise(4)]
    folder = _write_rows(tmp_path / "set", datasets.Value("binary"), datasets.Value("int64"), files, [0, 1, 0, 1])
    assert len(load_images(str(folder)).train.labels) == 2


def test_large_pictures_are_not_kept(tmp_path):
    """Of a Parquet file, only the rows that are being read are in memory; the progress counts to their number."""
    import pyarrow
    from pyarrow.parquet import write_table

    photograph, num = png(noise(1, height=256, width=256)[0]), 200
    table = pyarrow.table({"image": [{"bytes": photograph, "path": None}] * num, "label": [0, 1] * (num // 2)})
    (tmp_path / "set").mkdir()
    write_table(table, tmp_path / "set" / "train.parquet", row_group_size=10, use_dictionary=False)
    reports = []
    tracemalloc.start()
    load_images(str(tmp_path / "set"), progress=lambda *report: reports.append(report))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < num * len(photograph) / 2
    assert (1.0, "Reading set: 200 of 200 pictures") in reports
