"""The command line: exit codes, rows, one line on stderr, and a run that survives whatever ends its process."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from trainer.cli.main import main
from trainer.learning import lr_finder
from trainer.runs import run_folder
from trainer.runs.reader import read_checkpoint, read_run
from trainer.settings.config import SETTINGS

TRAIN = ("--epochs", "2", "--batch-size", "8", "--scheduler", "constant")


def strict(line):
    """A row of JSON as every reader understands it: no NaN, no Infinity."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


def without_time(path):
    told = json.loads((path / "training.json").read_text())
    for row in told["history"]:
        row.pop("seconds"), row.pop("images_per_second")
    return told, {file.name: file.read_bytes() for file in path.rglob("*.safetensors")}


@pytest.fixture
def at(image_folder, tmp_path):
    """The arguments that name data and place."""
    return ("--data", str(image_folder), "--checkpoints", str(tmp_path), "--run", "run")


@pytest.fixture(scope="module")
def finished(image_folder, tmp_path_factory):
    """A run of two epochs, as the command line left it: do not change it."""
    where = tmp_path_factory.mktemp("finished")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(["train", *TRAIN, "--data", str(image_folder), "--checkpoints", str(where), "--run", "run"]) == 0
    return where / "run"


def assert_one_line(text):
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text


def test_json_rows(at, tmp_path, capsys):
    """One strict JSON object a line, with the keys of the design; the last one is `finished` and names the folder."""
    assert main(["train", *TRAIN, *at, "--json"]) == 0
    rows = [strict(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["event"] for row in rows] == [
        *["epoch", "checkpoint"],
        *[*["step"] * 5, "epoch", "checkpoint"] * 2,
        "finished",
    ]
    step, epochs = rows[2], [row for row in rows if row["event"] == "epoch"]
    assert step.keys() >= {"epoch", "step", "num_steps", "loss", "lr", "grad_norm"}
    keys = {"epoch", "train_loss", "train_loss_sum", "test_loss", "test_accuracy", "lr", "seconds", "images_per_second"}
    assert all(row.keys() >= keys | {"grad_norm"} for row in epochs)
    assert [epochs[0][key] for key in ("epoch", "train_loss", "train_loss_sum", "lr", "grad_norm")] == [0] + [None] * 4
    assert all(0 <= row["test_accuracy"] <= 1 for row in epochs)
    folder = str(tmp_path / "run")
    assert rows[-1] == {"event": "finished", "reason": "completed", "advice": "", "checkpoint": folder}
    assert {row["checkpoint"] for row in rows if row["event"] == "checkpoint"} == {folder}


def test_a_diverged_run_is_strict_json(at, capsys):
    """Losses that are no numbers are null, and `finished` says why."""
    assert main(["train", *TRAIN, *at, "--lr", "1e10", "--json"]) == 0
    rows = [strict(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[-1]["reason"] == "diverged"
    assert rows[-1]["advice"]
    assert any(row["event"] == "step" and row["loss"] is None for row in rows)


def test_a_table(at, tmp_path, capsys):
    """Without --json: where the run is kept, a row an epoch, and what to do next; what the images are on stderr."""
    assert main(["train", *TRAIN, *at]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == f"The run is kept in {tmp_path / 'run'}"
    header = lines.index(next(line for line in lines if line.startswith("epoch")))
    rows = [line.split() for line in lines[header + 1 : header + 4]]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert [len(row) for row in rows] == [4, 7, 7]
    assert all(re.fullmatch(r"\d+\.\d\d%", row[2 if len(row) == 4 else 3]) for row in rows)
    assert lines[-1].startswith("Done: ")
    assert f"classify {tmp_path / 'run'}" in lines[-1]
    assert "drawn" in shown.err


def test_settings_reach_the_run(at, tmp_path, capsys):
    """Numbers, switches, pairs and lists, as flags."""
    optimizer = ["--optimizer", "adam", "--betas", "0.8", "0.9", "--amsgrad"]
    scheduler = ["--scheduler", "multistep", "--milestones", "1,3"]
    assert (
        main(["train", *optimizer, *scheduler, "--shuffle", "false", "--epochs", "1", "--batch-size", "20", *at]) == 0
    )
    config = read_checkpoint(tmp_path / "run").config
    assert (config.optimizer, config.betas, config.amsgrad) == ("adam", (0.8, 0.9), True)
    assert (config.milestones, config.shuffle, config.batch_size) == ((1, 3), False, 20)


def test_every_setting_is_a_flag(capsys):
    """Each field of TrainConfig, with its one sentence of help."""
    with pytest.raises(SystemExit) as left:
        main(["train", "--help"])
    assert left.value.code == 0
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    for name, declared in SETTINGS.items():
        assert f"--{name.replace('_', '-')} " in shown
        assert re.sub(r"\s+", " ", declared.help) in shown


MISTAKES = {
    "a bad value": (["train", "--lr", "-1"], "lr must be a number above 0"),
    "no number": (["train", "--lr", "x"], "lr must be"),
    "not a number": (["train", "--lr", "nan"], "lr must be"),
    "another row's setting": (["train", "--optimizer", "adam", "--momentum", "0.9"], "momentum is not a setting"),
    "an unknown optimizer": (["train", "--optimizer", "sdg"], "optimizer must be one of"),
    "a switch that is neither": (["train", "--shuffle", "maybe"], "either true or false"),
    "a bad name": (["train", "--run", "../x"], "A run's name has"),
    "no such data": (["train", "--data", "nowhere"], "There is no image source"),
    "a batch too large": (["train", "--batch-size", "41"], "batch_size must not be above the 40 pictures"),
    "float16 on a CPU": (["train", "--precision", "float16", "--batch-size", "8"], "float16 needs a CUDA GPU"),
    "a search that cannot be": (["find-lr", "--batch-size", "41"], "batch_size must not be above the 40 pictures"),
    "a typo of find-lr": (["find-lr", "--optimiser", "adam"], "did you mean --optimizer?"),
    "an unknown device": (["train", "--device", "gpu"], "invalid choice: 'gpu'"),
    "no such run": (["resume", "nowhere"], "There is no run in nowhere"),
    "no such checkpoint": (["classify", "nowhere", "x.png"], "There is no checkpoint in nowhere"),
    "no such checkpoint either": (["classify", "/no/where", "x.png"], "There is no checkpoint in /no/where"),
    "a folder that is no run": (["resume", "."], "There is no run in ."),
    "a run too long to be": (["resume", "a" * 300], "There is no run in aaa"),
    "a checkpoint too long to be": (["classify", "a" * 300, "x.png"], "There is no checkpoint in aaa"),
    "a place too long to be": (["train", *TRAIN, "--checkpoints", "a" * 300], "cannot be written: file name too long"),
    "a preview too short": (
        ["preview-lr", "--scheduler", "onecycle", "--scheduler-unit", "epoch", "--epochs", "1"],
        "onecycle",
    ),
    "a preview of more than there is": (
        ["preview-lr", "--num-images", "1000000000"],
        "num_images must not be above the 50,000 pictures",
    ),
    "a preview of no batch": (
        ["preview-lr", "--num-images", "10", "--drop-last", "--scheduler", "step"],
        "batch_size must not be above the 10 pictures",
    ),
    "an abbreviation": (["train", "--optim", "adam"], "there is no option --optim; did you mean --optimizer?"),
    "a typo": (["train", "--momentun=0.9"], "there is no option --momentun; did you mean --momentum?"),
    "a typo of resume": (
        ["resume", "x", "--epoch", "3"],
        "trainer resume: there is no option --epoch; did you mean --epochs?",
    ),
    "a typo of classify": (["classify", "x", "y", "--jsn"], "there is no option --jsn; did you mean --json?"),
    "an unknown flag": (["train", "--xyzzy", "1"], "there is no option --xyzzy\n"),
    "no command": ([], "required: COMMAND"),
    "an unknown command": (["trian"], "invalid choice: 'trian'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_exit_2(case, image_folder, tmp_path, capsys, monkeypatch):
    """Nothing on stdout, one line on stderr, no folder made."""
    arguments, sentence = MISTAKES[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPTIMIZER_LAB_DATA", str(image_folder))
    try:
        status = main(arguments)
    except SystemExit as left:
        status = left.code
    shown = capsys.readouterr()
    assert status == 2
    assert shown.out == ""
    assert sentence in assert_one_line(shown.err)
    assert list(tmp_path.iterdir()) == []


def test_data_in_a_place_that_no_run_could_tell(image_folder, at, tmp_path, capsys):
    """Refused before anything is trained, for nothing of it could be saved."""
    folder = shutil.copytree(image_folder, tmp_path / os.fsdecode(b"caf\xe9"))
    assert main(["train", *TRAIN, *at, "--data", str(folder)]) == 2
    assert "path is not UTF-8" in assert_one_line(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("refusal", [ValueError("There is no memory for it."), KeyboardInterrupt()])
def test_a_training_that_never_began_leaves_no_folder(refusal, at, tmp_path, monkeypatch, capsys):
    """Refused, or interrupted, before the untrained network was saved."""

    def refused(*_, **__):
        raise refusal
        yield

    monkeypatch.setattr("trainer.cli.train.train", refused)
    assert main(["train", *TRAIN, *at]) in (2, 130)
    assert_one_line(capsys.readouterr().err.partition("images.\n")[2])
    assert list(tmp_path.iterdir()) == []


def test_a_taken_name_is_refused(finished, image_folder, capsys):
    """A run is never written over."""
    before = without_time(finished)
    at = ["--data", str(image_folder), "--checkpoints", str(finished.parent), "--run", "run"]
    assert main(["train", *TRAIN, *at]) == 2
    assert "There is a run in" in assert_one_line(capsys.readouterr().err)
    assert without_time(finished) == before


def test_runs_go_where_the_environment_says(image_folder, tmp_path, monkeypatch, capsys):
    """OPTIMIZER_LAB_CHECKPOINTS, and a name of the settings and the time."""
    monkeypatch.setenv("OPTIMIZER_LAB_CHECKPOINTS", str(tmp_path / "kept"))
    monkeypatch.setenv("OPTIMIZER_LAB_DATA", str(image_folder))
    assert main(["train", "--epochs", "1", "--batch-size", "40", "--scheduler", "constant"]) == 0
    (folder,) = (tmp_path / "kept").iterdir()
    assert re.fullmatch(r"sgd-constant-\d{8}-\d{6}-\d+", folder.name)
    assert read_checkpoint(folder).epoch == 1


# --- going on


def test_resume_to_more_epochs(finished, at, tmp_path, capsys):
    """--epochs is the new total; the same data are found again without --data; the result is that of a longer run."""
    folder = shutil.copytree(finished, tmp_path / "shorter")
    assert main(["resume", str(folder), "--epochs", "3", "--json"]) == 0
    rows = [strict(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["epoch"] for row in rows if row["event"] == "epoch"] == [3]
    assert rows[-1]["checkpoint"] == str(folder)
    assert main(["train", *TRAIN[2:], "--epochs", "3", *at]) == 0
    assert without_time(folder) == without_time(tmp_path / "run")


def test_resume_of_a_complete_run(finished, capsys):
    """Nothing left to do is the user's to hear, not a success."""
    assert main(["resume", str(finished)]) == 2
    assert "has trained 2 epochs already" in assert_one_line(capsys.readouterr().err)


def test_resume_with_chosen_settings(finished, tmp_path, capsys):
    """A continuation notes what was chosen."""
    folder = shutil.copytree(finished, tmp_path / "run")
    assert main(["resume", str(folder), "--epochs", "3", "--scheduler", "constant", "--lr", "0.001"]) == 0
    last = read_checkpoint(folder).history[-1]
    assert (last.continued_with, last.lr) == ({"scheduler": "constant", "lr": 0.001}, 0.001)


def test_resume_does_not_change_what_makes_it_the_same_run(finished, capsys):
    """The network, the images and their order are no options of resume."""
    for flag in ("--seed", "--batch-size", "--model", "--num-images"):
        with pytest.raises(SystemExit) as left:
            main(["resume", str(finished), flag, "3"])
        assert left.value.code == 2
        error = assert_one_line(capsys.readouterr().err)
        assert f"there is no option {flag}" in error
        assert f"did you mean {flag}" not in error


def test_resume_refuses_other_data(finished, image_folder, tmp_path, capsys):
    """By the digest of the pixels: one picture moved to another class is other data."""
    other = shutil.copytree(image_folder, tmp_path / "drawn")
    picture = next((other / "train").glob("*/*.png"))
    target = next(folder for folder in (other / "train").iterdir() if folder != picture.parent)
    picture.rename(target / "moved.png")
    before = without_time(finished)
    assert main(["resume", str(finished), "--epochs", "3", "--data", str(other)]) == 2
    error = capsys.readouterr().err
    assert "trained on other pictures" in error
    assert "Traceback" not in error
    assert without_time(finished) == before


def test_resume_of_what_was_trained_on_a_folder_that_cannot_be(finished, tmp_path, capsys):
    """As a stranger's file may tell it, which names where its pictures are: not here, in one sentence."""
    folder = shutil.copytree(finished, tmp_path / "run")
    told = json.loads((folder / "training.json").read_text())
    told["data"]["source"] = "/" + "a" * 300
    (folder / "training.json").write_text(json.dumps(told))
    assert main(["resume", str(folder), "--epochs", "3"]) == 2
    assert "trained on other pictures" in capsys.readouterr().err


def test_resume_leaves_a_folder_that_is_no_run_as_it_was(tmp_path):
    """Not even the lock that a run has."""
    assert main(["resume", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []


def test_resume_while_another_writes(finished, tmp_path, capsys):
    """A second command on the same run is told."""
    folder = shutil.copytree(finished, tmp_path / "run")
    with run_folder.writing(folder):
        assert main(["resume", str(folder), "--epochs", "3"]) == 2
    assert "being trained in another tab or command" in assert_one_line(capsys.readouterr().err)


# --- classify and preview-lr


@pytest.fixture
def pictures(image_folder):
    return sorted(map(str, (image_folder / "test").glob("*/*.png")))[:2]


def test_classify_with_one_bad_picture(finished, pictures, tmp_path, capsys):
    """The good ones are classified, the bad one is named on stderr, and the exit code says so."""
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    assert main(["classify", str(finished), pictures[0], str(bad), pictures[1], "--json"]) == 2
    shown = capsys.readouterr()
    rows = [strict(line) for line in shown.out.splitlines()]
    assert [row["image"] for row in rows] == pictures
    for row in rows:
        assert row.keys() == {"image", "label", "confidences"}
        assert len(row["confidences"]) == 3
        assert sum(row["confidences"].values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(row["confidences"], key=row["confidences"].get)
    assert str(bad) in assert_one_line(shown.err)
    assert main(["classify", str(finished), *pictures, "--json"]) == 0


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_classify_pictures_whose_names_the_terminal_cannot_show(
    encoding, finished, pictures, tmp_path, command_line, monkeypatch
):
    """They are shown as well as can be, and the others are classified all the same; what is JSON stays JSON."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    names = [os.fsdecode(name) for name in (b"caf\xe9.png", "café.png".encode(), b"cat.png")]
    for name in names:
        shutil.copy(pictures[0], tmp_path / name)
    places = [str(tmp_path / name) for name in names]
    shown = command_line("classify", finished, *places)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [line for line in shown.stdout.splitlines() if line.endswith(".png")] == [
        place.encode(encoding, "backslashreplace").decode(encoding) for place in places
    ]
    shown = command_line("classify", finished, *places, "--json")
    assert [strict(line)["image"] for line in shown.stdout.splitlines()] == places


def test_classify_in_words(finished, pictures, capsys):
    """The likeliest first, as many as asked for."""
    assert main(["classify", str(finished), *pictures, "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::3] == pictures
    assert all(re.fullmatch(r" +\d+\.\d\d%  \w+", line) for place, line in enumerate(lines) if place % 3)
    assert main(["classify", str(finished), *pictures, "--top", "0"]) == 2


def test_preview_lr(capsys):
    """The lr of each step, in strict JSON and in columns; CIFAR-10's numbers where no data are named."""
    flags = ["preview-lr", "--scheduler", "step", "--step-size", "1", "--gamma", "0.5", "--lr", "1", "--epochs", "2"]
    assert main([*flags, "--num-images", "128", "--json"]) == 0
    rows = [strict(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [{"step": step, "lr": 1.0 if step <= 2 else 0.5} for step in (1, 2, 3, 4)]
    assert main([*flags, "--num-images", "128"]) == 0
    assert capsys.readouterr().out == "1\t1\n2\t1\n3\t0.5\n4\t0.5\n"
    assert main([*flags, "--batch-size", "50000"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


FIND = ("find-lr", "--batch-size", "40", "--scheduler", "constant")


@pytest.fixture
def short_ramp(monkeypatch):
    """A search of a hundred steps."""
    monkeypatch.setattr(lr_finder, "_MOST_STEPS", 100)


def test_find_lr_in_rows(image_folder, tmp_path, monkeypatch, capsys, short_ramp):
    """Trials with a rising lr, then the suggestion; strict JSON; no run is left behind."""
    monkeypatch.chdir(tmp_path)
    assert main([*FIND, "--data", str(image_folder), "--json"]) == 0
    *trials, last = [strict(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["event"] for row in trials} == {"trial"}
    assert all(row.keys() == {"event", "step", "num_steps", "lr", "loss", "smoothed"} for row in trials)
    assert [row["lr"] for row in trials] == sorted({row["lr"] for row in trials})
    assert last.keys() == {"event", "suggestion", "diverges_at", "reason"}
    assert last["event"] == "suggestion"
    assert list(tmp_path.iterdir()) == []


def test_find_lr_in_words(image_folder, capsys, short_ramp):
    """A short table, and the suggestion, or that there is none, with its reason."""
    assert main([*FIND, "--data", str(image_folder), "--weight-decay", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["lr", "loss", "smoothed"]
    assert 5 < len(lines) < 30
    assert lines[-1].startswith("Suggested lr: none. The loss never fell")


# --- processes of their own


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


LONG = ("--epochs", "40", "--batch-size", "1", "--scheduler", "constant", "--lr", "0.001", "--json")


def read_until(process, epoch):
    """Reads the rows of a run until an epoch's checkpoint is on disk: it is in the middle of the next one then."""
    for line in process.stdout:
        row = strict(line)
        if (row["event"], row.get("epoch")) == ("checkpoint", epoch):
            return
    raise AssertionError(process.stderr.read())


@pytest.fixture(scope="module")
def forty(image_folder, tmp_path_factory):
    """A function that resumes a run to a number of epochs and says whether it is what an uninterrupted one would be."""

    def is_exact(folder, epochs):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main(["resume", str(folder), "--epochs", str(epochs)]) == 0
            where = tmp_path_factory.mktemp("whole")
            whole = ("--checkpoints", str(where), "--run", "run", "--epochs", str(epochs))
            assert main(["train", *LONG[2:], "--data", str(image_folder), *whole]) == 0
        return without_time(folder) == without_time(where / "run")

    return is_exact


@pytest.mark.slow
def test_kill_in_the_middle_of_an_epoch(at, tmp_path, forty):
    """kill -9: the run reads as interrupted, keeps its last epoch, and goes on as if nothing had happened."""
    process = start("train", *LONG, *at)
    read_until(process, 2)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    run = read_run(tmp_path / "run")
    assert run.status == "interrupted"
    assert 2 <= run.epoch < 40
    assert forty(tmp_path / "run", run.epoch + 1)


@pytest.mark.slow
def test_interrupt_keeps_the_run(at, tmp_path, forty):
    """Ctrl-C: exit 130, the last row says `stopped`, and the run goes on exactly."""
    process = start("train", *LONG, *at)
    read_until(process, 1)
    process.send_signal(signal.SIGINT)
    rest, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    rows = [strict(line) for line in rest.splitlines()]
    assert (rows[-1]["event"], rows[-1]["reason"]) == ("finished", "stopped")
    run = read_run(tmp_path / "run")
    assert run.status == "stopped"
    assert 1 <= run.epoch < 40
    assert forty(tmp_path / "run", run.epoch + 1)


@pytest.mark.slow
def test_interrupt_ends_a_search(image_folder):
    """Ctrl-C: exit 130, one word on stderr beside what the images are."""
    process = start(*FIND, "--data", image_folder, "--zero-grad-every", "100", "--epochs", "100", "--json")
    assert strict(process.stdout.readline())["event"] == "trial"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "interrupted"
    assert "Traceback" not in error


@pytest.mark.slow
def test_a_reader_that_has_seen_enough(at):
    """`| head -1`: not a word on stderr but what the images are, and no failure."""
    process = start("train", *LONG, *at)
    assert strict(process.stdout.readline())["event"] == "epoch"
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(timeout=60) == 0
    process.stderr.close()
    assert "Error" not in error
    assert error.count("\n") == 1


def test_exit_codes_of_the_process(command_line):
    """`python -m trainer` hands main's status on: a mistake is 2, with one line on stderr."""
    done = command_line("train", "--lr", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: lr must be")
    assert_one_line(done.stderr)
