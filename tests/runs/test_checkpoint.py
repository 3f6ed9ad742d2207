"""A run's folder: no crash, full disk or second writer can break it, and a stranger's is read without trust."""

import json
import math
import os
import pickle
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.images.image_data import facts
from trainer.learning.checkpoint import continued, resumed
from trainer.learning.loop import train
from trainer.runs import run_folder, training_json
from trainer.runs.events import CheckpointReady, EpochEnded, Finished, GpuTime, StepLogged
from trainer.runs.reader import read_checkpoint, read_run, read_settings
from trainer.runs.recorder import Recorder, record
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig

CONFIG = TrainConfig(epochs=3, batch_size=8, scheduler="constant")
FILES = ["README.md", "config.json", "model.safetensors", "training.json", "training.safetensors"]


def content(folder):
    """Every file of a run by its place; what begins with a dot is the writer's own."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    places = {path.relative_to(folder).as_posix(): path for path in files}
    return {place: path.read_bytes() for place, path in places.items() if not place.startswith(".")}


def test_a_run_is_a_folder(tiny, trained):
    """The five files of the design, and the weights after each epoch, the untrained network's too."""
    folder, run = trained(CONFIG, tiny)
    assert sorted(content(folder)) == sorted([*FILES, *(f"epochs/epoch-{epoch:04d}.safetensors" for epoch in range(4))])
    assert not (folder / ".staging").exists()
    assert not (folder / ".committed").exists()
    last = load_file(folder / "epochs/epoch-0003.safetensors")
    assert all(torch.equal(tensor, last[name]) for name, tensor in load_file(folder / "model.safetensors").items())
    told = json.loads((folder / "training.json").read_text())
    assert told["data"] == facts(tiny)
    assert TrainConfig.from_settings(told["config"]) == CONFIG
    assert [row["epoch"] for row in told["history"]] == [0, 1, 2, 3]
    assert (told["status"], run.status) == ("completed", "completed")


def test_what_is_read_is_what_was_written(tiny, trained):
    """Config, history, data, weights: all of it comes back."""
    folder, run = trained(CONFIG, tiny)
    kept = read_checkpoint(folder)
    assert (kept.config, list(kept.history), kept.data, kept.epoch) == (CONFIG, run.history, facts(tiny), 3)
    saved = load_file(folder / "model.safetensors")
    assert kept.weights.keys() == saved.keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in kept.weights.items())
    again = read_run(folder)
    assert (again.config, again.history, again.status) == (run.config, run.history, "completed")


def test_a_checkpoint_is_passed_on_only_once_it_is_on_disk(tiny, tmp_path):
    """Whoever sees CheckpointReady can open the folder and find that epoch."""
    run = Run(config=CONFIG)
    seen = []
    with run_folder.writing(tmp_path):
        for event in record(train(CONFIG, tiny), run, tmp_path, facts(tiny)):
            if isinstance(event, CheckpointReady):
                assert read_checkpoint(tmp_path).epoch == event.epoch
                seen.append(event.epoch)
    assert seen == [0, 1, 2, 3]


def test_an_epoch_is_written_once(tiny, trained, tmp_path):
    """A later commit leaves the weights of earlier epochs as they are: a long run does not write ever more."""
    places = [tmp_path / "run" / f"epochs/epoch-{epoch:04d}.safetensors" for epoch in range(3)]
    folder, _ = trained(CONFIG, tiny, until=2)
    before = [path.stat().st_ino for path in places]
    kept = read_checkpoint(folder)
    trained(kept.config, tiny, folder=folder, resume=kept)
    assert [path.stat().st_ino for path in places] == before
    seen = set()
    with run_folder.writing(tmp_path / "other"):
        for event in record(train(CONFIG, tiny), Run(config=CONFIG), tmp_path / "other", facts(tiny)):
            if isinstance(event, CheckpointReady):
                seen.add((tmp_path / "other/epochs/epoch-0000.safetensors").stat().st_ino)
    assert len(seen) == 1


def test_a_stop_keeps_every_epoch_that_has_ended(tiny, tmp_path):
    """Asked for between an epoch's row and its checkpoint, or before the first: the run ends at the next batch."""
    run = Run(config=CONFIG)
    with run_folder.writing(tmp_path):
        events = list(record(train(CONFIG, tiny), run, tmp_path, facts(tiny), stop=lambda: True))
    assert [type(event).__name__ for event in events] == ["EpochEnded", "CheckpointReady", "Finished"]
    assert events[-1] == Finished(reason="stopped")
    assert read_checkpoint(tmp_path).epoch == run.epoch == 0
    assert read_run(tmp_path).status == "stopped"


def test_divergence_keeps_the_last_good_epoch(tiny, trained):
    """The folder has the last sound state, and says what happened and what helps."""
    folder, run = trained(replace(CONFIG, lr=1e4), tiny)
    again = read_run(folder)
    assert (again.status, again.advice) == ("diverged", run.advice)
    assert "an lr of 0.02" in again.advice
    assert read_checkpoint(folder).epoch == run.epoch < 3


# --- crashes


CRASHES = """
# For every k: a process of its own saves one more epoch and, at its k-th step on the file system, dies ("die", with
# half of what it was writing), or is told that the disk is full ("raise"). Then every death of whoever mends the first
# of the wrecks that has something to mend; the later ones are what these deaths leave, too.
import errno, os, pickle, shutil, stat, sys
from pathlib import Path
from trainer.runs import run_folder
from trainer.runs.recorder import record

mode, here = sys.argv[1], Path(sys.argv[2])
run, events, data = pickle.loads((here / "events.pickle").read_bytes())
OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
fsync = os.fsync

def save(folder):
    with run_folder.writing(folder):
        for _ in record(iter(events), run, folder, data):
            pass

def mend(folder):
    with run_folder.writing(folder):
        pass

def crash(action, folder, k):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = k

    def count():
        nonlocal left
        left -= 1
        if left == 0 and mode == "raise":
            raise OSError(errno.ENOSPC, "No space left on device")
        return left == 0

    def hook(event, arguments):
        if event not in OPERATIONS or event == "open" and not str(arguments[0]).startswith(str(folder)):
            return
        if count():
            os._exit(9)

    def half(descriptor):
        if count():
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                os.ftruncate(descriptor, status.st_size // 2)
            os._exit(9)
        fsync(descriptor)

    os.fsync = half
    sys.addaudithook(hook)
    try:
        action(folder)
    except ValueError as error:
        assert str(error).startswith("The run's folder cannot be written"), error
        os._exit(3)
    os._exit(0 if left > 0 else 1)

def all_crashes(action, old, name):
    k, mended = 0, False
    while True:
        k += 1
        folder = here / f"{name}-{k:03d}"
        shutil.copytree(old, folder)
        code = crash(action, folder, k)
        (here / f"{name}-{k:03d}.code").write_text(str(code))
        if code == 0:
            return
        assert k < 500 and code in (1, 3, 9), code
        if mode == "die" and action is save and not mended and (folder / ".committed").is_dir():
            mended = True
            all_crashes(mend, folder, f"{name}-{k:03d}-mend")

all_crashes(save, here / "old", mode)
"""


@pytest.fixture
def crashed(tiny, trained, tmp_path):
    """A function that lets one more save crash at every step; returns the old and the new state, and the wrecks."""

    def crash(mode):
        old, run = trained(CONFIG, tiny, folder=tmp_path / "old", until=1)
        kept = read_checkpoint(old)
        events = [e for e in train(CONFIG, tiny, resume=kept) if getattr(e, "epoch", 2) == 2]
        run = Run(config=CONFIG, history=list(kept.history))
        new = shutil.copytree(old, tmp_path / "new")
        (tmp_path / "events.pickle").write_bytes(pickle.dumps((run, events, facts(tiny))))
        with run_folder.writing(new):
            list(record(iter(events), run, new, facts(tiny)))
        subprocess.run([sys.executable, "-c", CRASHES, mode, str(tmp_path)], check=True, timeout=120)
        codes = {path.stem: int(path.read_text()) for path in tmp_path.glob("*.code")}
        return content(old), content(new), {tmp_path / name: code for name, code in sorted(codes.items())}

    return crash


@pytest.mark.slow
def test_a_crash_at_any_instant_leaves_the_old_state_or_the_new(crashed):
    """Killed at every single step of a save, half-written files included, and again at every step of the mending:
    whoever opens the folder next finds the state before or the state after, whole, never a mixture."""
    old, new, wrecks = crashed("die")
    before = json.loads(old["training.json"])
    # The epoch's own commit, and the run's last word, which changes training.json alone.
    saved = {**new, "training.json": None}
    found = set()
    for folder, code in wrecks.items():
        seen_at_once = read_run(folder).epoch
        with run_folder.writing(folder):
            kept = read_checkpoint(folder)
        state = content(folder)
        assert kept.epoch == seen_at_once
        if kept.epoch == 1:
            # But for its status, once it has gone on.
            assert json.loads(state.pop("training.json")) in (before, {**before, "status": "training"}), folder.name
            assert state == {name: file for name, file in old.items() if name != "training.json"}, folder.name
        else:
            assert kept.epoch == 2
            assert state.keys() == saved.keys()
            assert {**state, "training.json": None} == saved, folder.name
            status = json.loads(state["training.json"])["status"]
            assert status in ("training", "completed")
            assert (state["training.json"] == new["training.json"]) is (status == "completed")
        found.add((kept.epoch, code))
    assert len(wrecks) > 50
    assert found >= {(1, 9), (2, 9), (2, 0)}


@pytest.mark.slow
def test_a_disk_that_fails_once_loses_nothing(crashed):
    """Refused at any single step of a save: the run goes on, and the epoch is written at the next chance."""
    _, new, wrecks = crashed("raise")
    saved = 0
    for folder, code in wrecks.items():
        with run_folder.writing(folder):
            kept = read_checkpoint(folder)
        if code == 3:  # before the run even began
            continue
        assert kept.epoch == 2
        state = content(folder)
        state["training.json"] = state["training.json"].replace(b'"training"', b'"completed"')
        assert state == new, folder.name
        saved += 1
    assert saved > 30


def test_folders_are_synced_before_what_relies_on_them(tmp_path, monkeypatch):
    """Each file's bytes and its name before the commit, that before the moves, and those before the end of the commit;
    a new run's own name too."""
    folder, steps = tmp_path / "run", []

    def recorded(module, name, kind, place):
        does = getattr(module, name)

        def do(*arguments, **options):
            steps.append((kind, str(place(*arguments))))
            return does(*arguments, **options)

        monkeypatch.setattr(module, name, do)

    def at(kind, name=""):
        return kind, str(folder / name)

    recorded(os, "fsync", "sync", lambda descriptor: Path(f"/proc/self/fd/{descriptor}").readlink())
    recorded(os, "rename", "move", lambda _, target: target)
    recorded(os, "replace", "move", lambda _, target: target)
    recorded(shutil, "rmtree", "remove", lambda path: path)
    run_folder.create(folder, {"epochs/epoch-0001.safetensors": b"1", "training.json": b"2"})
    assert steps == [
        ("sync", str(tmp_path)),
        at("remove", ".staging"),
        at("sync", ".staging/epochs/epoch-0001.safetensors"),
        at("sync", ".staging/training.json"),
        at("sync", ".staging/epochs"),
        at("sync", ".staging"),
        at("move", ".committed"),
        at("sync"),
        at("move", "epochs/epoch-0001.safetensors"),
        at("move", "training.json"),
        at("sync", "epochs"),
        at("sync"),
        at("remove", ".committed"),
    ]


@pytest.mark.parametrize("refusal", [22, 95, 13, 9])
@pytest.mark.parametrize("step", ["open", "fsync"])
def test_a_file_system_that_syncs_no_folders(refusal, step, tiny, trained, monkeypatch):
    """It refuses to open or to sync them; runs are saved all the same."""
    refuse_folders(monkeypatch, step, refusal)
    folder, run = trained(CONFIG, tiny)
    assert (read_checkpoint(folder).epoch, run.warning) == (3, "")


def test_a_disk_that_fails_at_a_folder(tiny, trained, monkeypatch):
    """That is no refusal: what may be lost is not called saved."""
    refuse_folders(monkeypatch, "fsync", 5)
    _, run = trained(replace(CONFIG, epochs=1), tiny)
    assert run.warning.startswith("The run could not be saved")


def refuse_folders(monkeypatch, step, error):
    does = getattr(os, step)

    def refuse(what, *arguments, **options):
        # shutil.rmtree opens folders too, but with an option.
        if not options and Path(what if isinstance(what, Path) else f"/proc/self/fd/{what}").is_dir():
            raise OSError(error, os.strerror(error))
        return does(what, *arguments, **options)

    monkeypatch.setattr(os, step, refuse)


def test_a_full_disk_ends_no_run(tiny, tmp_path):
    """With no room for a file's weights, for real: a warning, the old state intact, and the missed epoch written once
    there is room again."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = Run(config=CONFIG)
    passed_on, warnings = [], {}
    try:
        with run_folder.writing(tmp_path):
            for event in record(train(CONFIG, tiny), run, tmp_path, facts(tiny)):
                if isinstance(event, CheckpointReady):
                    passed_on.append(event.epoch)
                    if event.epoch == 1:
                        before = content(tmp_path)
                        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
                if isinstance(event, StepLogged) and event.epoch == 3 and 3 not in warnings:
                    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
                    warnings[3] = run.warning
                    assert content(tmp_path) == before
                    assert read_checkpoint(tmp_path).epoch == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "could not be saved" in warnings[3]
    assert "It continues" in warnings[3]
    assert passed_on == [0, 1, 3]
    assert (run.warning, run.status) == ("", "completed")
    assert read_checkpoint(tmp_path).epoch == 3
    assert {f"epochs/epoch-{epoch:04d}.safetensors" for epoch in range(4)} <= content(tmp_path).keys()


def test_a_disk_that_stays_full_takes_no_more_memory(tiny, tmp_path, monkeypatch):
    """Of the epochs it has missed, the last is kept whole and the three before it as weights; they are written once
    there is room, and the missing ones are not in `epochs`."""
    config = replace(CONFIG, epochs=12)
    recorder = Recorder(run=Run(config=config), folder=tmp_path, data=facts(tiny))
    events = train(config, tiny)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "commit", refuse)
        for event in events:
            recorder.record(event)
            if isinstance(event, CheckpointReady):
                held = recorder._unsaved
                assert held[-1] is event
                assert [ready.epoch for ready in held] == list(range(max(0, event.epoch - 3), event.epoch + 1))
                assert [bool(ready.training) for ready in held] == [False] * (len(held) - 1) + [True]
                if event.epoch == 11:
                    break
    assert "its latest state is saved as soon as" in recorder.run.warning
    for event in events:
        recorder.record(event)
    assert read_checkpoint(tmp_path).epoch == 12
    assert list(run_folder.saved_epochs(tmp_path)) == [9, 10, 11, 12]
    assert recorder.run.warning == ""


def test_a_disk_that_stays_full_leaves_the_last_state(tiny, tmp_path):
    """The run ends with its warning, and what was on the disk is still whole."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = Run(config=CONFIG)
    try:
        with run_folder.writing(tmp_path):
            for event in record(train(CONFIG, tiny), run, tmp_path, facts(tiny)):
                if isinstance(event, CheckpointReady) and event.epoch == 1:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run.status == "completed"
    assert run.warning.endswith(". What was saved before is still there.")
    assert read_checkpoint(tmp_path).epoch == 1
    assert read_run(tmp_path).status == "interrupted"


def test_a_disk_that_was_always_full(tiny, tmp_path):
    """Nothing was saved, and nothing is said to be there."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = Run(config=CONFIG)
    with run_folder.writing(tmp_path):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            assert CheckpointReady not in map(type, record(train(CONFIG, tiny), run, tmp_path, facts(tiny)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run.warning == "The run could not be saved: file too large. Nothing has been saved."
    assert content(tmp_path) == {}


def test_a_folder_that_cannot_be_written(tmp_path):
    """One sentence; here the folder would be inside a file, which not even root can write."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match="folder cannot be written: not a directory"),
        run_folder.writing(tmp_path / "file" / "run"),
    ):
        pytest.fail("it was opened")


def test_a_folder_that_cannot_be_mended(tiny, trained, monkeypatch):
    """A writer that died left work, and the disk refuses it: one sentence, and the lock is free again."""
    folder, _ = trained(replace(CONFIG, epochs=1), tiny)
    (folder / ".committed").mkdir()

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        with pytest.raises(ValueError, match="cannot be written: permission denied"), run_folder.writing(folder):
            pytest.fail("it was opened")
    with run_folder.writing(folder):
        assert read_checkpoint(folder).epoch == 1


# --- one writer


@pytest.mark.parametrize("is_new", [True, False])
def test_a_run_that_ends_before_anything_is_kept_leaves_no_folder(is_new, tiny, tmp_path):
    """Whether refused, interrupted or cancelled; but a folder that was there before, and a network, stay."""
    folder = tmp_path / "run"
    if not is_new:
        folder.mkdir()
    for refusal in (ValueError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(refusal), run_folder.writing(folder):
            raise refusal
        assert folder.exists() is not is_new
    with run_folder.writing(folder):  # and what a writer that died has left
        next(record(train(CONFIG, tiny), Run(config=CONFIG), folder, facts(tiny)))
        (folder / ".staging").mkdir()
    assert folder.exists() is not is_new
    with pytest.raises(ValueError, match="file name too long"):
        run_folder.create(folder, {"model.safetensors": b"", "x" * 300: b""})
    assert folder.exists() is not is_new
    run_folder.create(folder, {"model.safetensors": b""})
    assert content(folder) == {"model.safetensors": b""}


def test_a_folder_that_cannot_be_locked_is_not_left(tmp_path, monkeypatch):
    """As on a network's file system that knows no locks."""

    def refuse(lock):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(run_folder.FileLock, "acquire", refuse)
    with pytest.raises(ValueError, match="no locks available"), run_folder.writing(tmp_path / "run"):
        pytest.fail("it was opened")
    assert not (tmp_path / "run").exists()


def test_a_second_writer_is_told(tiny, trained):
    """Another tab or command on the same run is refused while the first one writes, and only then."""
    folder, _ = trained(replace(CONFIG, epochs=1), tiny)
    with run_folder.writing(folder):
        with pytest.raises(ValueError, match="being trained in another tab or command"), run_folder.writing(folder):
            pytest.fail("it was opened")
        with pytest.raises(ValueError, match="being trained in another tab or command"):
            run_folder.delete(folder)
    with run_folder.writing(folder):
        pass


def test_the_status_of_a_run_without_a_last_word(tiny, tmp_path):
    """`training` while somebody holds it, `interrupted` from the moment nobody does."""
    with run_folder.writing(tmp_path):
        for event in record(train(CONFIG, tiny), Run(config=CONFIG), tmp_path, facts(tiny)):
            if isinstance(event, CheckpointReady) and event.epoch == 1:
                break
        assert read_run(tmp_path).status == "training"
    run = read_run(tmp_path)
    assert (run.status, run.epoch) == ("interrupted", 1)


def test_settings_and_data_are_read_without_tensors(tiny, trained):
    """Not a byte of them: they may be large, and belong to the next state while the run is being written."""
    folder, _ = trained(CONFIG, tiny)
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    assert read_settings(folder) == (CONFIG, facts(tiny))


@pytest.mark.parametrize("read", [read_run, read_settings, run_folder.is_run])
@pytest.mark.parametrize("instant", [1, 2, 3])
def test_a_first_state_is_found_while_it_moves_to_its_place(read, instant, tiny, trained, monkeypatch):
    """Whatever moment the writer finishes: before or after any look that a reader takes."""
    folder, _ = trained(CONFIG, tiny)
    (folder / ".committed").mkdir()
    (folder / "training.json").rename(folder / ".committed/training.json")
    looks = 0

    def then_moved(does):
        def look(*arguments, **options):
            nonlocal looks
            looks += 1
            if looks == instant:
                run_folder._finish_commit(folder)
            return does(*arguments, **options)

        return look

    monkeypatch.setattr(os.path, "exists", then_moved(os.path.exists))
    monkeypatch.setattr(run_folder, "read_json", then_moved(run_folder.read_json))
    assert read(folder)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adam", "scheduler": "constant"}, {"scheduler": "constant"}])
def test_a_resumed_run_without_a_last_word(changes, tiny, trained):
    """Complete before, it is interrupted once it goes on; on the disk is the state it goes on from, settings too."""
    folder, _ = trained(TrainConfig(epochs=1, batch_size=8, scheduler="constant", weight_decay=0), tiny)
    kept = read_checkpoint(folder)
    going_on = continued(kept, epochs=5, changes=changes)
    events = record(
        train(going_on.config, tiny, resume=going_on),
        resumed(going_on),
        folder,
        facts(tiny),
        resume=going_on,
    )
    next(events)
    events.close()
    run = read_run(folder)
    assert (run.status, run.epoch, run.config) == ("interrupted", 1, going_on.config)
    again = read_checkpoint(folder)
    assert (again.config, again.state) == (run.config, going_on.state)
    assert again.tensors.keys() == going_on.tensors.keys()
    assert again.continued_with == (changes or None)


def test_a_gpu_that_is_waited_for_changes_nothing(tiny, trained):
    """It may yet refuse the settings; whoever is stopped while waiting for it keeps what was chosen."""
    folder, _ = trained(replace(CONFIG, epochs=1), tiny)
    going_on = continued(read_checkpoint(folder), epochs=2, changes={"lr": 0.5})
    before = content(folder)
    recorder = Recorder(run=resumed(going_on), folder=folder, data=facts(tiny), resume=going_on)
    recorder.record(GpuTime(used_seconds=0, left_seconds=1))
    assert content(folder) == before
    recorder.record(Finished(reason="stopped"))
    kept = read_checkpoint(folder)
    assert (kept.config, kept.continued_with) == (going_on.config, {"lr": 0.5})


def test_delete(tiny, trained, tmp_path):
    """Nothing is left, and what is beside it stays."""
    folder, _ = trained(replace(CONFIG, epochs=1), tiny, folder=tmp_path / "runs" / "one")
    (tmp_path / "runs" / "other").mkdir()
    run_folder.delete(folder)
    assert os.listdir(tmp_path / "runs") == ["other"]  # noqa: PTH208


@pytest.mark.parametrize("name", ["a", "sgd-onecycle-20240101", "A_b.c-9", "x" * 96, "_", "-"])
def test_good_names(name):
    """What a folder may be called anywhere."""
    assert run_folder.check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "../x", "a b", "ä", "x" * 97, "a\n", "a\0"])
def test_bad_names(name):
    """No way out of the folder of runs, and nothing hidden."""
    with pytest.raises(ValueError, match="A run's name has"):
        run_folder.check_name(name)


def test_keys_are_unguessable():
    """128 bits, never twice, and good names."""
    keys = {run_folder.check_name(run_folder.new_key()) for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)


# --- strangers' folders


def history(**changes):
    """A change to training.json."""

    def change(folder):
        path = folder / "training.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def row(number, **changes):
    """A change to one epoch of the history."""

    def change(folder):
        path = folder / "training.json"
        told = json.loads(path.read_text())
        told["history"][number].update(changes)
        path.write_text(json.dumps(told))

    return change


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def cut(name):
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def tensors(name, change):
    def rewrite(folder):
        held = load_file(folder / name)
        save_file(change(held), folder / name)

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


@pytest.fixture(scope="module")
def sound(tiny, tmp_path_factory):
    """A run's folder to break copies of."""
    folder = tmp_path_factory.mktemp("sound") / "run"
    with run_folder.writing(folder):
        list(record(train(CONFIG, tiny), Run(config=CONFIG), folder, facts(tiny)))
    return folder


@pytest.mark.parametrize("breaks", BROKEN)
def test_a_damaged_or_foreign_folder_is_refused(breaks, sound, tmp_path):
    """ValueError with one sentence that names the file or the setting; nothing else gets out."""
    folder = shutil.copytree(sound, tmp_path / "run")
    assert read_checkpoint(folder).epoch == 3
    BROKEN[breaks](folder)
    with pytest.raises(ValueError, match=r"(\.json|\.safetensors|setting|lr) .*\.$") as error:
        read_checkpoint(folder)
    assert "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_no_folder_no_run(tmp_path):
    """A key nobody has."""
    for read in (read_checkpoint, read_run):
        with pytest.raises(ValueError, match="There is no such run"):
            read(tmp_path / "nothing")


def test_reading_changes_nothing(sound):
    """read and read_run leave the folder as it is: whoever only looks is no writer."""
    before = content(sound)
    read_checkpoint(sound)
    read_run(sound)
    assert content(sound) == before


def test_best_and_curves_come_back(tiny, trained):
    """What the page shows of an old run."""
    folder, run = trained(CONFIG, tiny)
    assert read_run(folder).best == run.best
    assert all(isinstance(epoch, EpochEnded) for epoch in read_run(folder).history)


# --- the curve within the epochs


def test_the_curve_within_the_epochs_is_kept(tiny, trained):
    """What a plot shows between two epochs' ends is there after a restart, and goes on in a resumed run."""
    folder, run = trained(CONFIG, tiny, until=2)
    kept = read_run(folder).curve.points
    assert [point.epochs for point in kept] == pytest.approx([point.epochs for point in run.curve.points[: len(kept)]])
    assert [point.smoothed for point in kept] == pytest.approx(
        [point.smoothed for point in run.curve.points[: len(kept)]], rel=1e-5
    )
    again = resumed(read_checkpoint(folder))
    assert [point.epochs for point in again.curve.points] == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]


def test_a_diverged_run_keeps_the_batch_that_broke_it(tiny, trained):
    """Where it broke is seen after a restart, in an epoch that no checkpoint follows."""
    folder, run = trained(replace(CONFIG, lr=1e4), tiny)
    again = read_run(folder)
    assert not math.isfinite(again.curve.points[-1].loss)
    assert again.diverged_at == run.diverged_at == pytest.approx(run.curve.points[-1].epochs)
    assert read_checkpoint(folder).curve.points == []


@pytest.mark.parametrize("until", [0, 2])
def test_a_curve_goes_on_after_the_batch_that_broke_it(until, tiny, trained):
    """From the last smoothed loss that was a number, or afresh: one batch does not make no number of all to come."""
    folder, _ = trained(CONFIG, tiny, until=until)
    broken = continued(read_checkpoint(folder), epochs=3, changes={"lr": 1e6})
    _, run = trained(broken.config, tiny, folder=folder, resume=broken)
    assert run.status == "diverged"
    mended = continued(read_checkpoint(folder), epochs=3, changes={"lr": 0.01})
    before = len(mended.curve.points)
    _, run = trained(mended.config, tiny, folder=folder, resume=mended)
    smoothed = [point.smoothed for point in run.curve.points]
    assert (run.status, len(smoothed)) == ("completed", 12)
    assert smoothed == pytest.approx([2.3] * 12, abs=0.3)
    if before:
        assert smoothed[before] == pytest.approx(0.96 * smoothed[before - 1] + 0.04 * run.curve.points[before].loss)
    assert read_checkpoint(folder).curve.total > 0


def test_an_earlier_epoch_has_the_curve_until_its_end(tiny, trained):
    """What is told of it knows nothing of what came later."""
    folder, run = trained(CONFIG, tiny)
    told = json.loads((folder / "training.json").read_text())
    curve = json.loads(training_json.until(told, 2, b""))["curve"]
    assert curve["points"] == told["curve"]["points"][:8]
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
    """Numbers in rows of five, few of them, and nothing that would divide by zero."""
    folder, _ = trained(replace(CONFIG, epochs=1), tiny)
    told = json.loads((folder / "training.json").read_text())
    told = {**told, "curve": damage.get("curve", {**told["curve"], **damage})}
    (folder / "training.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"training\.json is damaged"):
        read_run(folder)
