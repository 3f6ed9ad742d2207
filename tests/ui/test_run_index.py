"""The index knows the owner of each run without reading all folders, while runs come and go."""

import io
import itertools
import os
import shutil
import threading
import time

import labs
import pytest

from ui import run_index
from ui.page import notice
from ui.parts.run import run_list
from ui.visitors import new_visitor

LONG_AGO = itertools.count(int(time.time()) - 10_000)


@pytest.fixture
def make_lab(tiny, monkeypatch):
    """A function that returns a lab on a folder of runs, as one process of the app would have it."""
    monkeypatch.setattr("ui.lab.load_images", lambda progress: tiny)

    def make(folder):
        lab = labs.make_lab(folder)
        while lab.images is None:
            time.sleep(0.01)
        return lab

    return make


def started_runs(lab, visitor, num_runs=1):
    """Creates the runs of a new race, with the file that marks a started run; returns their folders."""
    folders = lab.runs.new_race(visitor, num_runs)
    for folder in folders:
        (folder / "training.json").touch()
    return folders


def settle(folder):
    """Sets the folder's modification time to a new value some time ago, as if nothing had changed in it since."""
    then = next(LONG_AGO)
    os.utime(folder, (then, then))


@pytest.fixture
def accesses(monkeypatch, tmp_path):
    """The accesses to files and folders below `tmp_path`, in order: (function, path)."""
    seen = []

    def counted(module, name):
        original = getattr(module, name)

        def access(path=".", *arguments, **options):
            if str(path).startswith(str(tmp_path)):
                seen.append((name, str(path)))
            return original(path, *arguments, **options)

        monkeypatch.setattr(module, name, access)

    for module, name in ((os, "stat"), (os, "listdir"), (os, "scandir"), (os, "open"), (io, "open")):
        counted(module, name)
    return seen


def test_the_runs_of_others_do_not_slow_down_a_page(make_lab, tmp_path, accesses):
    """A page makes the same accesses with few stored runs as with many; after a change, one listing.

    That holds for the first page too: the app reads all runs as it starts.
    """
    visitor, costs, lists = new_visitor(), {}, run_list.build()
    for stored in (5, 300):
        lab = make_lab(tmp_path / str(stored))
        for _ in range(stored // 5):
            started_runs(lab, new_visitor(), 5)
        started_runs(lab, visitor, 2)
        settle(lab.runs.folder)
        accesses.clear()
        lab = make_lab(lab.runs.folder)  # a new process, which has created none of them
        costs[stored, "start"] = list(accesses)
        for step in ("first", "next", "after a change"):
            if step == "after a change":
                started_runs(lab, new_visitor())
                settle(lab.runs.folder)
            accesses.clear()
            lists.offer(lab, visitor, None)
            run_list.latest(lab, visitor)
            notice(lab, visitor, True)
            costs[stored, step] = [name for name, _ in accesses]
    assert len(costs[300, "start"]) > 300, "the index has to be built once"
    assert "scandir" not in costs[5, "first"]
    assert costs[300, "first"] == costs[5, "first"] == costs[5, "next"] == costs[300, "next"]
    assert costs[300, "after a change"] == costs[5, "after a change"]
    assert costs[300, "after a change"].count("scandir") == 1


def test_a_run_that_disappears_while_it_is_listed(make_lab, tmp_path, monkeypatch):
    """Whenever another tab or the cleaning deletes it, the listing succeeds and contains the other runs."""
    visitor, stat = new_visitor(), os.stat
    lab = make_lab(tmp_path)
    stays = started_runs(lab, visitor)[0]
    for instant in range(1, 30):
        goes, left = started_runs(lab, visitor)[0], instant

        def look(path, *arguments, goes=goes, **options):
            nonlocal left
            if threading.current_thread() is threading.main_thread() and str(path).startswith(str(tmp_path)):
                left -= 1
                if left == 0:
                    shutil.rmtree(goes)
            return stat(path, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", look)
            listed = lab.runs.of(visitor)
        assert stays in listed
        assert {stays, goes} >= set(listed)
        shutil.rmtree(goes, ignore_errors=True)
        assert lab.runs.of(visitor) == [stays]
    assert left > 0, "a listing takes fewer accesses than that"


def test_changes_by_another_process_are_noticed(make_lab, tmp_path):
    """When it creates or deletes runs in the same folder, and when the whole folder is moved away and back."""
    visitor = new_visitor()
    one, other = make_lab(tmp_path), make_lab(tmp_path)
    assert one.runs.of(visitor) == other.runs.of(visitor) == []
    settle(tmp_path)
    folders = started_runs(other, visitor, 3)
    assert one.runs.races_of(visitor) == other.runs.races_of(visitor) == {folders[0].name: folders}
    shutil.rmtree(folders[1])
    assert one.runs.own_race(visitor, folders[0].name) == [folders[0], folders[2]]
    tmp_path.rename(tmp_path.with_name("away"))
    assert one.runs.of(visitor) == one.runs.all() == []
    tmp_path.with_name("away").rename(tmp_path)
    assert len(one.runs.of(visitor)) == 2


def test_a_run_created_in_the_same_instant_as_a_refresh(make_lab, tmp_path, monkeypatch):
    """The modification time does not reveal it; a listing some seconds later does. Until then no page lists again."""
    visitor = new_visitor()
    one, other = make_lab(tmp_path), make_lab(tmp_path)
    started_runs(other, new_visitor())
    assert one.runs.of(visitor) == []
    at = tmp_path.stat().st_mtime_ns
    (folder,) = started_runs(other, visitor)
    os.utime(tmp_path, ns=(at, at))
    assert one.runs.of(visitor) == []
    now = time.time() + run_index._SECONDS_TO_SETTLE + 1
    monkeypatch.setattr(time, "time", lambda: now)
    assert one.runs.of(visitor) == [folder]


def test_a_run_whose_owner_is_written_later(make_lab, tmp_path, monkeypatch):
    """Another process may be about to write it. A run of the API, which never gets an owner, is not read again."""
    visitor = new_visitor()
    one, other = make_lab(tmp_path), make_lab(tmp_path)
    (folder,) = started_runs(other, visitor)
    owner = (folder / ".owner").rename(tmp_path / "owner")
    assert one.runs.of(visitor) == []
    owner.rename(folder / ".owner")
    now = time.time() + run_index._SECONDS_TO_SETTLE + 1
    monkeypatch.setattr(time, "time", lambda: now)
    assert one.runs.of(visitor) == [folder]
    by_api = one.runs.new_run()
    by_api.mkdir()
    settle(by_api)
    settle(tmp_path)
    one.runs.of(visitor)
    reads = []
    (new,) = started_runs(other, new_visitor())
    settle(tmp_path)
    monkeypatch.setattr(run_index, "read", reads.append)
    one.runs.of(visitor)
    assert reads == [new / ".owner"]


@pytest.mark.parametrize("text", [b"", b"x", b"\xff\xfe", b"../x", b"%s -1", b"%s 1.5", b"%s x", b"%s " + b"1" * 5000])
def test_a_run_with_a_damaged_race_file_is_a_race_of_its_own(text, make_lab, tmp_path):
    """Whatever the file contains."""
    visitor = new_visitor()
    (folder,) = started_runs(make_lab(tmp_path), visitor)
    (folder / ".race").write_bytes(text.replace(b"%s", folder.name.encode()))
    assert make_lab(tmp_path).runs.races_of(visitor) == {folder.name: [folder]}


def test_many_threads(make_lab, tmp_path):
    """Threads create, list and delete runs at the same time; each finds its own, and nothing fails."""
    lab, failures = make_lab(tmp_path), []

    def work():
        visitor = new_visitor()
        try:
            for _ in range(10):
                folders = started_runs(lab, visitor, 2)
                assert lab.runs.races_of(visitor) == {folders[0].name: folders}
                for folder in folders:
                    shutil.rmtree(folder)
                assert lab.runs.of(visitor) == []
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
