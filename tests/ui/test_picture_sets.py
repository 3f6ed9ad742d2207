"""PictureSets: choices, a visitor's own pictures, and who can reach them."""

import os
import time
import zipfile
from dataclasses import replace

import gradio as gr
import pytest
import torch
from image_sets import draw_arrows, noise, png
from labs import bare

from trainer.errors import UserError
from trainer.images.image_data import OWN, open_images
from trainer.learning.schedulers import planned_lrs
from trainer.learning.training_set import num_training_images
from trainer.progress import ignore_progress
from trainer.runs.reader import read_run, read_settings
from trainer.settings.config import TrainConfig
from trainer.settings.presets import FIRST
from trainer.sweeps.axes import axis
from trainer.sweeps.runner import sweep_settings
from ui import picture_sets
from ui.limits import Limits
from ui.picture_sets import DEFAULT, PictureSets
from ui.tabs.sweep import panel
from ui.tabs.sweep.plan import Plan
from ui.tabs.train.setup import pictures
from ui.tabs.train.setup.pictures import PicturesView
from ui.tabs.train.setup.settings import write_code
from ui.visitors import new_visitor

ANNA, BEN = "a" * 64, "b" * 64


@pytest.fixture
def sets(tmp_path):
    return PictureSets(tmp_path / "sets", Limits(pictures=60, classes=3), any_dataset=False)


def files(folder, num: int, first: int = 0, size: int = 32) -> list:
    """Writes different pictures and returns their paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, picture in enumerate(noise(num, height=size, width=size, seed=first)):
        paths.append(folder / f"{first}-{number}.png")
        paths[-1].write_bytes(png(picture))
    return paths


def choose_own(sets, owner, tmp_path, num: int = 10):
    for number, name in enumerate(("cat", "dog")):
        sets.add(owner, name, files(tmp_path / "files", num, first=number))
    return sets.choose(owner, OWN, ignore_progress)


def test_own_pictures_become_a_set(sets, tmp_path):
    """From two classes of ten pictures; a tenth of each is for testing. It can be mapped by another process."""
    paths = files(tmp_path / "files", 10, size=40)
    draft, skipped = sets.add(ANNA, "  a   cat ", paths)
    assert (draft.class_names, draft.counts, draft.is_enough, skipped) == (("a cat",), [10], False, [])
    assert sets.choose(ANNA, OWN, ignore_progress) is None
    with pytest.raises(UserError, match="at least 2 classes with 10 pictures"):
        sets.images(ANNA)
    (tmp_path / "notes.txt").write_text("no picture")
    draft, skipped = sets.add(ANNA, "dog", [*files(tmp_path / "files", 12, first=1), tmp_path / "notes.txt"])
    assert (draft.counts, draft.is_enough, skipped) == ([10, 12], True, [tmp_path / "notes.txt"])
    images = sets.choose(ANNA, OWN, ignore_progress)
    assert images is sets.images(ANNA)
    assert (images.source, images.class_names) == (OWN, ("a cat", "dog"))
    assert (torch.bincount(images.train.labels).tolist(), len(images.test.labels)) == ([9, 11], 2)
    assert open_images(images.path).digest == images.digest


def test_a_run_finds_the_version_that_it_was_trained_on(sets, tmp_path):
    """More pictures make another version; some earlier ones stay."""
    first = choose_own(sets, ANNA, tmp_path)
    sets.add(ANNA, "dog", files(tmp_path / "files", 3, first=5))
    second = sets.choose(ANNA, OWN, ignore_progress)
    assert first.digest != second.digest
    assert [sets.find(ANNA, each.digest).digest for each in (first, second)] == [first.digest, second.digest]
    assert sets.find(ANNA, "unknown") is None


def test_nobody_else_has_them(sets, tmp_path):
    """Another visitor has neither the pictures nor the choice, whatever digest they name."""
    images = choose_own(sets, ANNA, tmp_path)
    assert sets.choice(BEN) == DEFAULT
    assert sets.images(BEN) is None
    assert sets.find(BEN, images.digest) is None
    assert not sets.draft(BEN).class_names


def test_deleted_by_the_visitor_and_with_age(sets, tmp_path):
    """Both leave nothing on the disk; a training that has mapped them keeps its own."""
    images = choose_own(sets, ANNA, tmp_path)
    choose_own(sets, BEN, tmp_path)
    sets.delete(ANNA)
    assert images.train.images.sum() > 0
    assert not (tmp_path / "sets" / ANNA).exists()
    assert sets.images(ANNA) is None
    limited = PictureSets(tmp_path / "sets", replace(Limits(), days=1), any_dataset=False)
    limited.clear()
    assert sets.images(BEN) is not None
    for file in (tmp_path / "sets" / BEN).iterdir():
        os.utime(file, (time.time() - 90_000,) * 2)
    limited.clear()
    assert list((tmp_path / "sets").iterdir()) == []


def test_the_disk_limit_takes_the_oldest(sets, tmp_path):
    """Until the rest fits."""
    choose_own(sets, ANNA, tmp_path)
    for file in (tmp_path / "sets" / ANNA).iterdir():
        os.utime(file, (time.time() - 1000,) * 2)
    choose_own(sets, BEN, tmp_path)
    PictureSets(tmp_path / "sets", Limits(disk_gb=200e-6), any_dataset=False).clear()
    assert [folder.name for folder in (tmp_path / "sets").iterdir()] == [BEN]


def test_a_zip_replaces_them(sets, tmp_path):
    """With what was skipped; one of another layout or with too many files is refused, and changes nothing."""
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, picture in enumerate(noise(40)):
            archive.writestr(f"{'ab'[number % 2]}/{number}.png", png(picture))
        archive.writestr("notes.txt", "no picture")
    draft, remarks = sets.add_zip(ANNA, path, ignore_progress)
    assert (draft.class_names, draft.counts) == (("a", "b"), [20, 20])
    assert remarks == ["Skipped files (1): notes.txt."]
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(30):
            archive.writestr(f"a/more-{number}", "x")
    with pytest.raises(UserError, match="up to 60 pictures and 3 classes"):
        sets.add_zip(ANNA, path, ignore_progress)
    assert sets.draft(ANNA).counts == [20, 20]


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "a\0b", "\u202e"])
def test_bad_class_names(sets, tmp_path, name):
    """Names that a network cannot have; the names of a path are only names."""
    with pytest.raises(UserError):
        sets.add(ANNA, name, files(tmp_path / "files", 1))
    for longest in ("../../etc", "x" * 100):
        sets.add(ANNA, longest, files(tmp_path / "files", 1))
    assert {path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".png"} == {
        "draft.safetensors"
    }


def test_limits(sets, tmp_path):
    """On pictures and classes."""
    with pytest.raises(UserError, match="up to 60 pictures and 3 classes"):
        sets.add(ANNA, "a", files(tmp_path / "files", 61))
    for name in "abc":
        sets.add(ANNA, name, files(tmp_path / "files", 1))
    with pytest.raises(UserError, match="3 classes"):
        sets.add(ANNA, "d", files(tmp_path / "files", 1))


@pytest.mark.parametrize("source", ["someone/else", "/etc", "~", "a b", "own\n", "ylecun/mnist@main"])
def test_a_public_app_offers_its_list(sets, source):
    """No other dataset, and no folder of the server."""
    with pytest.raises(UserError, match=r"on the Hub|of the list"):
        sets.choose(ANNA, source, ignore_progress)
    assert sets.choice(ANNA) == DEFAULT


def test_few_sets_stay_open(sets, tmp_path, monkeypatch):
    """The least recently used one is closed, and opened again when it is used."""
    monkeypatch.setattr(picture_sets, "_MOST_OPEN", 1)
    first = choose_own(sets, ANNA, tmp_path)
    choose_own(sets, BEN, tmp_path, num=11)
    again = sets.images(ANNA)
    assert again is not first
    assert again.digest == first.digest


def test_a_training_uses_what_its_visitor_has_chosen(lab, tmp_path):
    """It finds its own pictures again when it is resumed; others train on the app's pictures."""
    anna, ben = new_visitor(), new_visitor()
    images = choose_own(lab.sets, lab.owner(anna), tmp_path)
    config = TrainConfig(epochs=1, batch_size=9, scheduler="constant")
    with pytest.raises(UserError, match="batch_size must not be above the 18 pictures"):
        lab.train(anna, [config.changed({"batch_size": 19})])
    jobs = [lab.train(visitor, [config.changed({"num_images": 18})]) for visitor in (anna, ben)]
    for job in jobs:
        wait_until_ended(lab, job)
    (anna_run,), (ben_run,) = lab.runs.of(anna), lab.runs.of(ben)
    assert read_settings(anna_run)[1] == {
        "name": "own pictures",
        "source": OWN,
        "revision": None,
        "digest": images.digest,
    }
    assert read_settings(ben_run)[1]["digest"] == lab.images.digest
    lab.sets.choose(lab.owner(anna), DEFAULT, ignore_progress)
    wait_until_ended(lab, lab.resume(anna, anna_run.name, total_epochs=2, changes={}))
    assert read_run(anna_run).epoch == 2
    lab.sets.delete(lab.owner(anna))
    with pytest.raises(UserError, match="trained on other pictures"):
        lab.resume(anna, anna_run.name, total_epochs=3, changes={})


def test_a_sweep_uses_what_its_visitor_has_chosen(lab, tmp_path):
    """Its runs train on the visitor's own pictures."""
    anna = new_visitor()
    images = choose_own(lab.sets, lab.owner(anna), tmp_path)
    settings = {"epochs": 1, "batch_size": 4, "scheduler": "constant"}
    job = lab.sweep(anna, settings, [axis("lr", [0.01, 0.1])])
    wait_until_ended(lab, job)
    assert job.sweep.data["digest"] == images.digest
    assert [run.status for run in job.runs.values()] == ["completed"] * 2


def wait_until_ended(lab, job):
    """Waits for a job, for at most a minute."""
    deadline = time.monotonic() + 60
    while job.is_active:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not job.failure


def choose_arrows(lab, visitor, tmp_path):
    """Makes 2 × 40 arrows the visitor's choice, whose names do not say that a mirror matters."""
    pictures, labels = draw_arrows(80, seed=0)
    owner = lab.owner(visitor)
    for label, name in enumerate(("here", "there")):
        paths = [tmp_path / f"{name}-{number}.png" for number in range(40)]
        for path, picture in zip(paths, pictures[labels == label], strict=True):
            path.write_bytes(png(picture.permute(2, 0, 1).contiguous()))
        lab.sets.add(owner, name, paths)
    return lab.sets.choose(owner, OWN, ignore_progress)


@pytest.mark.slow
def test_a_sweep_does_not_mirror_what_a_mirror_makes_wrong(lab, tmp_path):
    """Unless flip is what varies, or has been chosen."""
    anna, axes = new_visitor(), [axis("lr", [0.01, 0.1])]
    choose_arrows(lab, anna, tmp_path)
    settings = {"epochs": 1, "batch_size": 4, "scheduler": "constant"}
    job = lab.sweep(anna, settings, axes)
    assert {cell.config.flip for cell in job.cells} == {False}
    wait_until_ended(lab, job)
    assert sweep_settings({}, [axis("flip", [True, False])], job.images) == ({}, "")
    assert sweep_settings({"flip": True}, axes, job.images) == ({"flip": True}, "")


def test_plan_preview_and_script_are_of_the_chosen_pictures(lab, tmp_path):
    """The plan takes all 72 in small batches, its line says why flip is off, and no script can load them."""
    anna = new_visitor()
    images = choose_arrows(lab, anna, tmp_path)
    grid = lab.sweep_grid(Plan().settings(images), Plan().axes(), images)
    assert len(grid.cells) == 54
    assert {(num_training_images(cell.config, images), cell.config.batch_size) for cell in grid.cells} == {(64, 16)}
    line = panel.words(lab, grid, None, "en", sweep_settings({}, Plan().axes(), images)[1])
    assert "in a mirror these pictures look like those of another class" in line
    chosen = pictures.suited_settings(images)
    assert chosen == {"flip": False, "batch_size": 16, "epochs": 30, "pretrained": "frozen"}
    config = FIRST.changed(chosen)
    assert len(planned_lrs(config, lab.shown_images(anna))) == 30 * 5
    with pytest.raises(gr.Error, match="own pictures, which a script cannot load"):
        write_code(lab, visitor=anna, **config.settings())


def test_unequal_classes_are_pointed_out(lab, tmp_path):
    """Guessing the largest class looks like a good accuracy."""
    owner = lab.owner(new_visitor())
    lab.sets.add(owner, "cat", files(tmp_path / "files", 10))
    lab.sets.add(owner, "dog", files(tmp_path / "files", 90, first=1))
    images = lab.sets.choose(owner, OWN, ignore_progress)
    assert "The largest class has 90% of the pictures" in pictures._own(lab.sets.draft(owner), images, [], "en")


def test_what_is_refused_leaves_the_classes_in_sight(lab, tmp_path, monkeypatch):
    """Beside the sentence that explains it."""
    visitor, view = new_visitor(), bare(PicturesView)
    lab.sets.add(lab.owner(visitor), "cat", files(tmp_path / "files", 10))
    monkeypatch.setattr("ui.server.uploads.get_upload_folder", lambda: str(tmp_path))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    updates = pictures.add(lab, view, {}, visitor=visitor, class_name="dog", files=[{"path": str(broken)}])
    about = updates[view.about]["value"]
    assert "class='advice'" in about
    assert "cat <b>10</b>" in about


def test_skipped_files_have_their_own_names(lab, tmp_path, monkeypatch):
    """Not those under which the app stores them."""
    monkeypatch.setattr("ui.server.uploads.get_upload_folder", lambda: str(tmp_path))
    stored = [*files(tmp_path, 1), tmp_path / "upload.png"]
    stored[1].write_bytes(b"no picture")
    sent = [{"path": str(path), "orig_name": name} for path, name in zip(stored, ("cat.png", "notes.png"), strict=True)]
    view = bare(PicturesView)
    updates = pictures.add(lab, view, {}, visitor=new_visitor(), class_name="cat", files=sent)
    assert "Skipped: notes.png." in updates[view.about]["value"]


def test_a_zip_with_other_files_is_refused(lab, tmp_path, monkeypatch):
    """The others would be left out without a word."""
    monkeypatch.setattr("ui.server.uploads.get_upload_folder", lambda: str(tmp_path))
    sent = [*files(tmp_path, 1), tmp_path / "pictures.zip"]
    sent[1].write_bytes(b"zip")
    view = bare(PicturesView)
    updates = pictures.add(
        lab, view, {}, visitor=new_visitor(), class_name="cat", files=[{"path": str(p)} for p in sent]
    )
    assert "Add a zip on its own, without other files." in updates[view.about]["value"]


def test_classes_with_too_few_pictures_are_named(sets, tmp_path):
    """Two classes that have enough do not make up for them."""
    choose_own(sets, ANNA, tmp_path)
    draft, _ = sets.add(ANNA, "cow", files(tmp_path / "files", 1, first=9))
    assert not draft.is_enough
    with pytest.raises(UserError, match=r"at least 10 pictures; too few have: cow\.$"):
        sets.images(ANNA)


def test_a_choice_that_was_not_saved_is_saved_again(sets, tmp_path):
    """As after a full disk."""
    path = choose_own(sets, ANNA, tmp_path).path
    path.unlink()
    assert sets.images(ANNA).path == path
