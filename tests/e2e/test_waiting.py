"""A machine that holds as many trainings as it can: others wait, further ones are refused, everything else works."""

import subprocess
import time

import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import Status
from torchvision.io import write_png

from tests.e2e.test_page import status_says

LONG = {"epochs": 1000, "num_images": 512, "batch_size": 8, "scheduler": "constant"}
SHORT = {"epochs": 1, "num_images": 64, "batch_size": 64, "scheduler": "constant"}
FULL = "Too many people are training here"


@pytest.fixture
def busy(launched, tmp_path):
    """An app that trains one client's network and has room for one that waits.

    Its locale is not UTF-8, and its proxies reach nothing.
    """
    around = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    around |= {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "[::1],fd00::/8"}
    with launched(tmp_path, OPTIMIZER_LAB_MAX_AT_ONCE="1", OPTIMIZER_LAB_MAX_QUEUE="1", **around) as app:
        running = Client(app.url, verbose=False).submit(LONG, api_name="/train")
        while not running.outputs():
            time.sleep(0.05)
        yield app, running
        running.cancel()


def waiting(app):
    """A second client's training, once it waits."""
    job = Client(app.url, verbose=False).submit(SHORT, api_name="/train")
    end = time.monotonic() + 120
    while job.status().code != Status.PROCESSING:
        assert time.monotonic() < end, job.status()
        time.sleep(0.05)
    return job


def test_a_full_queue_refuses_at_once_and_drains(busy, new_page, tmp_path, screenshots):
    """A third training is refused, in a sentence on the page, while pages and Classify work; then there is room."""
    app, running = busy
    second = waiting(app)
    picture = tmp_path / "picture.png"
    write_png(torch.zeros(3, 32, 32, dtype=torch.uint8), str(picture))
    client = Client(app.url, verbose=False)
    with pytest.raises(AppError, match=FULL):
        client.submit(SHORT, api_name="/train").result()
    assert not running.done(), "the refusal did not wait for room"
    assert client.predict(handle_file(picture), "quick", api_name="/classify")["label"]

    new_page.goto(app.url)
    new_page.wait_for_selector("#train:not([disabled])")
    new_page.click("#train")
    new_page.wait_for_selector(f"#refused-train >> text={FULL}")
    new_page.screenshot(path=screenshots / "turned-away.png")
    assert new_page.locator("#train").is_enabled()
    status_says(new_page, "^Same network")

    running.cancel()
    assert second.result(timeout=300)["reason"] == "completed"
    assert client.submit(SHORT, api_name="/train").result()["reason"] == "completed"


def test_a_page_that_waits_says_so_and_is_trained_when_there_is_room(busy, new_page, screenshots):
    """Stop ends the wait at once, and nothing is left of the training."""
    app, running = busy
    new_page.goto(f"{app.url}/?epochs=1&num_images=64&batch_size=64&scheduler=constant")
    before = set(app.checkpoints.iterdir())
    new_page.click("#train:enabled")
    status_says(new_page, "^Not started yet.*yours is next")
    new_page.screenshot(path=screenshots / "waiting-in-queue.png")
    new_page.click("#stop")
    status_says(new_page, "^Not trained\\s+It was stopped before it started")
    new_page.wait_for_selector("#train:enabled")
    assert new_page.locator("#stop").is_disabled()
    assert set(app.checkpoints.iterdir()) == before
    new_page.click("#train")
    status_says(new_page, "^Not started yet")
    new_page.reload()
    status_says(new_page, "^Not started yet")
    assert not running.done()
    running.cancel()
    status_says(new_page, "^Done epoch 1 of 1")
    assert len(set(app.checkpoints.iterdir()) - before) == 1


def test_a_page_that_opens_late_does_not_end_the_app(launched, tmp_path):
    """Gradio's check that the page opens within three seconds fails on a busy machine."""
    program = tmp_path / "late.py"
    program.write_text(
        "import runpy, sys\nimport gradio.networking\ngradio.networking.url_ok = lambda url: False\n"
        "sys.path.insert(0, '.')\nrunpy.run_path('app.py', run_name='__main__')\n"
    )
    with launched(tmp_path / "runs", str(program)) as app, pytest.raises(subprocess.TimeoutExpired):
        app.process.wait(5)
