"""Shared fixtures: the environment of the test session, small image sets, trained runs and the command line."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from waits import without_waits

# Set before huggingface_hub is imported, because it reads HF_HOME only once. Child processes inherit the environment.
_HOME = tempfile.mkdtemp(prefix="optimizer-lab-tests-")
os.environ["HF_HOME"] = _HOME
# The Hub of the tests (fake_hub.py) implements plain HTTP, not Xet, and must never receive a real token.
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ.pop("HF_TOKEN", None)
# Saved under another name for the workers of pytest-xdist, which inherit this process's environment.
_REAL_DATA = os.environ.setdefault("OPTIMIZER_LAB_REAL_DATA", os.environ.get("OPTIMIZER_LAB_DATA", ""))
os.environ["OPTIMIZER_LAB_DATA"] = "synthetic"
os.environ["OPTIMIZER_LAB_DEVICE"] = "cpu"
os.environ.pop("OPTIMIZER_LAB_CHECKPOINTS", None)
# By default torch's threads spin while they wait, which makes steps this small fifty times slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Most networks here are so small that a second thread slows them down.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell starts what runs in the background without Ctrl-C, and the programs that the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parents[1]


def pytest_collection_modifyitems(items):
    """Marks tests as e2e, real or slow by their folder and fixtures, and runs the browser tests last.

    Playwright leaves an event loop running in this thread, so a later test could not start its own.
    """
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker("e2e")
        if "real_images" in item.fixturenames:
            item.add_marker("real")
        if {"command_line", "hub"} & set(item.fixturenames) and not item.get_closest_marker("quick"):
            item.add_marker("slow")
    items.sort(key=lambda item: "e2e" in item.path.parts)


def pytest_unconfigure():
    shutil.rmtree(_HOME, ignore_errors=True)


def _failed_in_ci(report):
    """Returns the report; if CI=true a skip becomes a failure, so that a missing browser does not look like success."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, which CI=true does not allow. {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _failed_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _failed_in_ci((yield))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    """Hides the caller's settings from every test; only `real_images` uses them."""
    monkeypatch.setenv("OPTIMIZER_LAB_DATA", "synthetic")
    monkeypatch.setenv("OPTIMIZER_LAB_DEVICE", "cpu")
    monkeypatch.delenv("OPTIMIZER_LAB_CHECKPOINTS", raising=False)


@pytest.fixture(scope="session", autouse=True)
def _keep_freed_memory():
    from trainer.learning.device import keep_freed_memory

    keep_freed_memory()  # as in every process that trains


@pytest.fixture(scope="module")
def all_threads():
    """Gives torch all cores, for tests whose last digits depend on the number of threads."""
    import torch

    torch.set_num_threads(os.cpu_count())
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def images():
    """512 synthetic training pictures and 200 test pictures; an epoch takes well under a second."""
    from trainer.images.image_data import load_images, subset

    data = load_images("synthetic")
    return replace(data, train=subset(data.train, 512), test=subset(data.test, 200), digest="512/200")


@pytest.fixture(scope="session")
def tiny(images):
    """26 training pictures and 20 test pictures of 8×8 pixels; an epoch takes a few milliseconds."""
    from trainer.images.image_data import Split

    def small(split, count):
        pixels = split.images[:count, :, 4:28:3, 4:28:3].contiguous(memory_format=_channels_last())
        return Split(images=pixels, labels=split.labels[:count].clone())

    return replace(images, train=small(images.train, 26), test=small(images.test, 20), digest="26/20")


def _channels_last():
    import torch

    return torch.channels_last


@pytest.fixture(scope="session")
def image_folder(images, tmp_path_factory) -> Path:
    """A folder of 40 training and 20 test pictures in the layout that --data expects."""
    from torchvision.io import write_png

    folder = tmp_path_factory.mktemp("pictures") / "drawn"
    for split, count in (("train", 40), ("test", 20)):
        pictures = getattr(images, split)
        for index in range(count):
            name = images.class_names[int(pictures.labels[index]) % 3]
            path = folder / split / name / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(pictures.images[index].contiguous(), str(path))
    return folder


@pytest.fixture(scope="session")
def real_images():
    """CIFAR-10 from the folder that OPTIMIZER_LAB_DATA names; skips the test if there is none."""
    from trainer.images.image_data import load_images

    if not Path(_REAL_DATA or "-").is_dir():
        pytest.skip("set OPTIMIZER_LAB_DATA to a copy of CIFAR-10")
    return load_images(_REAL_DATA)


@pytest.fixture
def trained(tmp_path) -> Callable:
    """A function that trains and records a run as the command line does: trained(config, data, …) -> (folder, Run)."""
    from trainer.images.image_data import facts
    from trainer.learning.checkpoint import resumed
    from trainer.learning.loop import train
    from trainer.runs import run_folder
    from trainer.runs.recorder import record
    from trainer.runs.run import Run

    def run_in_folder(config, data, *, folder=None, resume=None, until=None, keeps_all=False):
        """Stops as soon as `until` epochs are on disk."""
        folder = folder or tmp_path / "run"
        run = resumed(resume) if resume else Run(config=config)
        stop = (lambda: run.epoch >= until) if until is not None else (lambda: False)
        with run_folder.writing(folder):
            events = train(config, data, resume=resume)
            for _ in record(events, run, folder, facts(data), resume=resume, keeps_all=keeps_all, stop=stop):
                pass
        return folder, run

    return run_in_folder


@pytest.fixture
def small_run(tiny, trained) -> Path:
    """The folder of a one-epoch run on `tiny`."""
    from trainer.settings.config import TrainConfig

    return trained(TrainConfig(epochs=1, batch_size=13, scheduler="constant"), tiny)[0]


@pytest.fixture
def hub_with_run(small_run, tmp_path, monkeypatch) -> Iterator:
    """A Hub for this process that holds `small_run` as owner/run; the app's caches are empty before and after."""
    from fake_hub import Hub, Repo, point_to, serve

    from ui.parts.run import checkpoints

    def clear_caches():
        checkpoints._open.cache_clear()
        checkpoints._run.cache_clear()

    clear_caches()
    with serve(Hub(repos={"owner/run": Repo.of(small_run)})) as served:
        point_to(served.endpoint, monkeypatch, tmp_path / "cache")
        yield served
    clear_caches()


@pytest.fixture
def command_line() -> Callable:
    """A function that runs `python -m trainer …` in a new process and returns the CompletedProcess."""

    def run(*arguments, **options) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [sys.executable, "-m", "trainer", *map(str, arguments)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=600,
            **options,
        )
        done.stderr = without_waits(done.stderr)
        return done

    return run
