"""Deletion of runs, uploads and downloads that are old or too large; running and bundled runs stay."""

import math
import os
import shutil
import time
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from trainer.networks.pretrained import BUNDLED
from trainer.runs import run_folder
from trainer.runs.reader import read_checkpoint
from trainer.settings.config import TrainConfig
from ui.cleaning import clear, clear_downloads, clear_uploads
from ui.limits import Limits
from ui.run_index import OWNER

DAY = 86400


@pytest.fixture
def runs(trained, tiny, tmp_path):
    """Four runs, last written 40, 20, 10 and 0 days ago."""
    first, _ = trained(TrainConfig(epochs=1, batch_size=8, scheduler="constant"), tiny, folder=tmp_path / "0")
    folders = [first, *(shutil.copytree(first, tmp_path / str(number)) for number in (1, 2, 3))]
    for folder, days in zip(folders, (40, 20, 10, 0), strict=True):
        age(folder, days)
    return folders


def age(folder, days):
    then = time.time() - days * DAY
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then))


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*"))


def test_nothing_is_deleted_without_a_limit(runs):
    """However old the runs are."""
    clear(runs, Limits())
    assert all(run_folder.is_run(folder) for folder in runs)


def test_old_runs_are_deleted(runs):
    """By the time of their last change."""
    clear(runs, Limits(days=15))
    assert [folder.exists() for folder in runs] == [False, False, True, True]


def test_the_oldest_runs_are_deleted_to_fit_the_disk_limit(runs):
    """Not more of them than necessary."""
    clear(runs, Limits(disk_gb=2.5 * size(runs[0]) / 1e9))
    assert [folder.exists() for folder in runs] == [False, False, True, True]


def test_uploads_are_deleted_after_a_day_or_to_fit_the_disk_limit(tmp_path):
    """Including uploads from before the app was restarted; a missing folder is no error."""
    files = [tmp_path / str(number) / "picture.png" for number in range(4)]
    for path, days in zip(files, (2, 0.9, 0.5, 0), strict=True):
        path.parent.mkdir()
        path.write_bytes(bytes(1000))
        age(path.parent, days)
    (tmp_path / "empty").mkdir()
    age(tmp_path / "empty", 2)
    clear_uploads(tmp_path, Limits())
    assert [path.exists() for path in files] == [False, True, True, True]
    assert not (tmp_path / "empty").exists()
    clear_uploads(tmp_path, Limits(disk_gb=2500 / 1e9))
    assert [path.exists() for path in files] == [False, False, True, True]
    clear_uploads(tmp_path / "nothing", Limits())


def test_runs_without_an_owner_are_deleted_first(runs):
    """However new they are: runs of the API must not displace those of visitors."""
    for folder in runs[:3]:
        (folder / OWNER).write_text("0" * 64)
    clear(runs, Limits(disk_gb=3.5 * size(runs[0]) / 1e9))
    assert [folder.exists() for folder in runs] == [True, True, True, False]


def test_a_folder_that_disappears_while_it_is_counted(runs, monkeypatch):
    """Its visitor may delete it: the other runs are still counted and deleted."""
    original, gone = Path.rglob, runs[0]

    def rglob(folder, pattern):
        if folder == gone:
            raise FileNotFoundError(folder)
        return original(folder, pattern)

    monkeypatch.setattr(Path, "rglob", rglob)
    clear(runs, Limits(days=15))
    assert [folder.exists() for folder in runs[1:]] == [False, True, True]


def test_a_run_that_its_visitor_deletes_first_counts_as_freed(runs, monkeypatch):
    """No other run is deleted in its place."""
    original = run_folder.delete

    def delete(folder):
        original(folder)
        if folder == runs[0]:
            raise FileNotFoundError(folder)

    monkeypatch.setattr(run_folder, "delete", delete)
    clear(runs, Limits(disk_gb=3.5 * size(runs[0]) / 1e9))
    assert [folder.exists() for folder in runs] == [False, True, True, True]


def test_runs_that_disappear_before_they_are_counted(runs, monkeypatch):
    """Missing runs, and one on a network mount that does not answer; deleting does not create them again."""
    for folder in runs[:2]:
        shutil.rmtree(folder)
    stat = os.stat

    def unreachable(path, *arguments, **options):
        if Path(str(path)).is_relative_to(runs[1]):
            raise OSError(116, "Stale file handle")
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", unreachable)
    clear(runs, Limits(days=15))
    clear(runs, Limits(disk_gb=1e-9))
    monkeypatch.undo()
    assert not any(folder.exists() for folder in runs)


@pytest.mark.slow
def test_a_run_in_progress_stays(runs):
    """However old and large it is: the next oldest is deleted instead."""
    with run_folder.writing(runs[0]):
        clear(runs, Limits(days=15, disk_gb=2.5 * size(runs[0]) / 1e9))
        assert [folder.exists() for folder in runs] == [True, False, False, True]
        assert read_checkpoint(runs[0]).epoch == 1


def test_a_folder_without_a_run_is_deleted_after_an_hour(tmp_path):
    """Not earlier, because its training may have just started."""
    new, old = tmp_path / "new", tmp_path / "old"
    for folder in (new, old):
        folder.mkdir()
    age(old, 1)
    clear([new, old], Limits(days=100))
    assert new.exists()
    assert not old.exists()


def test_bundled_checkpoints_are_not_runs(tmp_path):
    """Their names are not keys: a Lab on their folder does not list them for deletion."""
    from labs import make_lab

    lab = make_lab(BUNDLED)
    assert not {folder.name for folder in lab.runs.all()} & {"quick", "fast"}
    while lab.images is None and not lab.failure:
        time.sleep(0.05)


def test_downloads_are_deleted_to_fit_the_disk_limit(monkeypatch, tmp_path):
    """The least recently used first, and not more than necessary; a missing cache is no error."""
    monkeypatch.setattr("ui.cleaning.scan_cache_dir", lambda: scan_cache_dir(tmp_path))
    clear_downloads(Limits(disk_gb=1e-6))
    for number, name in enumerate(("old", "middle", "new")):
        repo = tmp_path / f"models--owner--{name}"
        (repo / "blobs").mkdir(parents=True)
        (repo / "blobs" / "0").write_bytes(bytes(1000))
        (repo / "snapshots" / f"{number:040}").mkdir(parents=True)
        (repo / "snapshots" / f"{number:040}" / "model.safetensors").symlink_to("../../blobs/0")
        os.utime(repo / "blobs" / "0", (1e9 + number, 1e9 + number))
    clear_downloads(Limits(disk_gb=math.inf))
    assert len(list(tmp_path.iterdir())) == 3
    clear_downloads(Limits(disk_gb=2.5e-6))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models--owner--middle", "models--owner--new"]
