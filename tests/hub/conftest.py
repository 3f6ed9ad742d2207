"""Runs, a Hub to publish them on, and a check after each test that no token has leaked."""

import logging
import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from fake_hub import OWNER, READER, STRANGER, Hub, Repo, point_to, serve
from huggingface_hub.utils import http_backoff

from trainer.hub import retry
from trainer.hub.publish import publish
from trainer.images.image_data import facts
from trainer.learning.loop import train
from trainer.runs import run_folder
from trainer.runs.recorder import record
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig

ID = "owner/run"
CONFIG = TrainConfig(epochs=3, batch_size=13, optimizer="adam", scheduler="constant")


def pytest_collection_modifyitems(items):
    """Ignores the deprecated argument with which the Hub's client hands an upload to its HTTP library."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"))


def trained_for(epochs, data, folder) -> Path:
    run = Run(config=replace(CONFIG, epochs=epochs))
    with run_folder.writing(folder):
        for _ in record(train(run.config, data), run, folder, facts(data)):
            pass
    return folder


@pytest.fixture(scope="session")
def three_epochs(tiny, tmp_path_factory) -> Path:
    """A run of three epochs; do not change it."""
    return trained_for(3, tiny, tmp_path_factory.mktemp("three") / "run")


@pytest.fixture(scope="session")
def one_epoch(tiny, tmp_path_factory) -> Path:
    """A run of one epoch, for tests that publish often; do not change it."""
    return trained_for(1, tiny, tmp_path_factory.mktemp("one") / "run")


@pytest.fixture
def run(three_epochs, tmp_path) -> Path:
    """A copy of the run of three epochs."""
    return shutil.copytree(three_epochs, tmp_path / "run")


@pytest.fixture(scope="session")
def publication(three_epochs) -> Repo:
    """The repo of the published run of three epochs; do not change it."""
    with serve(Hub()) as served, pytest.MonkeyPatch.context() as patch:
        point_to(served.endpoint, patch)
        publish(three_epochs, ID, token=OWNER)
    return served.repos[ID]


@pytest.fixture
def short_waits(monkeypatch):
    """Short waits before each retry, of this app's and of the Hub's client."""
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(retry, "RETRY_SECONDS", 0.1)
    for name in ("base_wait_time", "max_wait_time"):
        monkeypatch.setitem(http_backoff.__kwdefaults__, name, 0.01)


@pytest.fixture
def hub(short_waits, tmp_path, monkeypatch) -> Iterator[Hub]:
    """An empty Hub, with a cache of its own."""
    with serve(Hub()) as served:
        point_to(served.endpoint, monkeypatch, tmp_path / "cache")
        yield served


@pytest.fixture
def long_retries(hub, monkeypatch):
    """Transient errors are retried for the usual time: on a busy machine a single answer can take a while."""
    monkeypatch.setattr(retry, "RETRY_SECONDS", 20.0)


@pytest.fixture
def published(hub, publication) -> Repo:
    """The repo of the published run of three epochs, on the Hub."""
    hub.repos[ID] = deepcopy(publication)
    return hub.repos[ID]


@pytest.fixture(autouse=True)
def _no_token_anywhere(request, tmp_path, capfd, caplog):
    """Checks after each test that no token is in the output, the log, a URL or a file."""
    caplog.set_level(logging.DEBUG, logger="huggingface_hub")
    yield
    output = "".join(capfd.readouterr()) + caplog.text
    if "hub" in request.node.funcargs:
        output += "".join(request.node.funcargs["hub"].urls)
    assert "hf_" not in output.replace("hf_hub", "").replace("hf_xet", "")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(token.encode() in content for token in (OWNER, READER, STRANGER)), path
