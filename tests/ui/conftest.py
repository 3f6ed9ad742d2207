"""A lab for the tests of the page and its jobs."""

import time

import pytest
from labs import make_lab

from trainer.images.image_data import load_images


@pytest.fixture(scope="session")
def pictures(image_folder):
    """Images in a file, as those of the app are: 40 training and 20 test pictures of three classes."""
    return load_images(str(image_folder))


@pytest.fixture
def lab(tmp_path, pictures, monkeypatch):
    """A lab whose images, `pictures`, have loaded; all its jobs have ended by the end of the test."""
    monkeypatch.setattr("ui.lab.load_images", lambda progress: pictures)
    made = make_lab(tmp_path)
    while made.images is None:
        time.sleep(0.01)
    yield made
    for job in reversed(made.jobs.active()):
        made.jobs.end(job)
        assert job.ended.wait(60)
