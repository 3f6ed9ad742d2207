"""A sweep on this machine: its folder, its rows, and what remains after a stop, a kill or damage."""

import csv
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.cli.main import main
from trainer.errors import UserError
from trainer.images.image_data import facts, load_images
from trainer.learning.loop import train
from trainer.runs import run_folder
from trainer.runs.events import EpochEnded
from trainer.runs.reader import read_run
from trainer.sweeps import folder
from trainer.sweeps.axes import grid, parse_axis
from trainer.sweeps.folder import Sweep

REPOSITORY = Path(__file__).parents[2]
AXES = ("optimizer=sgd,adam", "lr=0.001..0.1:2", "seed=0,1")
SHARED = ("--epochs", "2", "--num-images", "64", "--batch-size", "16", "--scheduler", "constant", "--data", "synthetic")


def arguments(*more, axes=AXES):
    return ["sweep", *(word for text in axes for word in ("--vary", text)), *SHARED, *more]


def start(*words, **options):
    """Starts a command in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "trainer", *map(str, words)], cwd=REPOSITORY, **pipes, **options)


def rows_of(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of eight runs: its folder, and the rows that it printed."""
    place = tmp_path_factory.mktemp("sweep")
    process = start(*arguments("--json", "--checkpoints", place, "--run", "eight"))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return place / "eight", rows_of(out)


@pytest.mark.slow
def test_each_cell_is_a_run_that_trains_as_alone(swept):
    """The figures of a cell's row are those of its run, and of a training with its settings."""
    place, rows = swept
    cells = [row for row in rows if row["event"] == "cell"]
    assert {(row["optimizer"], row["lr"], row["seed"]) for row in cells} == {
        (optimizer, lr, seed) for optimizer in ("sgd", "adam") for lr in (0.001, 0.1) for seed in (0, 1)
    }
    images = load_images("synthetic")
    for row in cells:
        run = read_run(place / "runs" / row["checkpoint"])
        assert run.status == row["status"] == "completed"
        last = run.history[-1]
        assert run.config.holdout == 0.1
        assert [row[name] for name in folder.COLUMNS[1:-1]] == [getattr(last, name) for name in folder.COLUMNS[1:-1]]
    config = run.config
    alone = [event for event in train(config, images) if isinstance(event, EpochEnded)][-1]
    assert last.train_loss == pytest.approx(alone.train_loss, rel=1e-5)  # with another number of threads


@pytest.mark.slow
def test_the_best_are_named_and_the_results_written(swept):
    """One row for each optimizer, by the loss on what is kept aside; the table has a row for each run."""
    place, rows = swept
    best = [row for row in rows if row["event"] == "best"]
    assert [row["optimizer"] for row in best] == ["sgd", "adam"]
    for row in best:
        cells = [cell for cell in rows if cell["event"] == "cell" and cell["optimizer"] == row["optimizer"]]
        by_lr = {lr: [cell["holdout_loss"] for cell in cells if cell["lr"] == lr] for lr in (0.001, 0.1)}
        assert row["lr"] == min(by_lr, key=lambda lr: sum(by_lr[lr]))
        assert row["holdout_loss"] == pytest.approx(sum(by_lr[row["lr"]]) / 2)
    with (place / folder.RESULTS_FILE).open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 8
    assert {row["status"] for row in table} == {"completed"}
    assert float(table[0]["holdout_loss"]) == next(
        row["holdout_loss"] for row in rows if row.get("checkpoint") == table[0]["checkpoint"]
    )
    assert (place / folder.CHART_FILE).read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.slow
def test_a_sweep_that_has_ended_repeats_nothing(swept):
    """--resume prints the best again, and trains no run."""
    place, _ = swept
    before = {path: path.stat().st_mtime_ns for path in (place / "runs").rglob("*") if path.is_file()}
    process = start("sweep", "--resume", place, "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert [row["event"] for row in rows_of(out)] == ["best", "best"]
    after = {path: path.stat().st_mtime_ns for path in (place / "runs").rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL.")
def test_kills_lose_and_double_nothing(swept, tmp_path):
    """After kills at random instants and a Ctrl-C, --resume ends with the rows of an undisturbed sweep."""
    whole, _ = swept
    chance = random.Random(17)
    place = tmp_path / "killed"
    first = arguments("--json", "--checkpoints", tmp_path, "--run", "killed")
    printed = []

    def go_on():
        return start(*(["sweep", "--resume", place, "--json"] if folder.is_sweep(place) else first))

    for number in range(3):
        process = go_on()
        time.sleep(chance.uniform(6, 12))
        process.send_signal(signal.SIGINT if number == 1 else signal.SIGKILL)
        out, _ = process.communicate(timeout=300)
        printed += [row["checkpoint"] for row in rows_of(out) if row["event"] == "cell"]
        if process.returncode == 0:
            break
    process = go_on()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    printed += [row["checkpoint"] for row in rows_of(out) if row["event"] == "cell"]
    assert len(printed) == len(set(printed))
    for cell in folder.read(place).grid.cells:
        ours, theirs = (read_run(path / "runs" / cell.name) for path in (place, whole))
        assert [(row.train_loss, row.test_loss, row.holdout_loss) for row in ours.history] == [
            (row.train_loss, row.test_loss, row.holdout_loss) for row in theirs.history
        ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the workers in /proc")
def test_a_lost_worker_costs_no_run(tmp_path):
    """kill -9 of the workers while they train: their runs start again, and all end."""
    process = start(*arguments("--json", "--checkpoints", tmp_path, "--run", "lost", "--parallel", "2", axes=AXES[:2]))
    killed = 0
    deadline = time.monotonic() + 60
    while killed < 2 and time.monotonic() < deadline and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
        if children and list((tmp_path / "lost" / "runs").glob("*/training.json")):
            os.kill(int(children[killed % len(children)]), signal.SIGKILL)
            killed += 1
        time.sleep(0.5)
    out, err = process.communicate(timeout=300)
    assert killed
    assert process.returncode == 0, err
    assert [row["status"] for row in rows_of(out) if row["event"] == "cell"] == ["completed"] * 4


@pytest.mark.slow
def test_another_number_of_threads_is_noticed(small, trained, tmp_path, capsys):
    """A sweep that goes on with another number of threads than a run had before says so, with the run's settings."""
    settings = {**small.settings, "batch_size": 16, "scheduler": "constant"}
    sweep = replace(small, folder=tmp_path / "threads", settings=settings)
    folder.create(sweep)
    cell = sweep.grid.cells[1]
    trained(cell.config, load_images("synthetic"), folder=sweep.folder_of(cell), until=1)
    path = sweep.folder_of(cell) / "training.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["state"]["threads"] = 7
    path.write_text(json.dumps(content), encoding="utf-8")
    assert main(["sweep", "--resume", str(sweep.folder)]) == 0
    error = capsys.readouterr().err
    assert error.count("lr 0.1, betas 0.8,0.9: This run was trained with 7 threads before") == 1
    assert error.count("threads before") == 1


@pytest.mark.slow
def test_a_disk_that_refuses_a_run_is_reported(tmp_path, monkeypatch, capsys):
    """The sweep trains the other runs, says which ones are not saved and why, and exits with 1."""

    def refuse(folder, files):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_folder, "commit", refuse)
    assert main(arguments("--checkpoints", str(tmp_path), axes=("seed=0,1",))) == 1
    error = capsys.readouterr().err
    for seed in (0, 1):
        assert error.count(f"seed {seed}: The run could not be saved: no space left on device.") == 1


@pytest.mark.slow
def test_a_dry_run_says_how_many_and_how_long(tmp_path, capsys):
    """Nothing is trained; what the settings refuse is named with its sentence."""
    axes = ("optimizer=sgd,adam", "momentum=0.5,0.9")
    assert main(arguments("--dry-run", "--json", "--checkpoints", str(tmp_path), axes=axes)) == 0
    *refused, plan = rows_of(capsys.readouterr().out)
    assert [(row["event"], row["optimizer"]) for row in refused] == [("refused", "adam")] * 2
    assert (plan["event"], plan["runs"], plan["refused"]) == ("plan", 2, 2)
    assert 0 < plan["seconds"] < 60
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_does_not_fit_the_images_is_refused_before_anything_runs(tmp_path, capsys):
    """Such as a batch larger than the pictures that remain."""
    axes = ("batch_size=16,60", "seed=0,1")
    words = [word for word in SHARED if word not in ("--batch-size", "16")]
    command = ["sweep", "--vary", axes[0], "--vary", axes[1], *words, "--dry-run", "--checkpoints", str(tmp_path)]
    assert main(command) == 0
    output = capsys.readouterr()
    assert output.err.count("batch_size 60, seed") == output.err.count("batch_size must not be above the 56 pict") == 2
    assert output.out.startswith("2 runs, about ")


@pytest.fixture
def small(tmp_path):
    """A sweep of which nothing has run."""
    sweep = Sweep(
        folder=tmp_path / "small",
        settings={"epochs": 2, "num_images": 64, "optimizer": "adam"},
        axes=(parse_axis("lr=0.1,0.2"), parse_axis("betas=0.9,0.99;0.8,0.9")),
        data=facts(load_images("synthetic")),
    )
    folder.create(sweep)
    return sweep


def test_a_sweep_comes_back(small):
    """With lists as values too."""
    again = folder.read(small.folder)
    assert (again.axes, dict(again.settings), again.data) == (small.axes, dict(small.settings), small.data)
    assert again.grid == grid(small.settings, small.axes)
    with pytest.raises(UserError, match="already"):
        folder.create(small)


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "settings": {}, "axes": [], "data": {}}',
        '{"format": 1, "settings": {}, "axes": [{"name": "lr"}], "data": {}}',
        '{"format": 1, "settings": {}, "axes": [{"name": "lr", "values": [1]}], "data": {}}',
        '{"format": 1, "settings": {}, "axes": [{"name": "lrr", "values": [1, 2]}], "data": {}}',
        '{"format": 1, "settings": {}, "axes": [{"name": [], "values": [1, 2]}], "data": {}}',
        '{"format": 1, "settings": {}, "axes": [{"name": "lr", "values": [[], 2]}], "data": {}}',
        '{"format": 1, "settings": {"lrr": 1}, "axes": [{"name": "lr", "values": [1, 2]}], "data": {}}',
    ],
)  # fmt: skip
def test_a_damaged_sweep_is_one_sentence(small, content, capsys):
    """Whatever is wrong with sweep.json."""
    (small.folder / folder.SWEEP_FILE).write_text(content, encoding="utf-8")
    assert main(["sweep", "--resume", str(small.folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


WRONG = {
    "no axis": (["sweep"], "Vary at least one"),
    "an axis of one value": (["sweep", "--vary", "lr=1"], "two values"),
    "no number at a time": (["sweep", "--vary", "lr=1,2", "--parallel", "0"], "from 1 to 256"),
    "words at a time": (["sweep", "--vary", "lr=1,2", "--parallel", "many"], "from 1 to 256"),
    "a name that is no folder": (["sweep", "--vary", "lr=1,2", "--run", "../x"], "A run's name"),
    "nothing to resume": (["sweep", "--resume", "/nowhere"], "There is no sweep"),
    "a resume with an axis": (["sweep", "--resume", "/nowhere", "--vary", "lr=1,2"], "leave out the others"),
    "a resume with a setting": (["sweep", "--resume", "/nowhere", "--lr", "1"], "leave out the others"),
    "an optimizer without the setting": (
        ["sweep", "--vary", "momentum=0.1,0.2", "--optimizer", "adam", "--data", "synthetic"],
        "momentum is not a setting",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_is_one_sentence(case, capsys):
    """With exit status 2, before anything runs."""
    command, words = WRONG[case]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_folder_is_run_once(small):
    """A second command is refused while another one runs the sweep."""
    with folder.running(small.folder), pytest.raises(UserError, match="another command"), folder.running(small.folder):
        pass


def test_a_run_is_not_a_sweep(small, tiny, trained, tmp_path):
    """Nor is a sweep created over a run."""
    from trainer.settings.config import TrainConfig

    run, _ = trained(TrainConfig(epochs=1, batch_size=8, scheduler="constant"), tiny, folder=tmp_path / "run")
    assert run_folder.is_run(run)
    with pytest.raises(UserError, match="already"):
        folder.create(Sweep(folder=run, settings={}, axes=small.axes, data=small.data))
