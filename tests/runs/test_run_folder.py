"""A run's folder survives crashes, full disks and a second writer."""

import itertools
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.errors import UserError
from trainer.images.image_data import facts
from trainer.learning.loop import train
from trainer.runs import run_folder
from trainer.runs.reader import read_checkpoint, read_run, read_settings
from trainer.runs.recorder import record
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig

CONFIG = TrainConfig(epochs=3, batch_size=8, scheduler="constant")


def content(folder):
    """Returns every file of a run by its path, without the writer's own, whose names start with a dot."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    places = {path.relative_to(folder).as_posix(): path for path in files}
    return {place: path.read_bytes() for place, path in places.items() if not place.startswith(".")}


def test_folders_are_synced_before_what_relies_on_them(tmp_path, monkeypatch):
    """Files and their names are synced before the commit, the commit before the moves, and the moves before its end;
    a new run's name in its parent too."""
    folder, steps = tmp_path / "run", []

    def log_calls(module, name, kind, path):
        original = getattr(module, name)

        def call(*arguments, **options):
            steps.append((kind, str(path(*arguments))))
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    def at(kind, name=""):
        return kind, str(folder / name)

    log_calls(os, "fsync", "sync", lambda descriptor: Path(f"/proc/self/fd/{descriptor}").readlink())
    log_calls(os, "rename", "move", lambda _, target: target)
    log_calls(os, "replace", "move", lambda _, target: target)
    log_calls(shutil, "rmtree", "remove", lambda path: path)
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
    """Runs are saved on a file system that refuses to open or to sync folders."""
    refuse_folders(monkeypatch, step, refusal)
    folder, run = trained(CONFIG, tiny)
    assert (read_checkpoint(folder).epoch, run.warning) == (3, "")


def test_a_disk_that_fails_at_a_folder(tiny, trained, monkeypatch):
    """An I/O error while syncing a folder counts as a failed save."""
    refuse_folders(monkeypatch, "fsync", 5)
    _, run = trained(replace(CONFIG, epochs=1), tiny)
    assert run.warning.startswith("The run could not be saved")


def refuse_folders(monkeypatch, step, error):
    original = getattr(os, step)

    def refuse(what, *arguments, **options):
        # shutil.rmtree opens folders too, but with an option.
        if not options and Path(what if isinstance(what, Path) else f"/proc/self/fd/{what}").is_dir():
            raise OSError(error, os.strerror(error))
        return original(what, *arguments, **options)

    monkeypatch.setattr(os, step, refuse)


def test_a_folder_that_somebody_has_deleted_does_not_come_back(tmp_path):
    """While its run trains: without the rest of its files it would be a run without an owner."""
    with run_folder.writing(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(FileNotFoundError):
            run_folder.commit(tmp_path / "run", {"file": b"content"})
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    """The error is one sentence. The folder would be inside a file, which not even root can write."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match="folder cannot be written: not a directory"),
        run_folder.writing(tmp_path / "file" / "run"),
    ):
        pytest.fail("it was opened")


def test_an_unfinished_commit_that_cannot_be_finished(tiny, trained, monkeypatch):
    """The disk refuses to finish a commit: the error is one sentence, and the lock is free again."""
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


@pytest.mark.parametrize("is_new", [True, False])
def test_a_run_that_ends_before_anything_is_saved_leaves_no_folder(is_new, tiny, tmp_path):
    """Whether it is refused, interrupted or cancelled; an existing folder stays, and so does a saved network."""
    folder = tmp_path / "run"
    if not is_new:
        folder.mkdir()
    for refusal in (ValueError, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(refusal), run_folder.writing(folder):
            raise refusal
        assert folder.exists() is not is_new
    with run_folder.writing(folder):  # with files that a crashed writer left
        next(record(train(CONFIG, tiny), Run(config=CONFIG), folder, facts(tiny)))
        (folder / ".staging").mkdir()
    assert folder.exists() is not is_new
    with pytest.raises(ValueError, match="file name too long"):
        run_folder.create(folder, {"model.safetensors": b"", "x" * 300: b""})
    assert folder.exists() is not is_new
    run_folder.create(folder, {"model.safetensors": b""})
    assert content(folder) == {"model.safetensors": b""}


def test_a_second_writer_is_refused(tiny, trained, monkeypatch):
    """Another tab or command cannot write or delete the run while the first one writes, and can afterwards."""
    monkeypatch.setattr(run_folder, "_LOCK_SECONDS", 0.1)
    folder, _ = trained(replace(CONFIG, epochs=1), tiny)
    with run_folder.writing(folder):
        with pytest.raises(ValueError, match="being trained in another tab or command"), run_folder.writing(folder):
            pytest.fail("it was opened")
        with pytest.raises(ValueError, match="being trained in another tab or command"):
            run_folder.delete(folder)
    with run_folder.writing(folder):
        pass


@pytest.mark.parametrize("read", [read_run, read_settings, run_folder.is_run])
@pytest.mark.parametrize("instant", [1, 2, 3])
def test_a_first_state_is_found_while_its_commit_is_finished(read, instant, tiny, trained, monkeypatch):
    """The writer may move the file before or after any access of a reader."""
    folder, _ = trained(CONFIG, tiny)
    (folder / ".committed").mkdir()
    (folder / "training.json").rename(folder / ".committed/training.json")
    accesses = 0

    def with_move(access):
        def wrapper(*arguments, **options):
            nonlocal accesses
            accesses += 1
            if accesses == instant:
                run_folder._finish_commit(folder)
            return access(*arguments, **options)

        return wrapper

    monkeypatch.setattr(os.path, "exists", with_move(os.path.exists))
    monkeypatch.setattr(run_folder, "read_json", with_move(run_folder.read_json))
    assert read(folder)


@pytest.mark.parametrize("at_once", [False, True])
def test_the_weights_of_a_long_run_are_thinned(at_once, tmp_path):
    """As it grows, or a run of an earlier version at once: of 1,000 epochs the untrained, the best, the last and 60
    others remain, so evenly in the logarithm that no gap is twice as large as it need be."""
    best = 350
    (tmp_path / "epochs").mkdir()
    for last in range(1001):
        (tmp_path / run_folder.epoch_file(last)).touch()
        if last > 60 and (last == 1000 or not at_once):
            run_folder.thin_epochs(tmp_path, best=min(best, last), last=last)
    saved = list(run_folder.saved_epochs(tmp_path))
    assert {0, 1, best, 1000} <= set(saved)
    assert len(saved) <= 63
    gaps = [math.log(after / before) for before, after in itertools.pairwise(saved[1:]) if after > before + 1]
    assert max(gaps) < 2 * math.log(1000) / 60


def test_weights_that_cannot_be_deleted_are_left(tmp_path, monkeypatch):
    """As on Windows while another process reads them; the next time they go."""
    (tmp_path / "epochs").mkdir()
    for epoch in range(100):
        (tmp_path / run_folder.epoch_file(epoch)).touch()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        run_folder.thin_epochs(tmp_path, best=99, last=99)
    assert len(run_folder.saved_epochs(tmp_path)) == 100
    run_folder.thin_epochs(tmp_path, best=99, last=99)
    assert len(run_folder.saved_epochs(tmp_path)) == 62


def test_delete(tiny, trained, tmp_path):
    """Nothing of the run is left, and the other runs stay."""
    folder, _ = trained(replace(CONFIG, epochs=1), tiny, folder=tmp_path / "runs" / "one")
    (tmp_path / "runs" / "other").mkdir()
    run_folder.delete(folder)
    assert os.listdir(tmp_path / "runs") == ["other"]  # noqa: PTH208


def test_a_disk_that_refuses_to_delete(small_run, monkeypatch):
    """It is a sentence for the user, and the run can be written again."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(UserError, match=r"^The run cannot be deleted: permission denied\.$"):
        run_folder.delete(small_run)
    with run_folder.writing(small_run):
        pass


@pytest.fixture
def held_open(monkeypatch):
    """held_open(name, tries): Windows refuses that many times to replace the file, as if it were open elsewhere."""
    replace = Path.replace

    def hold(name, tries):
        left = [tries]

        def refuse(path, target):
            if Path(target).name == name and left[0]:
                left[0] -= 1
                error = PermissionError(13, "Access is denied", str(path))
                error.winerror = 5
                raise error
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", refuse)

    return hold


@pytest.mark.parametrize("name", ["model.safetensors", ".committed"])
def test_a_file_that_is_open_for_a_moment_is_waited_for(name, small_run, held_open):
    """On Windows, where a virus scanner reads every new file."""
    held_open(name, 3)
    run_folder.add_files(small_run, {"model.safetensors": b"new"})
    assert (small_run / "model.safetensors").read_bytes() == b"new"


def test_a_file_that_stays_open_delays_a_save(small_run, held_open, monkeypatch):
    """The error says why; the new state is complete, and its files move with the next save."""
    monkeypatch.setattr("trainer.disk._SECONDS_BETWEEN_TRIES", 0)
    held_open("model.safetensors", 10)
    history = run_folder.read_history(small_run)
    with pytest.raises(UserError, match=r"^The folder cannot be written: access is denied\.$"):
        run_folder.add_files(small_run, {"model.safetensors": b"new", "training.json": b'{"new": 1}'})
    assert run_folder.read_history(small_run) == {"new": 1} != history
    run_folder.add_files(small_run, {"README.md": b"text"})
    assert (small_run / "model.safetensors").read_bytes() == b"new"
    assert not (small_run / ".committed").exists()


def test_a_path_too_long_for_windows_is_explained():
    """Windows says only that it does not exist."""
    error = FileNotFoundError(2, "The system cannot find the path specified", "C:\\" + "a" * 300)
    assert run_folder.reason(error) == "the system cannot find the path specified"
    error.winerror = 3
    assert run_folder.reason(error) == "the path is longer than the 260 characters that Windows allows"


@pytest.mark.parametrize("name", ["a", "sgd-onecycle-20240101", "A_b.c-9", "x" * 96, "_", "-"])
def test_good_names(name):
    """Names that are valid in any file system."""
    assert run_folder.check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "../x", "a b", "ä", "x" * 97, "a\n", "a\0", "a."]
)
def test_bad_names(name):
    """Names that lead out of the folder of runs, are hidden or are not portable are refused."""
    with pytest.raises(ValueError, match="A run's name has"):
        run_folder.check_name(name)


@pytest.mark.parametrize("name", ["con", "AUX", "nul.txt", "com1", "LPT9.tar.gz"])
def test_names_that_windows_reserves(name):
    """They cannot be the name of a folder there, whatever follows a dot; a longer name can."""
    with pytest.raises(ValueError, match="Windows does not allow"):
        run_folder.check_name(name)
    assert run_folder.check_name(f"my{name}")


def test_keys_are_unguessable():
    """A key has 128 random bits and is a valid name."""
    keys = {run_folder.check_name(run_folder.new_key()) for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)


# --- crashes


CRASHES = """
# For every k: a child process saves one more epoch. At its k-th operation on the file system it dies ("die", with half
# of a file written) or gets an error from a full disk ("raise"). For the first folder with an unfinished commit, the
# process that finishes it also dies at each of its operations; the later folders are like those that these leave.
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

def finish(folder):
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
    k, has_finished = 0, False
    while True:
        k += 1
        folder = here / f"{name}-{k:03d}"
        shutil.copytree(old, folder)
        code = crash(action, folder, k)
        (here / f"{name}-{k:03d}.code").write_text(str(code))
        if code == 0:
            return
        assert k < 500 and code in (1, 3, 9), code
        if mode == "die" and action is save and not has_finished and (folder / ".committed").is_dir():
            has_finished = True
            all_crashes(finish, folder, f"{name}-{k:03d}-finish")

all_crashes(save, here / "old", mode)
"""


@pytest.fixture
def crashed(tiny, trained, tmp_path):
    """A function that lets a save crash at every operation; returns the old state, the new one, and each folder with
    the exit code of its process."""

    def crash(mode):
        old, run = trained(CONFIG, tiny, folder=tmp_path / "old", until=1)
        checkpoint = read_checkpoint(old)
        events = [e for e in train(CONFIG, tiny, resume=checkpoint) if getattr(e, "epoch", 2) == 2]
        run = Run(config=CONFIG, history=list(checkpoint.history))
        new = shutil.copytree(old, tmp_path / "new")
        (tmp_path / "events.pickle").write_bytes(pickle.dumps((run, events, facts(tiny))))
        with run_folder.writing(new):
            list(record(iter(events), run, new, facts(tiny)))
        subprocess.run([sys.executable, "-c", CRASHES, mode, str(tmp_path)], check=True, timeout=300)
        codes = {path.stem: int(path.read_text()) for path in tmp_path.glob("*.code")}
        return content(old), content(new), {tmp_path / name: code for name, code in sorted(codes.items())}

    return crash


@pytest.mark.slow
def test_a_crash_at_any_instant_leaves_the_old_state_or_the_new(crashed):
    """Killed at any operation of a save, also with a file half written, or of finishing a commit: the next process
    that opens the folder finds the complete state before or after the save, never a mixture."""
    old, new, crashes = crashed("die")
    before = json.loads(old["training.json"])
    # There are two commits: of the epoch, and of the run's end, which changes training.json alone.
    saved = {**new, "training.json": None}
    found = set()
    for folder, code in crashes.items():
        epoch_before_writing = read_run(folder).epoch
        with run_folder.writing(folder):
            checkpoint = read_checkpoint(folder)
        state = content(folder)
        assert checkpoint.epoch == epoch_before_writing
        if checkpoint.epoch == 1:
            # The status may have changed already.
            assert json.loads(state.pop("training.json")) in (before, {**before, "status": "training"}), folder.name
            assert state == {name: file for name, file in old.items() if name != "training.json"}, folder.name
        else:
            assert checkpoint.epoch == 2
            assert state.keys() == saved.keys()
            assert {**state, "training.json": None} == saved, folder.name
            status = json.loads(state["training.json"])["status"]
            assert status in ("training", "completed")
            assert (state["training.json"] == new["training.json"]) is (status == "completed")
        found.add((checkpoint.epoch, code))
    assert len(crashes) > 50
    assert found >= {(1, 9), (2, 9), (2, 0)}


@pytest.mark.slow
def test_a_disk_that_fails_once_loses_nothing(crashed):
    """An error at any operation of a save: the run continues, and the epoch is saved at the next opportunity."""
    _, new, crashes = crashed("raise")
    saved = 0
    for folder, code in crashes.items():
        with run_folder.writing(folder):
            checkpoint = read_checkpoint(folder)
        if code == 3:  # before the run started
            continue
        assert checkpoint.epoch == 2
        state = content(folder)
        state["training.json"] = state["training.json"].replace(b'"training"', b'"completed"')
        assert state == new, folder.name
        saved += 1
    assert saved > 30
