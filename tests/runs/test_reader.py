"""A run is read as it was written, and a damaged or foreign folder is refused."""

import json
import math
import os
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.runs.test_run_folder import content
from trainer.errors import UserError
from trainer.images.image_data import facts
from trainer.learning.checkpoint import continued, resumed
from trainer.learning.loop import train
from trainer.runs import run_folder, training_json
from trainer.runs.events import CheckpointReady, EpochEnded
from trainer.runs.reader import read_checkpoint, read_files, read_run, read_settings
from trainer.runs.recorder import record
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig

CONFIG = TrainConfig(epochs=3, batch_size=8, scheduler="constant")


def test_what_is_read_is_what_was_written(tiny, trained):
    """Config, history, data and weights are the same."""
    folder, run = trained(CONFIG, tiny)
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.config, list(checkpoint.history), checkpoint.epoch) == (CONFIG, run.history, 3)
    assert checkpoint.data == facts(tiny)
    weights = load_file(folder / "model.safetensors")
    assert checkpoint.weights.keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in checkpoint.weights.items())
    read = read_run(folder)
    assert (read.config, read.history, read.status) == (run.config, run.history, "completed")


def test_the_status_of_a_run_that_did_not_end(tiny, tmp_path):
    """It is `training` while a writer holds the lock, and `interrupted` afterwards."""
    with run_folder.writing(tmp_path):
        for event in record(train(CONFIG, tiny), Run(config=CONFIG), tmp_path, facts(tiny)):
            if isinstance(event, CheckpointReady) and event.epoch == 1:
                break
        assert read_run(tmp_path).status == "training"
    run = read_run(tmp_path)
    assert (run.status, run.epoch) == ("interrupted", 1)


def test_settings_and_data_are_read_without_tensors(tiny, trained):
    """The files of tensors may be large, and may be of another state while the run is being written."""
    folder, _ = trained(CONFIG, tiny)
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    assert read_settings(folder) == (CONFIG, facts(tiny))


def test_no_folder_no_run(tmp_path):
    """A folder that does not exist has no run."""
    for read in (read_checkpoint, read_run):
        with pytest.raises(ValueError, match="There is no such run"):
            read(tmp_path / "nothing")


@pytest.fixture(scope="module")
def sound(tiny, tmp_path_factory):
    """A run's folder, of which tests damage copies."""
    folder = tmp_path_factory.mktemp("sound") / "run"
    with run_folder.writing(folder):
        list(record(train(CONFIG, tiny), Run(config=CONFIG), folder, facts(tiny)))
    return folder


def test_reading_changes_nothing(sound):
    """Readers leave the folder as it is."""
    before = content(sound)
    read_checkpoint(sound)
    read_run(sound)
    assert content(sound) == before


def test_the_best_epoch_is_read(tiny, trained):
    """The page displays it for old runs."""
    folder, run = trained(CONFIG, tiny)
    assert read_run(folder).best == run.best
    assert all(isinstance(epoch, EpochEnded) for epoch in read_run(folder).history)


# --- damaged and foreign folders


def history(**changes):
    """Returns a function that changes entries of training.json."""

    def change(folder):
        path = folder / "training.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def row(number, **changes):
    """Returns a function that changes one epoch of the history."""

    def change(folder):
        path = folder / "training.json"
        content = json.loads(path.read_text())
        content["history"][number].update(changes)
        path.write_text(json.dumps(content))

    return change


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def cut(name):
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def tensors(name, change):
    def rewrite(folder):
        save_file(change(load_file(folder / name)), folder / name)

    return rewrite


BROKEN = {
    "no training.json": lambda folder: (folder / "training.json").unlink(),
    "no training.safetensors": lambda folder: (folder / "training.safetensors").unlink(),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no config.json": lambda folder: (folder / "config.json").unlink(),
    "training.json is no JSON": text("training.json", "{"),
    "training.json is empty": text("training.json", ""),
    "training.json is a list": text("training.json", "[]"),
    "training.json is nested too deep": text("training.json", '{"a":' * 100_000),
    "a loss that is a nest of lists": row(1, test_loss=json.loads(400 * "[" + 400 * "]")),
    "half a character under an unknown key": history(unknown="\ud800"),
    "half a character as a key": history(unknown={"\ude00": 1}),
    "a whole number of 4,000 digits": history(unknown=10**4000),
    "a whole number of 6,000 digits": text("training.json", '{"format": 1, "unknown": ' + 6000 * "9" + "}"),
    "NaN under an unknown key": history(unknown=math.nan),
    "a number beyond every float": text("training.json", '{"format": 1, "unknown": 1e999}'),
    "training.json is not UTF-8": lambda folder: (folder / "training.json").write_bytes(b'{"a": "\xff"}'),
    "training.json is a folder": lambda folder: (
        (folder / "training.json").unlink(),
        (folder / "training.json").mkdir(),
    ),
    "another format": history(format=2),
    "no format": history(format=None),
    "no history": history(history=[]),
    "a history of another kind": history(history={}),
    "a history of numbers": history(history=[1, 2]),
    "an unknown status": history(status="resting"),
    "a status of another kind": history(status=["training"]),
    "an unknown setting": history(config={"bogus": 1}),
    "a bad setting": history(config={"lr": -1}),
    "a config of another kind": history(config=[]),
    "no data": history(data=None),
    "data without a name": history(data={"source": "synthetic", "revision": None, "digest": "0"}),
    "data without a digest": history(data={"name": "x", "source": "synthetic", "revision": None, "digest": None}),
    "no state": history(state=None),
    "no beginning of the schedule": history(state={}),
    "threads that are no number": history(state={"schedule_from": 0, "scaler": {}, "threads": "8"}),
    "a beginning that is a fraction": history(state={"schedule_from": 1.0, "scaler": {}}),
    "a beginning after the end": history(state={"schedule_from": 9, "scaler": {}}),
    "no digests": history(files={}),
    "a continuation of another kind": history(state={"schedule_from": 3, "scaler": {}, "continued_with": [1]}),
    "a continuation of unknown settings": history(
        state={"schedule_from": 3, "scaler": {}, "continued_with": {"bogus": 1}}
    ),
    "other digests": history(files={"model.safetensors": "0", "training.safetensors": "0"}),
    "a gap": lambda folder: row(1, epoch=2)(folder),
    "an epoch that is no number": row(1, epoch="1"),
    "an accuracy that is missing": row(1, test_accuracy=None),
    "an accuracy that is a text": row(1, test_accuracy="1"),
    "an accuracy that is an object": row(1, test_accuracy={}),
    "a loss that is a list": row(1, test_loss=[1]),
    "a loss that is true": row(1, test_loss=True),
    "a loss that is infinite": row(1, test_loss=float("inf")),
    "a class's accuracy above 1": row(3, class_accuracy={"cat": 1.5}),
    "the accuracy of too many classes": row(3, class_accuracy={str(number): 0.5 for number in range(1001)}),
    "the accuracy of classes as a list": row(3, class_accuracy=[0.5]),
    "weights cut short": cut("model.safetensors"),
    "training.safetensors cut short": cut("training.safetensors"),
    "training.safetensors empty": text("training.safetensors", ""),
    "training.safetensors of another run": tensors("training.safetensors", lambda t: {k: v + 1 for k, v in t.items()}),
    "weights of another run": tensors("model.safetensors", lambda t: {k: v + 1 for k, v in t.items()}),
    "weights of another epoch": lambda folder: shutil.copy(
        folder / "epochs/epoch-0000.safetensors", folder / "model.safetensors"
    ),
    "a huge training.safetensors": tensors("training.safetensors", lambda t: {"x": torch.zeros(3_000_000)}),
}


@pytest.mark.parametrize("breaks", BROKEN)
def test_a_damaged_or_foreign_folder_is_refused(breaks, sound, tmp_path):
    """The error is one sentence that names the file or the setting and no path."""
    folder = shutil.copytree(sound, tmp_path / "run")
    assert read_checkpoint(folder).epoch == 3
    BROKEN[breaks](folder)
    with pytest.raises(ValueError, match=r"(\.json|\.safetensors|setting|lr) .*\.$") as error:
        read_checkpoint(folder)
    assert "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)


# --- the curve within the epochs


def test_the_curve_within_the_epochs_is_saved(tiny, trained):
    """The points of single batches are read after a restart, and a resumed run continues them."""
    folder, run = trained(CONFIG, tiny, until=2)
    saved = read_run(folder).curve.points
    assert [point.epochs for point in saved] == pytest.approx(
        [point.epochs for point in run.curve.points[: len(saved)]]
    )
    assert [point.smoothed for point in saved] == pytest.approx(
        [point.smoothed for point in run.curve.points[: len(saved)]], rel=1e-5
    )
    again = resumed(read_checkpoint(folder))
    assert [point.epochs for point in again.curve.points] == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]


def test_the_batch_at_which_a_run_diverged_is_saved(tiny, trained):
    """Its epoch gets no checkpoint, but the curve is read after a restart."""
    folder, run = trained(replace(CONFIG, lr=1e4), tiny)
    again = read_run(folder)
    assert not math.isfinite(again.curve.points[-1].loss)
    assert again.diverged_at == run.diverged_at == pytest.approx(run.curve.points[-1].epochs)
    assert read_checkpoint(folder).curve.points == []


@pytest.mark.parametrize("until", [0, 2])
def test_the_smoothed_loss_after_divergence(until, tiny, trained):
    """A resumed run continues from the last finite smoothed loss, or starts anew: NaN does not spread."""
    folder, _ = trained(CONFIG, tiny, until=until)
    broken = continued(read_checkpoint(folder), epochs=3, changes={"lr": 1e6})
    _, run = trained(broken.config, tiny, folder=folder, resume=broken)
    assert run.status == "diverged"
    resumable = continued(read_checkpoint(folder), epochs=3, changes={"lr": 0.01})
    before = len(resumable.curve.points)
    _, run = trained(resumable.config, tiny, folder=folder, resume=resumable)
    smoothed = [point.smoothed for point in run.curve.points]
    assert (run.status, len(smoothed)) == ("completed", 12)
    assert smoothed == pytest.approx([2.3] * 12, abs=0.3)
    if before:
        assert smoothed[before] == pytest.approx(0.96 * smoothed[before - 1] + 0.04 * run.curve.points[before].loss)
    assert read_checkpoint(folder).curve.total > 0


def test_an_earlier_epoch_has_the_curve_until_its_end(tiny, trained):
    """Its training.json contains nothing of the later epochs."""
    folder, run = trained(CONFIG, tiny)
    content = json.loads((folder / "training.json").read_text())
    curve = json.loads(training_json.until(content, 2, b""))["curve"]
    assert curve["points"] == content["curve"]["points"][:8]
    assert len(run.curve.points) == 12


@pytest.mark.parametrize(
    "damage",
    [
        {"curve": None},
        {"curve": {}},
        {"points": None},
        {"points": [[1, 2]]},
        {"points": [["x"] * 5]},
        {"points": [[10**400] * 5]},
        {"points": [[1.0] * 5] * 10_000},
        {"stride": 0},
        {"stride": 1.5},
        {"weight": -0.04 / 0.96},
        {"total": "x"},
    ],
)
def test_a_strangers_curve_is_checked(tiny, trained, damage):
    """It must have finite numbers in rows of five, not too many, and nothing that leads to a division by zero."""
    folder, _ = trained(replace(CONFIG, epochs=1), tiny)
    content = json.loads((folder / "training.json").read_text())
    content = {**content, "curve": damage.get("curve", {**content["curve"], **damage})}
    (folder / "training.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"training\.json is damaged"):
        read_run(folder)


@pytest.mark.parametrize("history", [b"{", b"[]", b"3", b"\xff", b"{}", b"9" * 5000])
def test_a_damaged_run_is_not_published(history, small_run):
    """One sentence, whatever training.json contains."""
    (small_run / "training.json").write_bytes(history)
    with pytest.raises(UserError, match="damaged"):
        read_files(small_run)
