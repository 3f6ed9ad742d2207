"""The lock of a folder's writer, on file systems with locks and on those that refuse them in one way or another."""

import fcntl
import os
import subprocess
import sys
import time

import pytest

from trainer.errors import UserError
from trainer.runs import lock, run_folder
from trainer.runs.reader import read_run
from trainer.settings.config import TrainConfig
from trainer.sweeps import folder as sweep_folder

REFUSALS = {"ENOLCK": 37, "ENOSYS": 38, "EOPNOTSUPP": 95, "EACCES": 13, "EAGAIN": 11, "EINVAL": 22, "EIO": 5}


@pytest.fixture(params=REFUSALS)
def without_locks(request, monkeypatch):
    """A file system that answers every flock with an error, which may be the one for a file that is locked."""
    number = REFUSALS[request.param]

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "_locking", set())
    monkeypatch.setattr(run_folder, "_LOCK_SECONDS", 0.05)
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.0)


def test_a_run_is_trained_without_locks(without_locks, tiny, trained):
    """By one writer at a time; afterwards it has ended, and only its own files are left."""
    folder, run = trained(TrainConfig(epochs=1, batch_size=13, scheduler="constant"), tiny)
    assert (run.warning, read_run(folder).status) == ("", "completed")
    with run_folder.writing(folder):
        assert lock.is_held(folder)
        with pytest.raises(UserError, match="being trained in another tab"), run_folder.writing(folder):
            pytest.fail("there are two writers")
        with pytest.raises(UserError, match="run by another command"), sweep_folder.running(folder):
            pytest.fail("there are two writers")
    assert not lock.is_held(folder)
    assert {path.name for path in folder.iterdir() if path.name[0] == "."} <= {".lock"}
    run_folder.delete(folder)
    assert not folder.exists()


def test_an_error_in_the_writer_is_its_own(without_locks, tmp_path):
    """The refusal of the lock, which the fallback has answered, is not part of it; the lock is free again."""
    with pytest.raises(KeyError) as error, lock.held(tmp_path, 0):
        raise KeyError
    assert error.value.__context__ is None
    assert not lock.is_held(tmp_path)


@pytest.mark.parametrize("age", [-3600, -90, 90, 3600])
def test_a_lease_of_another_machine_expires(age, tmp_path):
    """A writer that was killed there leaves its lease; it counts while it is new, whatever the clocks say after."""
    lease = tmp_path / ".lease"
    lease.write_text("elsewhere 1 0", encoding="utf-8")
    assert lock.is_held(tmp_path)
    with pytest.raises(TimeoutError), lock.held(tmp_path, 0):
        pytest.fail("there are two writers")
    os.utime(lease, (time.time() - age,) * 2)
    assert not lock.is_held(tmp_path)
    with lock.held(tmp_path, 0):
        pass


def test_a_lease_of_a_dead_process_has_expired(tmp_path):
    """A process of this machine that no longer exists cannot hold it, however new it is."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = os.uname().nodename
    (tmp_path / ".lease").write_text(f"{host} {dead.pid} 0", encoding="utf-8")
    assert not lock.is_held(tmp_path)
    (tmp_path / ".lease").write_text(f"{host} {os.getpid()} 0", encoding="utf-8")
    assert lock.is_held(tmp_path)


def test_a_lease_is_kept_alive(monkeypatch, tmp_path):
    """Its writer renews it until it ends, so that a training may take longer than a lease."""
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.01)
    lease = tmp_path / ".lease"
    with lock._leased(tmp_path):
        os.utime(lease, (0, 0))
        deadline = time.monotonic() + 10
        while not lock.is_held(tmp_path):
            assert time.monotonic() < deadline, "it has expired"
            time.sleep(0.01)
    assert not lease.exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    """It is not taken for one without locks."""
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError), lock.held(tmp_path / "file", 0):
        pytest.fail("it was opened")
