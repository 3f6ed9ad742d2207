"""Fixtures that start the app as a process and open it in a browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FAKE_WEBCAM = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")  # a moving test picture


@dataclass
class App:
    """A running app: its URL, its folder of runs, and the program and environment that start it."""

    url: str
    checkpoints: Path
    program: Path
    environment: dict[str, str]
    process: subprocess.Popen | None = None

    def start(self) -> None:
        """Starts the app and waits until it answers."""
        environment = {
            **os.environ,
            "OPTIMIZER_LAB_DATA": "synthetic",
            "OPTIMIZER_LAB_CHECKPOINTS": str(self.checkpoints),
            "GRADIO_SERVER_PORT": self.url.rpartition(":")[2],
            "OMP_WAIT_POLICY": "passive",
            "OMP_NUM_THREADS": str(os.cpu_count()),
            **self.environment,
        }
        # A process group of its own, because the workers that it forks may outlive it.
        self.process = subprocess.Popen(
            [sys.executable, str(self.program)], cwd=REPOSITORY, env=environment, start_new_session=True
        )
        end = time.monotonic() + 300
        while time.monotonic() < end:
            assert self.process.poll() is None, "the app ended before it answered"
            try:
                urllib.request.urlopen(self.url, timeout=60).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the app did not answer within five minutes")

    def restart(self) -> None:
        """Kills the app, as a crash would, and starts it again at the same URL."""
        self.process.kill()
        self.process.wait()
        self.start()


@pytest.fixture(scope="module", autouse=True)
def _same_threads_as_the_app(all_threads):
    """The tests compare the app's numbers with those of this process bit for bit."""


@contextmanager
def _launched(checkpoints: Path, program: str = "app.py", **environment: str) -> Iterator[App]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    running = App(url, checkpoints, REPOSITORY / program, environment)
    try:
        running.start()
        yield running
    finally:
        running.process.terminate()
        running.process.wait(120)
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def launched() -> Callable:
    """launched(checkpoints, program, **environment): a separate app, which runs until the with block ends."""
    return _launched


@pytest.fixture(scope="session")
def app(tmp_path_factory) -> Iterator[App]:
    """The app on the synthetic pictures, shared by the session's tests."""
    with _launched(tmp_path_factory.mktemp("checkpoints")) as running:
        yield running


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")  # the former takes a quarter less
    if chromium is None:
        pytest.skip("install chromium to run the page's tests")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-background-networking", "--disable-gpu", *FAKE_WEBCAM],
        )
        yield launched
        launched.close()


@contextmanager
def _visitor_page(browser, locale: str = "en-US"):
    # Without the recorded race's animation, which costs as much as all else that opening the page does.
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, locale=locale, reduced_motion="reduce")
    # Tests wait for conditions; on a busy machine they may take much longer than Playwright's 30 seconds.
    context.set_default_timeout(300_000)
    opened = context.new_page()
    errors = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield opened
    finally:
        context.close()
    assert errors == []


@pytest.fixture(scope="session")
def visitor_page(browser) -> Callable:
    """visitor_page(locale): the empty page of a new visitor, until the with block ends; raises if its scripts fail."""
    return partial(_visitor_page, browser)


@pytest.fixture
def new_page(visitor_page):
    """The empty page of a new visitor; fails the test if the page's scripts fail."""
    with visitor_page() as opened:
        yield opened


@pytest.fixture
def screenshots() -> Path:
    """The folder for screenshots, for people to look at."""
    folder = REPOSITORY / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder
