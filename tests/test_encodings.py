"""Text files are UTF-8, whatever the system's own encoding: as on a Windows whose code page is Western or Chinese."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# Runs the command line and builds the page. In our own code, opening text without an encoding is an error; libraries
# that ask for the system's encoding get one that cannot hold most of what the app reads.
PROGRAM = """
import locale, os, pathlib, sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module=r"(app|trainer|ui)\\b")
locale.getpreferredencoding = lambda do_setlocale=True: "ascii"
locale.getencoding = lambda: "ascii"

from trainer.cli.main import main
here, run = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[1], "run")
small = ["--epochs", "1", "--num-images", "64", "--batch-size", "16", "--scheduler", "constant", "--data", "synthetic"]
for command in (
    ["train", *small, "--checkpoints", run.parent, "--run", run.name],
    ["resume", run, "--epochs", "2"],
    ["export", run, "--tensorboard", here / "logs"],
    ["mistakes", run, "--data", "synthetic", "--output", here / "mistakes.html"],
    ["landscape", run, "--grid", "3", "--images", "20", "--data", "synthetic", "--output", here / "landscape.svg"],
    ["sweep", *small, "--vary", "seed=0,1", "--checkpoints", here, "--run", "sweep"],
    ["lessons"],
):
    assert main([str(word) for word in command]) == 0, command

import app, torch
from ui.lab import Lab
from ui.page import build_page
build_page(Lab(checkpoints=here, device=torch.device("cpu"), run=None))
print("done", flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_text_is_utf8_whatever_the_locale(tmp_path):
    """The command line and the app's page, where files and the terminal are ASCII unless something else is given."""
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", PROGRAM, str(tmp_path)],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONIOENCODING": "ascii",
            "OPTIMIZER_LAB_DATA": "synthetic",
        },
        capture_output=True,
        encoding="ascii",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done"
    for file in ("mistakes.html", "landscape.svg", "sweep/results.csv", "run/training.json"):
        assert (tmp_path / file).read_text(encoding="utf-8")
