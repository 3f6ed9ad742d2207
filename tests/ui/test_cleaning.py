"""Old runs, and too many, are cleared; what is trained at the moment and what comes with the app stay."""

import math
import os
import shutil
import time
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from trainer.runs import run_folder
from trainer.runs.reader import read_checkpoint
from trainer.settings.config import TrainConfig
from ui.cleaning import clear, clear_downloads, clear_uploads
from ui.lab import BUNDLED, OWNER
from ui.limits import Limits

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


def test_nothing_is_cleared_without_a_limit(runs):
    """Years old or not."""
    clear(runs, Limits())
    assert all(run_folder.is_run(folder) for folder in runs)


def test_the_old_go(runs):
    """By when they were last written."""
    clear(runs, Limits(days=15))
    assert [folder.exists() for folder in runs] == [False, False, True, True]


def test_what_is_too_much_goes_oldest_first(runs):
    """And no more of it than must."""
    clear(runs, Limits(disk_gb=2.5 * size(runs[0]) / 1e9))
    assert [folder.exists() for folder in runs] == [False, False, True, True]


def test_uploads_go_after_a_day_or_when_they_are_too_much(tmp_path):
    """Whether Gradio remembers them or not; what is asked for meanwhile may be gone."""
    files = [tmp_path / str(number) / "picture.png" for number in range(4)]
    for path, days in zip(files, (2, 0.9, 0.5, 0), strict=True):
        path.parent.mkdir()
        path.write_bytes(bytes(1000))
        age(path.parent, days)
    clear_uploads(tmp_path, Limits())
    assert [path.exists() for path in files] == [False, True, True, True]
    clear_uploads(tmp_path, Limits(disk_gb=2500 / 1e9))
    assert [path.exists() for path in files] == [False, False, True, True]
    clear_uploads(tmp_path / "nothing", Limits())


def test_what_nobody_owns_goes_first(runs):
    """However young: what comes by the API must not push out what visitors keep."""
    for folder in runs[:3]:
        (folder / OWNER).write_text("0" * 64)
    clear(runs, Limits(disk_gb=3.5 * size(runs[0]) / 1e9))
    assert [folder.exists() for folder in runs] == [True, True, True, False]


def test_a_folder_that_goes_meanwhile(runs, monkeypatch):
    """As where its visitor deletes it: the others are counted, and cleared, all the same."""
    whole, gone = Path.rglob, runs[0]

    def rglob(folder, pattern):
        if folder == gone:
            raise FileNotFoundError(folder)
        return whole(folder, pattern)

    monkeypatch.setattr(Path, "rglob", rglob)
    clear(runs, Limits(days=15))
    assert [folder.exists() for folder in runs[1:]] == [False, True, True]


def test_what_its_visitor_deletes_meanwhile_is_counted(runs, monkeypatch):
    """No other run goes because the cleaner came second."""
    deletes = run_folder.delete

    def delete(folder):
        deletes(folder)
        if folder == runs[0]:
            raise FileNotFoundError(folder)

    monkeypatch.setattr(run_folder, "delete", delete)
    clear(runs, Limits(disk_gb=3.5 * size(runs[0]) / 1e9))
    assert [folder.exists() for folder in runs] == [False, True, True, True]


def test_runs_that_went_before_they_were_counted(runs, monkeypatch):
    """Or whose network mount does not answer; they are not made anew by clearing them."""
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


def test_a_run_in_progress_stays(runs):
    """However old and however large: the next oldest goes in its place."""
    with run_folder.writing(runs[0]):
        clear(runs, Limits(days=15, disk_gb=2.5 * size(runs[0]) / 1e9))
        assert [folder.exists() for folder in runs] == [True, False, False, True]
        assert read_checkpoint(runs[0]).epoch == 1


def test_a_folder_that_never_became_a_run_goes_after_an_hour(tmp_path):
    """Not before: somebody may have just made it."""
    new, old = tmp_path / "new", tmp_path / "old"
    for folder in (new, old):
        folder.mkdir()
    age(old, 1)
    clear([new, old], Limits(days=100))
    assert new.exists()
    assert not old.exists()


def test_what_comes_with_the_app_is_no_run(tmp_path):
    """Its names are no keys: a Lab on that very folder lists none of them to clear."""
    import torch

    from trainer.learning.lr_finder import find_lr
    from trainer.learning.race import race
    from ui.lab import Lab

    lab = Lab(checkpoints=BUNDLED, device=torch.device("cpu"), race=race, find_lr=find_lr)
    assert not {folder.name for folder in lab.all_runs()} & {"quick", "fast"}
    while lab.images is None and not lab.failure:
        time.sleep(0.05)


def test_what_came_from_the_hub_goes_when_it_is_too_much(monkeypatch, tmp_path):
    """What was not used for longest first, and no more of it than must; where nothing ever came, nothing is amiss."""
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
