"""Runs to look into: each trained once for a module, and copied for tests that change them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.images.image_data import facts
from trainer.learning.loop import train
from trainer.runs import run_folder
from trainer.runs.recorder import record
from trainer.runs.run import Run


@pytest.fixture(scope="module")
def record_once(tiny, tmp_path_factory) -> Callable:
    """A function that trains on the tiny images and records the run: record_once(config) -> folder."""

    def record_run(config):
        folder = tmp_path_factory.mktemp("runs") / "run"
        with run_folder.writing(folder):
            list(record(train(config, tiny), Run(config=config), folder, facts(tiny)))
        return folder

    return record_run


@pytest.fixture
def folder(trained_once, tmp_path) -> Path:
    """A copy of the module's run."""
    return shutil.copytree(trained_once, tmp_path / "run")
