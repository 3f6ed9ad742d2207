"""Work in a thread: its reports, its result, and its end after a timeout."""

import io
import logging
import os
import sys
import threading
import time

import huggingface_hub
import pytest
from huggingface_hub.utils import are_progress_bars_disabled

from trainer.cli import progress
from trainer.cli.progress import bar_of, progress_bar, saying
from trainer.progress import quiet, repeating, run_with_timeout


def test_results_errors_and_reports_reach_the_caller():
    """run_with_timeout returns or raises what the work does, and repeats its last report while no other comes."""
    reports = []

    def work(report):
        report(0.25, "sleeping")
        time.sleep(0.7)
        return "done"

    def fail(report):
        raise KeyError("lost")

    assert run_with_timeout(work, lambda *report: reports.append(report), 10) == "done"
    assert reports == [(0.25, "sleeping")] * 2
    with pytest.raises(KeyError, match="lost"):
        run_with_timeout(fail, lambda *report: None, 10)


def test_abandoned_work_ends():
    """Work that continues after its timeout ends at its next report."""
    resume, ended, continued = threading.Event(), threading.Event(), []

    def work(report):
        resume.wait(10)
        try:
            report(0.5, "still here")
            continued.append(True)
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        run_with_timeout(work, lambda *report: None, 0.1)
    resume.set()
    assert ended.wait(10)
    assert not continued


def test_quiet_blocks_may_overlap():
    """A library stays silent until the last block ends, in whatever order they end; then it is as it was before."""

    def state():
        level = logging.getLogger("huggingface_hub").level
        return level, are_progress_bars_disabled()

    before = state()
    blocks = [quiet(huggingface_hub), quiet(huggingface_hub)]
    for block in blocks:
        block.__enter__()
    blocks[0].__exit__(None, None, None)
    assert state() == (logging.CRITICAL, True)
    blocks[1].__exit__(None, None, None)
    assert state() == before


def test_repeating():
    """The action is repeated until the block ends, and not after that."""
    calls = []
    with repeating(lambda: calls.append(None), 0.001):
        deadline = time.monotonic() + 10
        while len(calls) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    ended = len(calls)
    time.sleep(0.02)
    assert len(calls) == ended


def test_words_while_the_command_line_loads(monkeypatch):
    """A terminal displays them until the block ends; a file gets none."""
    for is_terminal in (True, False):
        stderr = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setattr(stderr, "isatty", lambda answer=is_terminal: answer)
        with saying("Loading"):
            during = stderr.getvalue()
        assert during == ("Loading" if is_terminal else "")
        assert stderr.getvalue().rpartition("\r")[0].strip("\r ") == during


def test_a_file_gets_a_line_every_few_seconds(monkeypatch, capsys):
    """Of a long wait, with what is being done."""
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.01)
    with progress_bar() as report:
        report(0.25, "Reading the folder")
        deadline, printed = time.monotonic() + 10, ""
        while printed.count("Reading the folder: 25%\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
            printed += capsys.readouterr().err
    assert set(printed.splitlines()) - {"Starting …"} == {"Reading the folder: 25%"}


def test_a_terminal_without_a_width_displays_bars(monkeypatch):
    """As one has that no window draws; tqdm would write nothing."""
    pty = pytest.importorskip("pty", reason="Windows has none")
    ours, theirs = pty.openpty()  # of 0 columns
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress_bar() as report:
            report(0.25, "Reading the folder")
        with bar_of(2.0, is_hidden=False) as bar:
            bar.update(1)
            bar.refresh()
        os.set_blocking(ours, False)
        drawn = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "Reading the folder  25%" in drawn
    assert " 50% |" in drawn
