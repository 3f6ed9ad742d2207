"""Image sets: where they come from, how they are read, and what is kept of them."""

import functools
import hashlib
import http.server
import itertools
import json
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from fake_hub import Hub, Repo, point_to, serve, swallow
from torchvision.datasets import CIFAR10
from torchvision.io import encode_jpeg, encode_png

from trainer.images import readers, sources, synthetic
from trainer.images.batches import batches, num_batches
from trainer.images.image_data import (
    Split,
    facts,
    load_images,
    open_images,
    pixel_statistics,
    subset,
    to_device,
)
from trainer.images.picture import fit

ROOT = Path(__file__).parents[2]
DRAW_SHAPES = functools.cache(synthetic.draw_shapes)


class Settings(NamedTuple):
    """What batches reads of a TrainConfig."""

    batch_size: int = 8
    shuffle: bool = True
    drop_last: bool = False
    augment: bool = False
    seed: int = 0


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Where images are kept; each test begins with nothing there, and nothing asked for in the environment."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPTIMIZER_LAB_DATA")
    # A second each time that the tests below can do without.
    monkeypatch.setattr(synthetic, "draw_shapes", DRAW_SHAPES)
    return tmp_path / "home" / "optimizer-lab"


@pytest.fixture
def unreachable(monkeypatch):
    """A Hub that must not be asked, and a torchvision whose server has gone."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")


def noise(num: int, *, height: int = 32, width: int = 32, seed: int = 0) -> torch.Tensor:
    """Pictures no two of which are alike, uint8 [num, 3, height, width]."""
    return torch.randint(256, (num, 3, height, width), generator=torch.Generator().manual_seed(seed)).byte()


def split_of(images: torch.Tensor) -> Split:
    """A split whose labels are the images' places in it."""
    images = images.contiguous(memory_format=torch.channels_last)
    return Split(images=images, labels=torch.arange(len(images)))


def png(picture: torch.Tensor) -> bytes:
    return encode_png(picture).numpy().tobytes()


def jpeg(picture: torch.Tensor) -> bytes:
    return encode_jpeg(picture).numpy().tobytes()


def image_folder(folder: Path, classes: dict[str, list[bytes]]) -> Path:
    """An image folder with files 0, 1, … in each `split/class`."""
    for name, files in classes.items():
        (folder / name).mkdir(parents=True)
        for number, content in enumerate(files):
            (folder / name / str(number)).write_bytes(content)
    return folder


def dataset_folder(
    folder: Path,
    pictures: dict[str, list[bytes | None]],
    *,
    class_names: tuple[str, ...] = ("cat", "dog"),
    labels: list[int | None] | None = None,
    image: str = "img",
) -> Path:
    """A folder laid out like a dataset's repository, as `push_to_hub` makes them: one Parquet file for each split."""
    import datasets

    features = datasets.Features({image: datasets.Image(), "label": datasets.ClassLabel(names=list(class_names))})
    (folder / "plain_text").mkdir(parents=True)
    for split, files in pictures.items():
        column = [content and {"bytes": content, "path": None} for content in files]
        of_each = labels or [number % len(class_names) for number in range(len(files))]
        rows = datasets.Dataset.from_dict({image: column, "label": of_each[: len(files)]}, features=features)
        rows.to_parquet(folder / "plain_text" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture(autouse=True, scope="module")
def no_bars():
    """`datasets` draws bars while the tests above it write Parquet files."""
    import datasets

    datasets.disable_progress_bars()


@contextmanager
def files_served(folder: Path):
    """The address of a plain web server for a folder's files."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


GOOD = {"train/cat": 2, "train/dog": 3, "test/cat": 1, "test/dog": 1}


def good_folder(folder: Path, **more: list[bytes]) -> Path:
    numbers = itertools.count()
    classes = {name: [png(noise(1, seed=next(numbers))[0]) for _ in range(num)] for name, num in GOOD.items()}
    return image_folder(folder, {**classes, **more})


# --- what all sources have in common ---------------------------------------------------------------------------------


def test_images_lie_in_memory_as_promised(tmp_path):
    """Pixels come as uint8 [n, 3, 32, 32] in channels_last memory, with int64 labels, and with all facts filled in."""
    data = load_images(str(good_folder(tmp_path / "pets")))
    for split, num in ((data.train, 5), (data.test, 2)):
        assert split.images.shape == (num, 3, 32, 32)
        assert split.images.dtype == torch.uint8
        assert split.images.is_contiguous(memory_format=torch.channels_last)
        assert split.labels.shape == (num,)
        assert split.labels.dtype == torch.int64
    assert data.class_names == ("cat", "dog")
    assert (data.name, data.source, data.revision) == ("pets", str(tmp_path / "pets"), None)
    assert data.note == "Training on pets from a folder, 5 training and 2 test images."
    assert facts(data) == {"name": "pets", "source": data.source, "revision": None, "digest": data.digest}


def test_digest_is_over_names_shapes_pixels_and_labels(tmp_path):
    """The digest can be had from the documented parts alone, so that runs kept today are still resumed tomorrow."""
    data = load_images(str(good_folder(tmp_path / "pets")))
    shapes = [[5, 32, 32, 3], [5], [2, 32, 32, 3], [2]]
    expected = hashlib.sha256(json.dumps([["cat", "dog"], shapes]).encode())
    for split in (data.train, data.test):
        expected.update(split.images.permute(0, 2, 3, 1).numpy().tobytes())
        expected.update(split.labels.numpy().tobytes())
    assert data.digest == expected.hexdigest()


def test_progress_is_told_in_the_callers_thread(tmp_path):
    """Progress is a fraction that never falls, with words, and arrives where gr.Progress and tqdm can use it."""
    told = []
    load_images(
        str(good_folder(tmp_path / "pets")),
        progress=lambda fraction, doing: told.append((fraction, doing, threading.current_thread())),
    )
    fractions = [fraction for fraction, _, _ in told]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] == 1
    assert all(doing for _, doing, _ in told)
    assert {thread for _, _, thread in told} == {threading.current_thread()}


def test_environment_names_the_source(tmp_path, monkeypatch):
    """OPTIMIZER_LAB_DATA is used where no source is given, and only there."""
    monkeypatch.setenv("OPTIMIZER_LAB_DATA", str(good_folder(tmp_path / "pets")))
    assert load_images().name == "pets"
    assert load_images(str(good_folder(tmp_path / "beasts"))).name == "beasts"


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("cifar", "no image source 'cifar'"),
        ("./nowhere", "no folder './nowhere'"),
        ("/nowhere/at/all", "no folder '/nowhere/at/all'"),
        ("\0", "no image source"),
        ("x" * 5000, "no image source"),
        (__file__, "is a file"),
        ("someone/something", "no folder someone/something here, and the Hub was not asked"),
    ],
)
def test_unknown_sources_are_refused(address, complaint, unreachable):
    """A source that is none gets one sentence, whatever it is."""
    with pytest.raises(ValueError, match=complaint) as raised:
        load_images(address)
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


# --- folders ---------------------------------------------------------------------------------------------------------


def test_image_folder_is_read_and_fitted(tmp_path):
    """Every picture of an image folder arrives once, cropped to 32 by 32, under its folder's name; dot files do not."""
    pictures = noise(6, height=40, width=64)
    files = [png(picture) for picture in pictures]
    classes = {"train/b": files[:2], "train/a": files[2:4], "test/a": files[4:5], "test/b": files[5:]}
    folder = image_folder(tmp_path / "set", classes)
    (folder / "train" / "a" / ".DS_Store").write_bytes(b"Finder")
    (folder / "train" / ".cache").mkdir()
    data = load_images(str(folder))
    assert data.class_names == ("a", "b")
    expected = {(fit(pictures[place], 32, "crop").numpy().tobytes(), place < 2) for place in range(4)}
    images, labels = data.train.images, data.train.labels
    assert {
        (i.contiguous().numpy().tobytes(), bool(label)) for i, label in zip(images, labels, strict=True)
    } == expected
    assert torch.equal(data.test.images[data.test.labels == 1][0], fit(pictures[5], 32, "crop"))


def test_image_folder_is_shuffled(tmp_path):
    """The first n images of a folder are of all classes, or num_images would train on a single one; always the same."""
    picture = [png(noise(1)[0])]
    folder = image_folder(
        tmp_path / "set", {f"{split}/{name}": picture * 20 for split in ("train", "test") for name in "ab"}
    )
    labels = load_images(str(folder)).train.labels
    assert set(labels[:8].tolist()) == {0, 1}
    (folder / "train" / "a" / "0").touch()
    assert torch.equal(load_images(str(folder)).train.labels, labels)


def test_changed_folder_is_read_again(tmp_path):
    """A picture that is added or replaced is seen, though the folder's images are in the cache."""
    folder = good_folder(tmp_path / "pets")
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
        ({}, "neither train/<class>/ and test/<class>/ with pictures nor Parquet files"),
        ({"train/cat": 1, "train/dog": 1}, "no test split"),
        ({"test/cat": 1, "test/dog": 1}, "no train split"),
        ({"train/cat": 1, "test/cat": 1}, "cannot be used: there must be from 2 to"),
        ({"train/cat": 1, "train/dog": 1, "test/cat": 1}, "class 'dog' in only one of train and test"),
        ({"train/cat": 1, "train/dog": 0, "test/cat": 1, "test/dog": 1}, "no pictures in train/dog"),
        ({f"{split}/{name}": 1 for split in ("train", "test") for name in ("a\nb", "c")}, "printable"),
        ({f"{split}/{name}": 1 for split in ("train", "test") for name in ("a" * 101, "c")}, "from 1 to 100"),
    ],
)
def test_bad_image_folders_are_refused(tmp_path, classes, complaint):
    """What is wrong with a folder is said in one sentence that names it but not the path to it."""
    (tmp_path / "pets").mkdir()
    image_folder(tmp_path / "pets", {name: [png(noise(1)[0])] * num for name, num in classes.items()})
    with pytest.raises(ValueError, match=complaint) as raised:
        load_images(str(tmp_path / "pets"))
    assert str(tmp_path) not in str(raised.value)


def test_unreadable_picture_is_named(tmp_path):
    """A file that is no picture is named, by its own name alone, and nothing is kept of the set it is in."""
    folder = good_folder(tmp_path / "pets")
    (folder / "test" / "dog" / "notes.txt").write_text("woof")
    with pytest.raises(ValueError, match=r"^notes\.txt: "):
        load_images(str(folder))


def test_dataset_folder_is_read(tmp_path):
    """Rows of Parquet files arrive in their order, with the features' class names, whatever the column is called."""
    pictures = noise(5)
    files = {"train": [png(p) for p in pictures[:3]], "test": [png(p) for p in pictures[3:]]}
    data = load_images(str(dataset_folder(tmp_path / "set", files, image="picture")))
    assert data.class_names == ("cat", "dog")
    assert torch.equal(data.train.images, pictures[:3])
    assert torch.equal(data.test.images, pictures[3:])
    assert data.train.labels.tolist() == [0, 1, 0]


def test_dataset_folder_is_fitted(tmp_path):
    """A picture of another size is cropped to 32 by 32, a grey one becomes RGB."""
    large, grey = noise(1, height=50, width=40)[0], noise(1)[0][:1]
    data = load_images(str(dataset_folder(tmp_path / "set", {"train": [png(large), png(grey)], "test": [png(grey)]})))
    assert torch.equal(data.train.images[0], fit(large, 32, "crop"))
    assert torch.equal(data.train.images[1], grey.expand(3, -1, -1))


@pytest.mark.parametrize(("encode", "name"), [(png, "CIFAR-10"), (jpeg, "CIFAR-10 (JPEG)")])
def test_re_encoded_cifar10_is_not_called_cifar10(tmp_path, encode, name):
    """CIFAR-10's ten classes in JPEG are called so: accuracies on them are not those on the original."""
    files = [encode(picture) for picture in noise(10)]
    folder = dataset_folder(tmp_path / "set", {"train": files, "test": files}, class_names=readers.CIFAR10_CLASSES)
    assert load_images(str(folder)).name == name


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"pictures": {"train": [png(noise(1)[0])]}}, "has no test split"),
        ({"class_names": ("cat",), "labels": [0, 0]}, "from 2 to"),
        ({"labels": [0, -1]}, "pictures without a label in its train split"),
        ({"labels": [0, None]}, "pictures without a label in its train split"),
        ({"pictures": {"train": [png(noise(1)[0]), b"?"], "test": [png(noise(1)[0])]}}, "row 1 of its train split"),
        ({"pictures": {"train": [png(noise(1)[0])], "test": [None]}}, "row 0 of its test split"),
        ({"pictures": {"train": [png(noise(1)[0])], "test": []}}, "no pictures in its test split"),
    ],
)
def test_bad_datasets_are_refused(tmp_path, change, complaint):
    """What is wrong with a dataset is said in one sentence, down to the row."""
    files = [png(picture) for picture in noise(2)]
    folder = dataset_folder(tmp_path / "set", **{"pictures": {"train": files, "test": files}, **change})
    with pytest.raises(ValueError, match=f"^The folder set.*{complaint}"):
        load_images(str(folder))


def test_dataset_without_features_is_refused(tmp_path):
    """A Parquet file that does not say which column is a picture and which a class is no image set."""
    import datasets

    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        datasets.Dataset.from_dict({"x": [1, 2]}).to_parquet(tmp_path / "set" / f"{split}.parquet")
    with pytest.raises(ValueError, match="The folder set has no column of the type Image"):
        load_images(str(tmp_path / "set"))


# --- the cache -------------------------------------------------------------------------------------------------------


def test_second_load_reads_the_cache(tmp_path, monkeypatch):
    """What was loaded once is neither decoded nor drawn again, and is the same in every respect."""
    first = load_images("synthetic")
    monkeypatch.setattr(synthetic, "draw_shapes", None)
    second = load_images("synthetic")
    assert second.path == first.path
    assert (second.digest, second.note, facts(second)) == (first.digest, first.note, facts(first))
    assert torch.equal(second.train.images, first.train.images)


def test_images_are_mapped_from_their_file(tmp_path):
    """Another process gets the same images from the path alone, and cannot write to the file by changing them."""
    data = load_images(str(good_folder(tmp_path / "pets")))
    opened = open_images(data.path)
    assert (opened.digest, facts(opened), opened.note) == (data.digest, facts(data), data.note)
    opened.train.images.zero_()
    assert torch.equal(open_images(str(data.path)).train.images, data.train.images)


def flip_a_pixel(content: bytes) -> bytes:
    return content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:]


def rename_the_classes(content: bytes) -> bytes:
    return content.replace(b'\\"cat\\"', b'\\"cow\\"')


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_pixel,
        rename_the_classes,
        lambda content: content[:-1],
        lambda content: content[:100],
        lambda content: b"",
        lambda content: b"\xff" * 1000,
        lambda content: content.replace(b"optimizer-lab", b"somebody-else"),
        lambda content: content.replace(b"train.images", b"train.imagez"),
    ],
)
def test_damaged_cache_is_noticed_and_made_again(tmp_path, damage):
    """Whatever happens to a cache file, its images are never trained on: they are read anew from their source."""
    folder = str(good_folder(tmp_path / "pets"))
    data = load_images(folder)
    content = data.path.read_bytes()
    damaged = damage(content)
    assert damaged != content
    data.path.unlink()
    data.path.write_bytes(damaged)
    with pytest.raises(ValueError, match="is damaged"):
        open_images(data.path)
    assert load_images(folder).digest == data.digest
    assert open_images(data.path).digest == data.digest


def test_missing_cache_file_is_not_there(tmp_path):
    """open_images tells a file that is gone from one that is damaged."""
    with pytest.raises(FileNotFoundError):
        open_images(tmp_path / "gone.safetensors")


def test_disk_that_takes_nothing_stops_nobody(tmp_path, monkeypatch):
    """Where the cache cannot be written, the images are there all the same, and the note says so without the path."""
    (tmp_path / "home").write_text("a file where the folder should be")
    data = load_images(str(good_folder(tmp_path / "pets")))
    assert data.path is None
    assert len(data.train.labels) == 5
    assert "which the disk could not keep (" in data.note
    assert str(tmp_path) not in data.note


def test_full_disk_leaves_no_half_file(tmp_path, cache, monkeypatch):
    """A cache file that could not be finished is neither used nor left lying about."""

    def run_full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.images.image_data.save_file", run_full)
    data = load_images(str(good_folder(tmp_path / "pets")))
    assert data.note.endswith("which the disk could not keep (No space left on device).")
    assert list(cache.iterdir()) == []


def test_two_may_load_at_once(tmp_path, cache):
    """Loaders of the same set do not disturb each other: each gets all of it, and one whole file remains."""
    folder = str(good_folder(tmp_path / "pets"))
    digests = []
    threads = [threading.Thread(target=lambda: digests.append(load_images(folder).digest)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 8
    assert len(set(digests)) == 1
    assert [file.suffix for file in cache.iterdir()] == [".safetensors"]


# --- the Hub ---------------------------------------------------------------------------------------------------------

_LOADER = """
import json, sys
from trainer.images import image_data
for address in sys.argv[1:]:
    try:
        loaded = image_data.load_images(None if address == "-" else address)
        told = {**image_data.facts(loaded), "note": loaded.note, "num": len(loaded.train.labels)}
    except ValueError as error:
        told = {"error": str(error)}
    print(json.dumps(told))
"""


def load_in_process(endpoint: str, home: Path, *addresses: str) -> list[dict]:
    """What load_images gives for each address (-: none) in a process of its own, which must print nothing of its own.

    A process, because huggingface_hub and datasets read HF_ENDPOINT when they are imported.
    """
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment = {name: value for name, value in environment.items() if name != "HF_HUB_OFFLINE"}
    ended = subprocess.run(
        [sys.executable, "-c", _LOADER, *addresses],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.stderr == ""
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.slow
def test_hub(tmp_path):
    """Datasets are read from the Hub through `datasets`, named honestly, with their commit; what is not there is said.

    What was read once takes no network again, neither by its commit nor by auto.
    """
    pngs = [png(picture) for picture in noise(10)]
    jpegs = [jpeg(picture) for picture in noise(10)]
    ten = {"class_names": readers.CIFAR10_CLASSES}
    cifar10 = dataset_folder(tmp_path / "cifar10", {"train": jpegs, "test": jpegs}, **ten)
    alike = dataset_folder(tmp_path / "alike", {"train": pngs[:4], "test": pngs}, **ten)
    halved = dataset_folder(tmp_path / "halved", {"train": pngs})
    damaged = dataset_folder(tmp_path / "damaged", {"train": pngs, "test": pngs})
    table = damaged / "plain_text" / "train-00000-of-00001.parquet"
    table.write_bytes(table.read_bytes()[:-20])
    repos = {
        "datasets/uoft-cs/cifar10": Repo.of(cifar10, commit=sources.CIFAR10_REVISION),
        "datasets/someone/alike": Repo.of(alike, commit="a" * 40),
        "datasets/someone/halved": Repo.of(halved, commit="b" * 40),
        "datasets/someone/damaged": Repo.of(damaged, commit="c" * 40),
    }
    with serve(Hub(repos=repos)) as hub:
        default, new, named, *missing, again, kept = load_in_process(
            hub.endpoint,
            tmp_path / "home",
            "hub",
            "someone/alike",
            "someone/alike@main",
            "someone/alike@v2",
            "someone/halved",
            "someone/damaged",
            "someone/nothing",
            "someone/alike@" + "a" * 40,
            "-",
        )
    assert (default["name"], default["source"]) == ("CIFAR-10 (JPEG)", "hub")
    assert default["revision"] == sources.CIFAR10_REVISION
    assert default["note"] == "Training on CIFAR-10 (JPEG) from the Hub, 10 training and 10 test images."
    assert (new["name"], new["source"], new["num"]) == ("someone/alike", "someone/alike@" + "a" * 40, 4)
    assert named["digest"] == again["digest"] == new["digest"]
    assert missing.pop(2)["error"].startswith("The dataset someone/damaged cannot be read (")
    assert [answer["error"] for answer in missing] == [
        "There is no folder someone/alike here, and the Hub's dataset someone/alike has no revision v2.",
        "The dataset someone/halved has no test split.",
        "There is no folder someone/nothing here, and the Hub has no dataset someone/nothing, or it is a private one.",
    ]
    assert kept["note"].endswith("10 training and 10 test images: it was kept from an earlier download.")
    assert hub.requests[-1].endswith("/someone/nothing")


def test_hub_whose_files_do_not_come_through(tmp_path, monkeypatch):
    """A Hub that answers, but refers to a host for its files that a firewall swallows, is out of reach, and soon."""
    folder = dataset_folder(tmp_path / "set", {"train": [png(noise(1)[0])]})
    monkeypatch.setattr(sources, "HUB_SECONDS", 2.0)
    with swallow() as silence:
        repo = Repo.of(folder, commit=sources.CIFAR10_REVISION, files_endpoint=silence)
        with serve(Hub(repos={"datasets/uoft-cs/cifar10": repo})) as hub:
            point_to(hub.endpoint, monkeypatch)
            with pytest.raises(ValueError, match="The Hub could not be reached within 2 seconds"):
                load_images("hub")
    assert hub.requests[-1].endswith(".parquet")


# --- torchvision -----------------------------------------------------------------------------------------------------


def cifar10_archive(folder: Path, pictures: torch.Tensor, labels: list[int], monkeypatch) -> None:
    """Writes a small archive in CIFAR-10's format, the last two images for testing, and has torchvision expect it."""
    batches_of = {"data_batch_1": slice(0, -2), "test_batch": slice(-2, None)}
    contents = {
        name: {"data": pictures[part].flatten(1).numpy(), "labels": labels[part]} for name, part in batches_of.items()
    }
    contents["batches.meta"] = {"label_names": list(readers.CIFAR10_CLASSES)}
    (folder / CIFAR10.base_folder).mkdir(parents=True)
    md5 = {}
    for name, content in contents.items():
        pickled = pickle.dumps(content)
        (folder / CIFAR10.base_folder / name).write_bytes(pickled)
        md5[name] = hashlib.md5(pickled).hexdigest()
    with tarfile.open(folder / CIFAR10.filename, "w:gz") as archive:
        archive.add(folder / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5((folder / CIFAR10.filename).read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tarfile")  # torchvision's, from Python 3.12 on
def test_torchvision(tmp_path, monkeypatch, capfd):
    """torchvision's own class reads the archive that its server sends, and prints nothing."""
    pictures, labels = noise(8), [3, 1, 4, 1, 5, 9, 2, 6]
    cifar10_archive(tmp_path / "www", pictures, labels, monkeypatch)
    with files_served(tmp_path / "www") as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{CIFAR10.filename}")
        data = load_images("torchvision")
    assert (data.name, data.source, data.class_names) == ("CIFAR-10", "torchvision", readers.CIFAR10_CLASSES)
    assert torch.equal(data.train.images, pictures[:-2])
    assert torch.equal(data.test.images, pictures[-2:])
    assert data.train.labels.tolist() + data.test.labels.tolist() == labels
    assert capfd.readouterr() == ("", "")


def test_torchvision_does_not_open_what_it_does_not_know(tmp_path, monkeypatch):
    """An archive with another MD5 than torchvision's is refused before anything in it is unpickled."""
    cifar10_archive(tmp_path / "www", noise(4), [0, 1, 2, 3], monkeypatch)
    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    monkeypatch.setattr(pickle, "load", None)
    with files_served(tmp_path / "www") as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{CIFAR10.filename}")
        with pytest.raises(ValueError, match="sent something other than CIFAR-10"):
            load_images("torchvision")


# --- auto ------------------------------------------------------------------------------------------------------------


def test_auto_decides_though_a_firewall_swallows_all(monkeypatch):
    """Where servers take connections and never answer, auto draws shapes within 15 seconds, and says why."""
    with swallow() as silence:
        point_to(silence, monkeypatch)
        monkeypatch.setattr(CIFAR10, "url", f"{silence}/{CIFAR10.filename}")
        begun = time.monotonic()
        data = load_images("auto")
        seconds = time.monotonic() - begun
    assert data.name == data.source == "synthetic"
    assert data.note == (
        "Training on drawn shapes (synthetic), 10,000 training and 2,000 test images: "
        "the Hub could not be reached within 5 seconds; "
        "the server that torchvision gets CIFAR-10 from could not be reached within 3 seconds."
    )
    assert seconds < 15


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"please log in to the hotel's network", "sent something other than CIFAR-10"),
        (None, "answered with HTTP status 404"),
    ],
)
def test_auto_goes_on_when_a_server_fails(tmp_path, monkeypatch, unreachable, sent, reason):
    """A server that answers, but with something else than CIFAR-10, is one that auto does without."""
    (tmp_path / "www").mkdir()
    if sent:
        (tmp_path / "www" / CIFAR10.filename).write_bytes(sent)
    with files_served(tmp_path / "www") as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{CIFAR10.filename}")
        data = load_images()
    assert data.source == "synthetic"
    assert data.note.endswith(
        ": the Hub was not asked, because HF_HUB_OFFLINE is set; "
        f"the server that torchvision gets CIFAR-10 from {reason}."
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tarfile")
def test_auto_takes_torchvision_next(tmp_path, monkeypatch, unreachable):
    """Without the Hub, auto takes torchvision's copy; and the next time the one it kept, though shapes are kept too."""
    load_images("synthetic")
    cifar10_archive(tmp_path / "www", noise(4), [0, 1, 2, 3], monkeypatch)
    with files_served(tmp_path / "www") as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/{CIFAR10.filename}")
        first = load_images()
    second = load_images()
    assert first.source == second.source == "torchvision"
    assert first.note == (
        "Training on CIFAR-10 from torchvision, 2 training and 2 test images: "
        "the Hub was not asked, because HF_HUB_OFFLINE is set."
    )
    assert second.note.endswith(": it was kept from an earlier download.")


def test_silent_server_is_given_up(monkeypatch):
    """A server that answers and then says no more does not hold a run up for ever."""
    monkeypatch.setattr(sources, "STALL_SECONDS", 0.2)
    stalled = sources.Source(
        address="stalled",
        key="stalled",
        fetch=lambda report: threading.Event().wait(20),
        server="The server",
        reach=lambda report: None,
        reach_seconds=20,
    )
    with pytest.raises(ValueError, match=r"The server answered, then was silent for 0\.2 seconds"):
        stalled.read(lambda fraction, doing: None)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("No space left on device")])
def test_failing_source_is_a_sentence(error):
    """What breaks below us while a source is read is as good a reason for auto to go on as any other."""

    def fetch(report):
        raise error

    with pytest.raises(ValueError, match=r"^The images could not be read \(No space left on device\)\.$"):
        sources.Source(address="broken", key="broken", fetch=fetch).read(lambda fraction, doing: None)


# --- drawn shapes ----------------------------------------------------------------------------------------------------


def test_shapes_are_always_the_same():
    """The drawn set is bit for bit the same however often it is drawn, whatever the global seed and the threads."""
    images, labels = DRAW_SHAPES()
    state, num_threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(num_threads + 1)
    try:
        again, same_labels = DRAW_SHAPES.__wrapped__()
        assert torch.get_num_threads() == num_threads + 1
    finally:
        torch.set_num_threads(num_threads)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, again)
    assert torch.equal(labels, same_labels)
    assert torch.bincount(labels).tolist() == [1200] * 10
    assert images.shape == (12_000, 32, 32, 3)


def test_shapes_are_told_apart_by_their_outline_alone():
    """No class is known by its colours: the classes' mean brightnesses overlap far more than they differ."""
    data = load_images("synthetic")
    brightness = data.train.images.float().mean((1, 2, 3))
    means = torch.stack([brightness[data.train.labels == label].mean() for label in range(10)])
    assert means.max() - means.min() < brightness.std()
    assert data.class_names == synthetic.CLASS_NAMES
    assert torch.bincount(data.train.labels).min() > 900


# --- the real images -------------------------------------------------------------------------------------------------


def test_real_images(real_images):
    """The real set has CIFAR-10's size, classes and statistics (Krizhevsky, 2009), through JPEG or not."""
    data = real_images
    assert data.name.startswith("CIFAR-10")
    assert data.class_names == readers.CIFAR10_CLASSES
    assert torch.bincount(data.train.labels).tolist() == [5000] * 10
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10
    mean, std = pixel_statistics(data.train)
    assert mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.001)
    assert std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.003)


# --- splits, batches and statistics ----------------------------------------------------------------------------------


def test_statistics_are_exact():
    """Mean and deviation are those that float64 arithmetic finds pixel by pixel, and 0 for pixels all alike."""
    split = split_of(noise(50))
    pixels = split.images.double() / 255
    mean, std = pixel_statistics(split)
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), rel=1e-12)
    assert pixel_statistics(split_of(torch.full((3, 3, 32, 32), 51).byte())) == ((0.2,) * 3, (0.0,) * 3)


def test_subset_is_the_beginning():
    """A subset is the first images, uncopied; 0 means all."""
    split = split_of(noise(10))
    assert subset(split, 4).labels.tolist() == [0, 1, 2, 3]
    assert subset(split, 4).images.data_ptr() == split.images.data_ptr()
    assert subset(split, 4).images.is_contiguous(memory_format=torch.channels_last)
    assert len(subset(split, 0).labels) == len(subset(split, 99).labels) == 10


def test_to_device_keeps_layout():
    """Moving a split keeps its values, types and channels_last memory."""
    split = split_of(noise(10))
    moved = to_device(split, "cpu")
    assert torch.equal(moved.images, split.images)
    assert moved.images.is_contiguous(memory_format=torch.channels_last)


def epoch_of(split: Split, epoch: int = 1, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    """All images and labels of an epoch."""
    images, labels = zip(*batches(split, Settings(**settings), epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("num", "batch_size"), [(20, 8), (24, 8), (5, 8), (2500, 7), (2100, 1500)])
def test_each_image_comes_once(num, batch_size, shuffle, augment):
    """An epoch has every image once with its own label, in full batches and a rest, and in order if not shuffled."""
    # Of one grey each, so that they are still told apart when they were moved.
    split = split_of((torch.arange(num) % 251).byte().view(-1, 1, 1, 1).repeat(1, 3, 4, 4))
    config = Settings(batch_size=batch_size, shuffle=shuffle, augment=augment)
    sizes, seen = [], []
    for images, labels in batches(split, config, 1):
        assert images.dtype == torch.uint8
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images[:, 0, 0, 0].long(), labels % 251)
        sizes.append(len(labels))
        seen += labels.tolist()
    assert len(sizes) == num_batches(num, config)
    assert set(sizes[:-1]) <= {batch_size}
    assert sorted(seen) == list(range(num))
    assert (seen == list(range(num))) is not shuffle


@pytest.mark.parametrize(("num", "expected"), [(20, 2), (24, 3), (5, 0)])
def test_drop_last_drops_the_rest(num, expected):
    """With drop_last all batches are full, and a split smaller than a batch has none."""
    config = Settings(drop_last=True)
    sizes = [len(labels) for _, labels in batches(split_of(noise(num)), config, 1)]
    assert sizes == [8] * expected
    assert num_batches(num, config) == expected


def test_epochs_repeat_and_differ():
    """(seed, epoch) alone decides: the same pair repeats bit for bit whatever came before, another gives another order.

    Among the pairs are those that a generator with a seed of 32 bits, a sum, or a concatenation would confuse.
    """
    split = split_of(noise(64))
    images, labels = epoch_of(split, 3, seed=7, augment=True)
    torch.manual_seed(1)
    again, same_labels = epoch_of(split, 3, seed=7, augment=True)
    assert torch.equal(images, again)
    assert torch.equal(labels, same_labels)
    pairs = [*itertools.product(range(12), range(12)), (2**32 + 5, 0), (5, 2**32), (1, 112), (11, 12), (111, 2)]
    orders = {tuple(epoch_of(split, epoch, seed=seed)[1].tolist()) for seed, epoch in pairs}
    assert len(orders) == len(set(pairs))


def test_augmentation_differs_without_shuffling():
    """Unshuffled epochs, too, are moved and flipped each in its own way."""
    split = split_of(noise(64))
    first, second = (epoch_of(split, epoch, shuffle=False, augment=True)[0] for epoch in (1, 2))
    assert not torch.equal(first, second)


def test_global_generators_are_left_alone():
    """An epoch neither reads nor moves the random state of torch and NumPy that other code depends on."""
    split = split_of(noise(64))
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    epoch_of(split, augment=True)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_augmentation_is_a_mirrored_crop_and_a_flip():
    """Each augmented image is one of the 50 that padding by reflection, cropping and flipping, done singly, can make.

    All 50 occur, about equally often, and so none is left out or favoured.
    """
    size, pad = 8, 2
    split = split_of(noise(2000, height=size, width=size))
    images, labels = epoch_of(split, augment=True)
    counts = np.zeros((5, 5, 2), int)
    for image, label in zip(images.numpy(), labels.tolist(), strict=True):
        padded = np.pad(split.images[label].numpy(), ((0, 0), (pad, pad), (pad, pad)), "reflect")
        made = [
            (down, across, flip)
            for down, across, flip in np.ndindex(counts.shape)
            if np.array_equal(image, padded[:, down : down + size, across : across + size][:, :, :: 1 - 2 * flip])
        ]
        assert len(made) == 1
        counts[made[0]] += 1
    # 40 are expected of each; four standard deviations either way.
    assert counts.min() > 15
    assert counts.max() < 65
