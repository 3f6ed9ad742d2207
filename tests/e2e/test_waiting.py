"""A full queue of trainings: it refuses further ones, and everything else works."""

import time

import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.utils import QueueError, Status
from torchvision.io import write_png

LONG = {"epochs": 1000, "num_images": 512, "batch_size": 8, "scheduler": "constant"}
SHORT = {"epochs": 1, "num_images": 64, "batch_size": 64, "scheduler": "constant"}


@pytest.fixture
def full(launched, tmp_path):
    """An app that trains one visitor's network, lets a second visitor wait, and has no room for a third."""
    with launched(tmp_path, OPTIMIZER_LAB_MAX_QUEUE="1") as app:
        running = Client(app.url, verbose=False).submit(LONG, api_name="/train")
        while not running.outputs():
            time.sleep(0.05)
        waiting = Client(app.url, verbose=False).submit(SHORT, api_name="/train")
        end = time.monotonic() + 120
        while waiting.status().code != Status.IN_QUEUE:
            assert time.monotonic() < end, waiting.status()
            time.sleep(0.05)
        yield app, running, waiting
        running.cancel()


def test_a_full_queue_refuses_at_once_and_drains(full, new_page, tmp_path, screenshots):
    """A third training is refused, in a sentence on the page, while pages and Classify work; then there is room."""
    app, running, waiting = full
    picture = tmp_path / "picture.png"
    write_png(torch.zeros(3, 32, 32, dtype=torch.uint8), str(picture))
    client = Client(app.url, verbose=False)
    with pytest.raises(QueueError):
        client.submit(SHORT, api_name="/train").result()
    assert not running.done(), "the refusal did not wait for room"
    assert client.predict(handle_file(picture), "quick", api_name="/classify")["label"]

    new_page.goto(app.url)
    new_page.wait_for_selector("#train:not([disabled])")
    new_page.click("#train")
    new_page.wait_for_selector("#status >> text=Too many people are waiting")
    new_page.screenshot(path=screenshots / "turned-away.png")
    assert new_page.locator("#train").is_enabled()

    running.cancel()
    assert waiting.result(timeout=300)["reason"] == "completed"
    assert client.submit(SHORT, api_name="/train").result()["reason"] == "completed"
