"""Runs the app in a process, and a browser, for a benchmark."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from trainer.images.image_data import load_images

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class App:
    """The URL of a running app, the seconds from its start to its first answer, and its process."""

    url: str
    seconds: float
    pid: int

    def memory_mib(self) -> float:
        """Returns the memory of the app and its workers on Linux: what they share, such as the images, counts once."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/children")
        children = [int(pid) for thread in threads for pid in thread.read_text(encoding="utf-8").split()]
        return sum(_mib(pid, "Pss") for pid in (self.pid, *children))

    def own_memory_mib(self) -> float:
        """Returns the resident memory of the app's own process on Linux."""
        return _mib(self.pid, "Rss")


@contextmanager
def running_app(
    data: str | None, checkpoints: Path, *, checkout: Path = REPOSITORY, program: str = "app.py", **environment: str
) -> Iterator[App]:
    """Runs a program on a free port with the pictures of `data`; None leaves the choice to the environment.

    Loads the pictures beforehand, so that the app finds them in the cache. Raises UserError if that fails.
    """
    load_images(data)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"OPTIMIZER_LAB_CHECKPOINTS": str(checkpoints), "GRADIO_SERVER_PORT": str(port), **environment}
    if data:
        settings["OPTIMIZER_LAB_DATA"] = data
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, program], cwd=checkout, env={**os.environ, **settings}, stdout=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        while not _answers(url):
            if process.poll() is not None:
                sys.exit("The app ended before it listened.")
            time.sleep(0.02)
        yield App(url=url, seconds=time.perf_counter() - start, pid=process.pid)
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def new_page() -> Iterator[Page]:
    """Yields an empty page of Debian's Chromium."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        yield page
        browser.close()


def chromium() -> str:
    """Returns Chromium's path, or exits if it is not installed."""
    path = shutil.which("chromium")
    if path is None:
        sys.exit("Install chromium: this benchmark drives a browser.")
    return path


def visit(page: Page, address: str) -> None:
    """Opens a page of the app and waits until it is usable: it has the pictures' note, a chart and a visitor key."""
    page.goto(address)
    page.wait_for_selector("#note >> text=Training on")
    page.wait_for_selector("#loss svg")
    page.wait_for_function("Object.keys(localStorage).length > 0")


def _mib(pid: int, kind: str) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 1024


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True
