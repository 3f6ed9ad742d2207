"""Image sets as tensors: their layout, digest, statistics and cache."""

import hashlib
import json
import threading
from pathlib import Path

import pytest
import torch
from image_sets import noise, numbered_split, write_pets

from trainer.images import readers, synthetic
from trainer.images.image_data import facts, load_images, open_images, pixel_statistics, subset, to_device


def test_layout_and_attributes(tmp_path):
    """Images are uint8 [n, 3, 32, 32] in channels_last memory, labels are int64, and every attribute has its value."""
    data = load_images(str(write_pets(tmp_path / "pets")))
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
    """The digest is computed from the documented parts, so that runs saved today can be resumed by later versions."""
    data = load_images(str(write_pets(tmp_path / "pets")))
    shapes = [[5, 32, 32, 3], [5], [2, 32, 32, 3], [2]]
    expected = hashlib.sha256(json.dumps([["cat", "dog"], shapes]).encode())
    for split in (data.train, data.test):
        expected.update(split.images.permute(0, 2, 3, 1).numpy().tobytes())
        expected.update(split.labels.numpy().tobytes())
    assert data.digest == expected.hexdigest()


def test_progress_is_reported_in_the_callers_thread(tmp_path):
    """The fraction never decreases and comes with a description, in the thread that gr.Progress and tqdm need."""
    reports = []
    load_images(
        str(write_pets(tmp_path / "pets")),
        progress=lambda fraction, doing: reports.append((fraction, doing, threading.current_thread())),
    )
    fractions = [fraction for fraction, _, _ in reports]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] == 1
    assert all(doing for _, doing, _ in reports)
    assert {thread for _, _, thread in reports} == {threading.current_thread()}


def test_environment_names_the_source(tmp_path, monkeypatch):
    """OPTIMIZER_LAB_DATA is the source if none is given."""
    monkeypatch.setenv("OPTIMIZER_LAB_DATA", str(write_pets(tmp_path / "pets")))
    assert load_images().name == "pets"
    assert load_images(str(write_pets(tmp_path / "beasts"))).name == "beasts"


@pytest.mark.slow
def test_second_load_reads_the_cache(tmp_path, monkeypatch):
    """A second load does not draw again, and returns the same images and attributes."""
    first = load_images("synthetic")
    monkeypatch.setattr(synthetic, "draw_shapes", None)
    second = load_images("synthetic")
    assert second.path == first.path
    assert (second.digest, second.note, facts(second)) == (first.digest, first.note, facts(first))
    assert torch.equal(second.train.images, first.train.images)


def test_images_are_mapped_from_their_file(tmp_path):
    """The path alone gives the same images; changing the tensors does not change the file."""
    data = load_images(str(write_pets(tmp_path / "pets")))
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
        lambda content: content.replace(b"optimizer-lab", b"another-label"),
        lambda content: content.replace(b"train.images", b"train.imagez"),
        lambda content: content.replace(b'\\"source\\"', b'\\"sauce!\\"'),
    ],
)
def test_damaged_cache_is_replaced(tmp_path, damage):
    """A damaged cache file is never used: the images are read from their source again."""
    folder = str(write_pets(tmp_path / "pets"))
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


def test_missing_cache_file(tmp_path):
    """open_images raises FileNotFoundError for a missing file, not the error for a damaged one."""
    with pytest.raises(FileNotFoundError):
        open_images(tmp_path / "gone.safetensors")


def test_home_that_cannot_be_written(tmp_path, caplog):
    """The images are cached in a temporary folder; a warning says so once."""
    (tmp_path / "home").write_text("a file where the folder should be")
    for name in ("pets", "others"):
        data = load_images(str(write_pets(tmp_path / name)))
        assert data.path is not None
        assert open_images(data.path).digest == data.digest
        assert len(data.train.labels) == 5
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1


def test_full_disk_leaves_no_partial_file(tmp_path, cache, monkeypatch):
    """The images are loaded all the same, and the note gives the reason, without the path."""

    def fill_disk(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.images.image_data.save_file", fill_disk)
    data = load_images(str(write_pets(tmp_path / "pets")))
    assert data.path is None
    assert data.note.endswith("which could not be cached (No space left on device).")
    assert list(cache.iterdir()) == []


def test_concurrent_loads(tmp_path, cache):
    """Each of several concurrent loads gets the whole set, and one cache file remains."""
    folder = str(write_pets(tmp_path / "pets"))
    digests = []
    threads = [threading.Thread(target=lambda: digests.append(load_images(folder).digest)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 8
    assert len(set(digests)) == 1
    assert [file.suffix for file in cache.iterdir()] == [".safetensors"]


def test_real_images(real_images):
    """The real images have CIFAR-10's size, classes and statistics (Krizhevsky, 2009), also in JPEG."""
    data = real_images
    assert data.name.startswith("CIFAR-10")
    assert data.class_names == readers.CIFAR10_CLASSES
    assert torch.bincount(data.train.labels).tolist() == [5000] * 10
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10
    mean, std = pixel_statistics(data.train)
    assert mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.001)
    assert std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.003)


def test_statistics_are_exact():
    """Mean and standard deviation agree with float64 arithmetic; equal pixels have a deviation of 0."""
    split = numbered_split(noise(50))
    pixels = split.images.double() / 255
    mean, std = pixel_statistics(split)
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), rel=1e-12)
    assert pixel_statistics(numbered_split(torch.full((3, 3, 32, 32), 51).byte())) == ((0.2,) * 3, (0.0,) * 3)


def test_subset_is_the_beginning():
    """A subset is a view of the first images; 0 means all."""
    split = numbered_split(noise(10))
    assert subset(split, 4).labels.tolist() == [0, 1, 2, 3]
    assert subset(split, 4).images.data_ptr() == split.images.data_ptr()
    assert subset(split, 4).images.is_contiguous(memory_format=torch.channels_last)
    assert len(subset(split, 0).labels) == len(subset(split, 99).labels) == 10


def test_to_device_keeps_layout():
    """Moving a split keeps its values and its channels_last memory."""
    split = numbered_split(noise(10))
    moved = to_device(split, "cpu")
    assert torch.equal(moved.images, split.images)
    assert moved.images.is_contiguous(memory_format=torch.channels_last)
