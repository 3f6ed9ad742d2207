"""Where the app stores its runs: in a folder that can be written, or a sentence says what to set."""

import errno
import os

import pytest

from trainer.cache import cached
from trainer.errors import UserError
from ui.stored_runs import find_folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory, in which `file` is no folder and `loop` leads nowhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


def test_the_folder_is_created(place, monkeypatch):
    assert find_folder().resolve() == place / "checkpoints"
    monkeypatch.setenv("OPTIMIZER_LAB_CHECKPOINTS", "some/where")
    assert find_folder().resolve() == place / "some" / "where"
    assert (place / "some" / "where").is_dir()


@pytest.mark.parametrize("folder", ["file", "file/in", "loop", "x" * 5000, os.devnull])
def test_a_chosen_folder_that_cannot_be_written_is_refused(place, monkeypatch, folder):
    monkeypatch.setenv("OPTIMIZER_LAB_CHECKPOINTS", folder)
    with pytest.raises(UserError, match=r"Runs cannot be stored in .* Set OPTIMIZER_LAB_CHECKPOINTS to another"):
        find_folder()


def test_a_default_that_cannot_be_written_is_replaced(place, caplog):
    """As in a container whose files are read-only; the log says where runs are."""
    (place / "checkpoints").write_text("a file")
    folder = find_folder()
    assert folder == cached("runs")
    assert f"checkpoints cannot be written (File exists): runs are stored in {folder}." in caplog.text


def test_a_full_disk_is_no_reason(place, monkeypatch):
    """The runs there can still be seen and deleted."""

    def refuse(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ui.stored_runs.check_folder", refuse)
    monkeypatch.setenv("OPTIMIZER_LAB_CHECKPOINTS", str(place))
    assert find_folder() == place
