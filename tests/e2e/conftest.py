"""The app, really launched, and the browser that looks at it."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@dataclass
class App:
    """A running `python app.py`: where it listens, where it keeps runs, and how to start it again."""

    url: str
    checkpoints: Path
    process: subprocess.Popen

    def restart(self) -> None:
        """Kills the app as a crash would and starts it again at the same place."""
        self.process.kill()
        self.process.wait()
        self.process = _start(self.url, self.checkpoints)


@pytest.fixture(scope="session")
def app(tmp_path_factory) -> Iterator[App]:
    """The app on the synthetic set, on a free port of loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    running = App(url, checkpoints, _start(url, checkpoints))
    yield running
    running.process.terminate()
    running.process.wait(30)


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


def _start(url: str, checkpoints: Path) -> subprocess.Popen:
    environment = {
        **os.environ,
        "OPTIMIZER_LAB_DATA": "synthetic",
        "OPTIMIZER_LAB_CHECKPOINTS": str(checkpoints),
        "GRADIO_SERVER_PORT": url.rpartition(":")[2],
        "OMP_WAIT_POLICY": "passive",
    }
    process = subprocess.Popen([sys.executable, "app.py"], cwd=REPOSITORY, env=environment)
    for _ in range(600):
        assert process.poll() is None, "the app ended before it listened"
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return process
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the app did not listen within a minute")
