"""The app, really launched, and the browser that looks at it."""

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
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@dataclass
class App:
    """A running app: where it listens, where it keeps runs, and how it was started."""

    url: str
    checkpoints: Path
    program: Path
    environment: dict[str, str]
    process: subprocess.Popen | None = None

    def start(self) -> None:
        """Starts the app, and waits until it listens."""
        environment = {
            **os.environ,
            "OPTIMIZER_LAB_DATA": "synthetic",
            "OPTIMIZER_LAB_CHECKPOINTS": str(self.checkpoints),
            "GRADIO_SERVER_PORT": self.url.rpartition(":")[2],
            "OMP_WAIT_POLICY": "passive",
            "OMP_NUM_THREADS": str(os.cpu_count()),
            **self.environment,
        }
        # In a group of its own: the workers it forks may outlive it.
        self.process = subprocess.Popen(
            [sys.executable, str(self.program)], cwd=REPOSITORY, env=environment, start_new_session=True
        )
        for _ in range(1200):
            assert self.process.poll() is None, "the app ended before it listened"
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the app did not listen within two minutes")

    def restart(self) -> None:
        """Kills the app as a crash would and starts it again at the same place."""
        self.process.kill()
        self.process.wait()
        self.start()


@pytest.fixture(scope="module", autouse=True)
def _as_many_threads_as_the_app(all_threads):
    """Its numbers are compared with those of this process, to the last bit."""


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
        running.process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def launched() -> Callable:
    """launched(checkpoints, program, **environment): an app of one's own, until the with block ends."""
    return _launched


@pytest.fixture(scope="session")
def app(tmp_path_factory) -> Iterator[App]:
    """The app on the synthetic set, on a free port of loopback."""
    with _launched(tmp_path_factory.mktemp("checkpoints")) as running:
        yield running


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, headless, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("install chromium to run the page's tests")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield launched
        launched.close()


@pytest.fixture
def new_page(browser):
    """An empty page of a visitor with a browser of their own; fails the test if the page's scripts fail."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    opened = context.new_page()
    errors = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []


@pytest.fixture
def screenshots() -> Path:
    """Where the page's pictures are put, to be looked at."""
    folder = REPOSITORY / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder
