"""Files of the cache are written completely or not at all, in a temporary folder if the cache cannot be written."""

import huggingface_hub.constants
import pytest

from trainer.cache import cached, check_folder, writable_folder, write_cached


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """HF_HOME, a folder that does not exist yet."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def fill_disk(path):
    path.write_text("half")
    raise OSError(28, "No space left on device")


def test_a_file_is_written_once_and_completely(home):
    path = write_cached("a.txt", lambda path: path.write_text("whole"))
    assert path == cached("a.txt")
    assert [file.read_text() for file in path.parent.iterdir()] == ["whole"]


def test_a_full_disk_raises_its_error_and_leaves_nothing(home):
    with pytest.raises(OSError, match="No space left"):
        write_cached("a.txt", fill_disk)
    assert list(cached("a.txt").parent.iterdir()) == []


def test_a_temporary_folder_takes_the_place_of_a_home_that_cannot_be_written(home):
    home.write_text("a file where the folder should be")
    path = write_cached("a.txt", lambda path: path.write_text("whole"))
    assert path.read_text() == "whole"
    folder = writable_folder("uploads")
    assert folder.is_dir()
    assert not path.is_relative_to(home)
    assert not folder.is_relative_to(home)


def test_a_folder_is_created_or_refused(tmp_path):
    assert check_folder(tmp_path / "new" / "inner").is_dir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError):  # noqa: PT011 - NotADirectoryError or FileExistsError, depending on the system
        check_folder(tmp_path / "file" / "inner")
