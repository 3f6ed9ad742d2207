"""A full line of trainings: who comes then is refused, and everything else goes on."""

import time

import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.utils import QueueError
from torchvision.io import write_png

LONG = {"epochs": 100, "num_images": 512, "batch_size": 8, "scheduler": "constant"}
SHORT = {"epochs": 1, "num_images": 64, "batch_size": 64, "scheduler": "constant"}


@pytest.fixture
def full(launched, tmp_path):
    """An app that trains one, lets another wait, and has no room for a third."""
    with launched(tmp_path, OPTIMIZER_LAB_MAX_QUEUE="1") as app:
        running = Client(app.url, verbose=False).submit(LONG, api_name="/train")
        while not running.outputs():
            time.sleep(0.05)
        waiting = Client(app.url, verbose=False).submit(SHORT, api_name="/train")
        time.sleep(1)
        yield app, running, waiting
        running.cancel()


def test_a_full_line_refuses_at_once_and_drains(full, new_page, tmp_path, screenshots):
    """A third one is refused, on the page in a sentence; one classifies and opens the page; then there is room."""
    app, running, waiting = full
    picture = tmp_path / "picture.png"
    write_png(torch.zeros(3, 32, 32, dtype=torch.uint8), str(picture))
    client = Client(app.url, verbose=False)
    begun = time.monotonic()
    with pytest.raises(QueueError):
        client.submit(SHORT, api_name="/train").result()
    assert time.monotonic() - begun < 5
    assert client.predict(handle_file(picture), "quick", api_name="/classify")["label"]

    new_page.goto(app.url)
    new_page.wait_for_selector("#train:not([disabled])")
    new_page.click("#train")
    new_page.wait_for_selector("#status >> text=Too many people are waiting")
    new_page.screenshot(path=screenshots / "turned-away.png")
    assert new_page.locator("#train").is_enabled()

    running.cancel()
    assert waiting.result(timeout=60)["reason"] == "completed"
    assert client.submit(SHORT, api_name="/train").result()["reason"] == "completed"
