"""The command line: exit status, output, errors in one line, and runs that survive the end of their process."""

import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest
from image_sets import noise, png, write_image_folder
from waits import without_waits

from trainer.cli import options
from trainer.cli.main import main
from trainer.errors import UserError
from trainer.learning import lr_finder
from trainer.runs import run_folder
from trainer.runs.reader import read_checkpoint, read_run
from trainer.settings.config import SETTINGS
from trainer.settings.presets import PRESETS

TRAIN = ("--epochs", "2", "--batch-size", "8", "--scheduler", "constant")


def strict(line):
    """Parses a row as strict JSON, without NaN and Infinity."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


def without_time(path):
    content = json.loads((path / "training.json").read_text())
    for row in content["history"]:
        row.pop("seconds"), row.pop("images_per_second")
    return content, {file.name: file.read_bytes() for file in path.rglob("*.safetensors")}


@pytest.fixture
def at(image_folder, tmp_path):
    """The arguments that name the data and the run's folder."""
    return ("--data", str(image_folder), "--checkpoints", str(tmp_path), "--run", "run")


@pytest.fixture(scope="module")
def finished(image_folder, tmp_path_factory):
    """A run of two epochs, as the command line left it; do not change it."""
    parent = tmp_path_factory.mktemp("finished")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(["train", *TRAIN, "--data", str(image_folder), "--checkpoints", str(parent), "--run", "run"]) == 0
    return parent / "run"


def assert_one_line(text):
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert len(text) < 700
    assert "Traceback" not in text
    return text


def test_json_rows(at, tmp_path, capsys):
    """Each line is one strict JSON object; the last is `finished` and names the folder."""
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
    """Losses that are NaN become null, and `finished` gives the reason."""
    assert main(["train", *TRAIN, *at, "--lr", "1e10", "--json"]) == 0
    rows = [strict(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[-1]["reason"] == "diverged"
    assert rows[-1]["advice"]
    assert any(row["event"] == "step" and row["loss"] is None for row in rows)


def test_a_table(at, tmp_path, capsys):
    """Without --json, stdout has the folder, a row for each epoch and the next command; stderr describes the images."""
    assert main(["train", *TRAIN, *at]) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert lines[0] == f"The run is kept in {tmp_path / 'run'}"
    header = lines.index(next(line for line in lines if line.startswith("epoch")))
    rows = [line.split() for line in lines[header + 1 : header + 4]]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert [len(row) for row in rows] == [4, 7, 7]
    assert all(re.fullmatch(r"\d+\.\d\d%", row[2 if len(row) == 4 else 3]) for row in rows)
    assert lines[-1].startswith("Done: ")
    assert f"classify {tmp_path / 'run'}" in lines[-1]
    assert re.search(r"Accuracy of each class: ([\w ]+ \d+%, ){2}[\w ]+ \d+%\. Try it", lines[-1])
    assert "drawn" in output.err


def test_unequal_classes_are_pointed_out(tmp_path, capsys):
    """Before the training, as on the page."""
    few, many = ([png(picture) for picture in noise(num)] for num in (2, 18))
    folder = write_image_folder(tmp_path / "set", {"cat": few, "dog": many})
    short = ["--epochs", "1", "--batch-size", "4", "--scheduler", "constant", "--checkpoints", str(tmp_path)]
    assert main(["train", *short, "--data", str(folder)]) == 0
    assert "The largest class has 94% of the pictures" in capsys.readouterr().err


def test_settings_reach_the_run(at, tmp_path, capsys):
    """Flags take numbers, switches, pairs and lists."""
    optimizer = ["--optimizer", "adam", "--betas", "0.8", "0.9", "--amsgrad"]
    scheduler = ["--scheduler", "multistep", "--milestones", "1,3"]
    assert (
        main(["train", *optimizer, *scheduler, "--shuffle", "false", "--epochs", "1", "--batch-size", "20", *at]) == 0
    )
    config = read_checkpoint(tmp_path / "run").config
    assert (config.optimizer, config.betas, config.amsgrad) == ("adam", (0.8, 0.9), True)
    assert (config.milestones, config.shuffle, config.batch_size) == ((1, 3), False, 20)


def test_the_flag_of_earlier_versions(at, tmp_path, capsys):
    """--augment false turns flip off and shift to 0, also in a preset's settings."""
    assert main(["train", "--preset", "thorough", "--augment", "false", "--epochs", "1", "--batch-size", "4", *at]) == 0
    config = read_checkpoint(tmp_path / "run").config
    assert (config.flip, config.shift) == (False, 0)


def test_flip_is_off_for_left_and_right(image_folder, tmp_path, capsys):
    """Unless it was chosen; the command says so."""
    folder = tmp_path / "sides"
    for name in ("left", "right"):
        shutil.copytree(image_folder / "train" / "circle", folder / name)
    for flags, expected in (([], False), (["--flip", "true"], True)):
        options = ["--data", folder, "--checkpoints", tmp_path, "--run", str(expected), "--epochs", "1"]
        assert main(["train", "--batch-size", "2", *flags, *map(str, options)]) == 0
        assert read_checkpoint(tmp_path / str(expected)).config.flip is expected
        assert ("flip is off" in capsys.readouterr().err) is not expected


def test_a_preset_is_a_start(at, tmp_path, capsys):
    """Flags change its settings."""
    assert main(["train", "--preset", "thorough", "--epochs", "1", "--batch-size", "4", *at]) == 0
    config = read_checkpoint(tmp_path / "run").config
    assert config == PRESETS["thorough"].changed({"epochs": 1, "batch_size": 4})


def test_every_setting_is_a_flag(capsys):
    """--help lists each field of TrainConfig with its help."""
    with pytest.raises(SystemExit) as exit_info:
        main(["train", "--help"])
    assert exit_info.value.code == 0
    output = re.sub(r"\s+", " ", capsys.readouterr().out)
    for name, declared in SETTINGS.items():
        assert f"--{name.replace('_', '-')} " in output
        assert re.sub(r"\s+", " ", declared.help) in output


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
    "no such user": (["train", "--data", "~nosuchuser/x"], "There is no folder '~nosuchuser/x'"),
    "a device that is too long": (["train", "--device", "a" * 5000], "choose from"),
    "a run too long to draw": (["landscape", "a" * 5000], "There is no such run"),
    "a run too long to measure": (["sharpness", "a/" * 2500], "There is no such run"),
    "a report in no folder": (["mistakes", "nowhere", "--output", "no/where.html"], "cannot be written: no such file"),
    "a NUL byte": (["train", "--checkpoints", "a\0b"], "no file name can have: 'a\\x00b'"),
    "a lone surrogate": (["classify", "x", "\ud800"], "no file name can have: '\\ud800'"),
    "two starts": (["train", "--preset", "minute", "--lesson", "one-epoch"], "from a lesson or from a preset"),
    "an unknown device": (["train", "--device", "gpu"], "invalid choice: 'gpu'"),
    "no such run": (["resume", "nowhere"], "There is no run in nowhere"),
    "no such checkpoint": (["classify", "nowhere", "x.png"], "There is no checkpoint in nowhere"),
    "no such checkpoint either": (["classify", "/no/where", "x.png"], "There is no checkpoint in /no/where"),
    "a folder that is no run": (["resume", "."], "There is no run in ."),
    "a run too long to be": (["resume", "a" * 300], "There is no run in aaa"),
    "a checkpoint too long to be": (["classify", "a" * 300, "x.png"], "There is no checkpoint in aaa"),
    "a place too long to be": (["train", *TRAIN, "--checkpoints", "a" * 300], "cannot be written: file name too long"),
    "a line break": (["resume", "a\nb\x1b[31m"], "There is no run in a\\nb\\x1b[31m"),
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
    """Prints nothing on stdout and one line on stderr, and creates no folder."""
    arguments, sentence = MISTAKES[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPTIMIZER_LAB_DATA", str(image_folder))
    try:
        status = main(arguments)
    except SystemExit as exit_info:
        status = exit_info.code
    output = capsys.readouterr()
    assert status == 2
    assert output.out == ""
    assert sentence in assert_one_line(output.err)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_in_what_is_no_folder(tmp_path, capsys, monkeypatch):
    """Is not looked for on the Hub."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file/run", "loop/run"):
        assert main(["classify", name, "x.png"]) == 2
        assert assert_one_line(capsys.readouterr().err) == f"error: There is no checkpoint in {name}.\n"


def test_data_in_a_folder_whose_name_is_not_utf8(image_folder, at, tmp_path, capsys):
    """Is refused before training, because no file of the run could contain the path."""
    folder = shutil.copytree(image_folder, tmp_path / os.fsdecode(b"caf\xe9"))
    assert main(["train", *TRAIN, *at, "--data", str(folder)]) == 2
    assert "path is not UTF-8" in assert_one_line(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("refusal", [UserError("There is no memory for it."), KeyboardInterrupt()])
def test_a_training_without_a_first_epoch_leaves_no_folder(refusal, at, tmp_path, monkeypatch, capsys):
    """It is refused, or interrupted, before the untrained network is saved."""

    def refused(*_, **__):
        raise refusal
        yield

    monkeypatch.setattr("trainer.cli.commands.train.train", refused)
    assert main(["train", *TRAIN, *at]) in (2, 130)
    assert_one_line(capsys.readouterr().err.partition("images.\n")[2])
    assert list(tmp_path.iterdir()) == []


def test_a_taken_name_is_refused(finished, image_folder, capsys):
    """An existing run is never overwritten."""
    before = without_time(finished)
    at = ["--data", str(image_folder), "--checkpoints", str(finished.parent), "--run", "run"]
    assert main(["train", *TRAIN, *at]) == 2
    assert "There is a run in" in assert_one_line(capsys.readouterr().err)
    assert without_time(finished) == before


def test_the_folder_of_runs_comes_from_the_environment(image_folder, tmp_path, monkeypatch, capsys):
    """Uses OPTIMIZER_LAB_CHECKPOINTS, and a name made of the settings and the time."""
    monkeypatch.setenv("OPTIMIZER_LAB_CHECKPOINTS", str(tmp_path / "kept"))
    monkeypatch.setenv("OPTIMIZER_LAB_DATA", str(image_folder))
    assert main(["train", "--epochs", "1", "--batch-size", "40", "--scheduler", "constant"]) == 0
    (folder,) = (tmp_path / "kept").iterdir()
    assert re.fullmatch(r"sgd-constant-\d{8}-\d{6}-\d+", folder.name)
    assert read_checkpoint(folder).epoch == 1


# --- resume


def test_resume_to_more_epochs(finished, at, tmp_path, capsys):
    """--epochs is the new total, the data are found without --data, and the result equals one longer run."""
    folder = shutil.copytree(finished, tmp_path / "shorter")
    assert main(["resume", str(folder), "--epochs", "3", "--json"]) == 0
    rows = [strict(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["epoch"] for row in rows if row["event"] == "epoch"] == [3]
    assert rows[-1]["checkpoint"] == str(folder)
    assert main(["train", *TRAIN[2:], "--epochs", "3", *at]) == 0
    assert without_time(folder) == without_time(tmp_path / "run")


def test_another_number_of_threads_is_noticed(finished, tmp_path, capsys):
    """A resume says that its results may differ from an uninterrupted run's; with the same number it says nothing."""
    folder = shutil.copytree(finished, tmp_path / "run")
    assert main(["resume", str(folder), "--epochs", "3"]) == 0
    assert "threads" not in capsys.readouterr().err
    content = json.loads((folder / "training.json").read_text())
    threads = content["state"]["threads"]
    content["state"]["threads"] = threads + 1
    (folder / "training.json").write_text(json.dumps(content))
    assert main(["resume", str(folder), "--epochs", "4"]) == 0
    notice = f"This run was trained with {threads + 1} threads before and goes on with {threads}:"
    assert capsys.readouterr().err.count(notice) == 1
    assert read_checkpoint(folder).threads == threads


def test_resume_of_a_complete_run(finished, capsys):
    """Fails, because there is nothing left to train."""
    assert main(["resume", str(finished)]) == 2
    assert "has trained 2 epochs already" in assert_one_line(capsys.readouterr().err)


def test_resume_with_chosen_settings(finished, tmp_path, capsys):
    """The history records the new settings."""
    folder = shutil.copytree(finished, tmp_path / "run")
    assert main(["resume", str(folder), "--epochs", "3", "--scheduler", "constant", "--lr", "0.001"]) == 0
    last = read_checkpoint(folder).history[-1]
    assert (last.continued_with, last.lr) == ({"scheduler": "constant", "lr": 0.001}, 0.001)


def test_resume_cannot_change_network_or_data(finished, capsys):
    """The flags for the network, the images and their order do not exist."""
    for flag in ("--seed", "--batch-size", "--model", "--num-images"):
        with pytest.raises(SystemExit) as exit_info:
            main(["resume", str(finished), flag, "3"])
        assert exit_info.value.code == 2
        error = assert_one_line(capsys.readouterr().err)
        assert f"there is no option {flag}" in error
        assert f"did you mean {flag}" not in error


def test_resume_refuses_other_data(finished, image_folder, tmp_path, capsys):
    """Data are compared by their digest: a picture moved to another class makes other data."""
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


def test_resume_of_a_run_whose_data_path_is_impossible(finished, tmp_path, capsys):
    """A downloaded run may name any path; the error is one sentence."""
    folder = shutil.copytree(finished, tmp_path / "run")
    content = json.loads((folder / "training.json").read_text())
    content["data"]["source"] = "/" + "a" * 300
    (folder / "training.json").write_text(json.dumps(content))
    assert main(["resume", str(folder), "--epochs", "3"]) == 2
    assert "trained on other pictures" in capsys.readouterr().err


def test_resume_does_not_touch_a_folder_without_a_run(tmp_path):
    """It does not even create the lock file."""
    assert main(["resume", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_resume_of_a_run_in_training(finished, tmp_path, capsys):
    """Is refused while another command writes to the run."""
    folder = shutil.copytree(finished, tmp_path / "run")
    with run_folder.writing(folder):
        assert main(["resume", str(folder), "--epochs", "3"]) == 2
    assert "being trained in another tab or command" in assert_one_line(capsys.readouterr().err)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files.")
@pytest.mark.parametrize("output", ["fifo", "loop", "."])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(output, finished, tmp_path, capsys, monkeypatch):
    """A pipe without a reader, a loop of links and a folder are refused; a new file is accepted."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    pathlib.Path("loop").symlink_to("loop")
    monkeypatch.setattr("trainer.cli.commands.mistakes.answer", None)
    assert main(["mistakes", str(finished), "--output", output]) == 2
    assert "cannot be written: " in assert_one_line(capsys.readouterr().err)
    options.check_output(tmp_path / "new.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "loop"]


# --- classify and preview-lr


@pytest.fixture
def pictures(image_folder):
    return sorted(map(str, (image_folder / "test").glob("*/*.png")))[:2]


def test_classify_with_one_bad_picture(finished, pictures, tmp_path, capsys):
    """Classifies the good pictures, names the bad one on stderr, and exits with 2."""
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    assert main(["classify", str(finished), pictures[0], str(bad), pictures[1], "--json"]) == 2
    output = capsys.readouterr()
    rows = [strict(line) for line in output.out.splitlines()]
    assert [row["image"] for row in rows] == pictures
    for row in rows:
        assert row.keys() == {"image", "label", "confidences"}
        assert len(row["confidences"]) == 3
        assert sum(row["confidences"].values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(row["confidences"], key=row["confidences"].get)
    assert str(bad) in assert_one_line(output.err)
    assert main(["classify", str(finished), *pictures, "--json"]) == 0
    capsys.readouterr()
    assert main(["classify", str(finished), "a" * 5000]) == 2
    assert_one_line(capsys.readouterr().err)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_classify_pictures_whose_names_cannot_be_encoded(
    encoding, finished, pictures, tmp_path, command_line, monkeypatch
):
    """Prints the names with escapes, classifies every picture, and keeps JSON valid."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    names = [os.fsdecode(name) for name in (b"caf\xe9.png", "café.png".encode(), b"cat.png")]
    for name in names:
        shutil.copy(pictures[0], tmp_path / name)
    places = [str(tmp_path / name) for name in names]
    output = command_line("classify", finished, *places)
    assert (output.returncode, output.stderr) == (0, "")
    assert [line for line in output.stdout.splitlines() if line.endswith(".png")] == [
        place.encode(encoding, "backslashreplace").decode(encoding) for place in places
    ]
    output = command_line("classify", finished, *places, "--json")
    assert [strict(line)["image"] for line in output.stdout.splitlines()] == places


def test_classify_as_text(finished, pictures, capsys):
    """Prints the --top most likely classes, the most likely first."""
    assert main(["classify", str(finished), *pictures, "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::3] == pictures
    assert all(re.fullmatch(r" +\d+\.\d\d%  \w+", line) for place, line in enumerate(lines) if place % 3)
    assert main(["classify", str(finished), *pictures, "--top", "0"]) == 2


def test_preview_lr(capsys):
    """Prints the lr of each step as JSON or in columns; without --data, for CIFAR-10's number of pictures."""
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
    """Limits a search to a hundred steps."""
    monkeypatch.setattr(lr_finder, "_MOST_STEPS", 100)


@pytest.mark.slow
def test_find_lr_in_rows(image_folder, tmp_path, monkeypatch, capsys, short_ramp):
    """Prints trials with rising lr and then the suggestion as strict JSON, and creates no run."""
    monkeypatch.chdir(tmp_path)
    assert main([*FIND, "--data", str(image_folder), "--json"]) == 0
    *trials, last = [strict(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["event"] for row in trials} == {"trial"}
    assert all(row.keys() == {"event", "step", "num_steps", "lr", "loss", "smoothed"} for row in trials)
    assert [row["lr"] for row in trials] == sorted({row["lr"] for row in trials})
    assert last.keys() == {"event", "suggestion", "diverges_at", "reason"}
    assert last["event"] == "suggestion"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_find_lr_as_text(image_folder, capsys, short_ramp):
    """Prints a short table, and the suggestion or the reason why there is none."""
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
    """Reads a run's rows until an epoch's checkpoint is on disk; the run is then within the next epoch."""
    for line in process.stdout:
        row = strict(line)
        if (row["event"], row.get("epoch")) == ("checkpoint", epoch):
            return
    raise AssertionError(process.stderr.read())


@pytest.fixture(scope="module")
def resumes_exactly(image_folder, tmp_path_factory):
    """A function that resumes a run to a number of epochs and returns whether it equals an uninterrupted one."""

    def is_exact(folder, epochs):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main(["resume", str(folder), "--epochs", str(epochs)]) == 0
            parent = tmp_path_factory.mktemp("whole")
            whole = ("--checkpoints", str(parent), "--run", "run", "--epochs", str(epochs))
            assert main(["train", *LONG[2:], "--data", str(image_folder), *whole]) == 0
        return without_time(folder) == without_time(parent / "run")

    return is_exact


@pytest.mark.slow
def test_kill_in_the_middle_of_an_epoch(at, tmp_path, resumes_exactly):
    """After kill -9 the run is interrupted, keeps its last epoch, and resumes exactly."""
    process = start("train", *LONG, *at)
    read_until(process, 2)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    run = read_run(tmp_path / "run")
    assert run.status == "interrupted"
    assert 2 <= run.epoch < 40
    assert resumes_exactly(tmp_path / "run", run.epoch + 1)


@pytest.mark.slow
def test_interrupt_keeps_the_run(at, tmp_path, resumes_exactly):
    """After Ctrl-C the exit status is 130, the last row says `stopped`, and the run resumes exactly."""
    process = start("train", *LONG, *at)
    read_until(process, 1)
    process.send_signal(signal.SIGINT)
    rest, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in error
    rows = [strict(line) for line in rest.splitlines()]
    assert (rows[-1]["event"], rows[-1]["reason"]) == ("finished", "stopped")
    run = read_run(tmp_path / "run")
    assert run.status == "stopped"
    assert 1 <= run.epoch < 40
    assert resumes_exactly(tmp_path / "run", run.epoch + 1)


@pytest.mark.slow
def test_interrupt_ends_a_search(image_folder):
    """After Ctrl-C the exit status is 130, and stderr ends with `interrupted`."""
    process = start(*FIND, "--data", image_folder, "--zero-grad-every", "100", "--epochs", "100", "--json")
    assert strict(process.stdout.readline())["event"] == "trial"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "interrupted"
    assert "Traceback" not in error


@pytest.mark.slow
def test_a_closed_stdout_is_no_error(at):
    """With `| head -1`, stderr has only the description of the images, and the exit status is 0."""
    process = start("train", *LONG, *at)
    assert strict(process.stdout.readline())["event"] == "epoch"
    process.stdout.close()
    error = without_waits(process.stderr.read())
    assert process.wait(timeout=300) == 0
    process.stderr.close()
    assert "Error" not in error
    assert error.count("\n") == 1


def test_exit_codes_of_the_process(command_line):
    """The exit status of `python -m trainer` is that of `main`: 2 after a mistake, with one line on stderr."""
    done = command_line("train", "--lr", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: lr must be")
    assert_one_line(done.stderr)
