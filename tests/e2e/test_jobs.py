"""A training belongs to the app: what happens to its pages, its worker and the app itself."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from gradio_client import Client
from proxy import proxy_to

from tests.e2e.test_page import status_says, visit
from trainer.images.image_data import load_images
from trainer.learning.loop import train
from trainer.runs.events import EpochEnded
from trainer.runs.reader import read_run
from trainer.settings.config import TrainConfig

# Long enough for what the tests do meanwhile, with epochs short enough to be compared.
SETTINGS = {"epochs": 12, "num_images": 512, "batch_size": 32, "optimizer": "adam", "scheduler": "constant"}
QUERY = "&".join(f"{name}={value}" for name, value in SETTINGS.items())
LONG = QUERY.replace("epochs=12", "epochs=100")


@pytest.fixture(scope="module")
def app(launched, tmp_path_factory):
    """An app of these tests' own: they kill it and its worker."""
    with launched(tmp_path_factory.mktemp("checkpoints")) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed():
    """The epochs of SETTINGS, trained here."""
    events = train(TrainConfig.from_settings(SETTINGS), load_images("synthetic"))
    return [figures(event) for event in events if isinstance(event, EpochEnded)]


def figures(row: EpochEnded) -> tuple:
    return (row.epoch, row.train_loss, row.test_loss, row.test_accuracy, row.grad_norm)


def latest_run(app) -> list[tuple]:
    folder = max(app.checkpoints.iterdir(), key=lambda folder: folder.stat().st_ctime)
    return [figures(row) for row in read_run(folder).history]


def worker_of(app) -> int:
    """The process id of the app's worker; a new one may just be starting."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = subprocess.run(
            ["pgrep", "-P", str(app.process.pid), "-f", "trainer.jobs.worker"], capture_output=True, text=True
        )
        if pids := found.stdout.split():
            return int(pids[0])
        time.sleep(0.1)
    raise AssertionError("the app has no worker")


def ends(pid: int, seconds: float) -> bool:
    """Whether a process ends within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_reloading_at_any_instant_changes_nothing(app, new_page, undisturbed):
    """The page shows the running curve again each time, and the result is bit for bit that of an undisturbed run."""
    visit(new_page, f"{app.url}/?{QUERY}")
    new_page.click("#train")
    status_says(new_page, "^Training")
    chance = random.Random(0)
    while new_page.locator("#table tbody tr").count() < 9:
        new_page.wait_for_timeout(chance.uniform(0, 2000))
        new_page.reload()
        status_says(new_page, "^(Training|Done)")
    status_says(new_page, "^Done")
    assert latest_run(app) == undisturbed


def test_a_closed_page_ends_nothing_and_the_next_one_shows_the_end(app, visitor_page, undisturbed):
    with visitor_page() as page:
        visit(page, f"{app.url}/?{QUERY}")
        page.click("#train")
        status_says(page, "^Training")
        context = page.context
        page.close()
        while len(latest_run(app)) < 13:
            time.sleep(0.2)
        later = context.new_page()
        visit(later, app.url)
        status_says(later, "^Done")
        assert later.locator("#table tbody tr").count() == 13
    assert latest_run(app) == undisturbed


def test_another_tab_shows_the_training_and_stops_it(app, new_page):
    visit(new_page, f"{app.url}/?{LONG}")
    new_page.click("#train")
    status_says(new_page, "^Training")
    other = new_page.context.new_page()
    visit(other, app.url)
    status_says(other, r"^Training[^]*epoch \d+ of 100")
    other.click("#stop")
    for page in (new_page, other):
        status_says(page, "^Stopped[^]*by you")
        page.wait_for_selector("#train:not([disabled])")


def test_a_page_is_up_to_date_again_after_its_network_was_lost(app, new_page):
    with proxy_to(app.url) as proxy:
        visit(new_page, f"{proxy.url}/?{LONG}")
        new_page.click("#train")
        status_says(new_page, "^Training")
        proxy.cut()
        new_page.wait_for_timeout(10_000)
        before = new_page.locator("#table tbody tr").count()
        proxy.is_up = True
        new_page.wait_for_function("before => document.querySelectorAll('#table tbody tr').length > before", arg=before)
        status_says(new_page, "^Training")
        new_page.click("#stop")
        status_says(new_page, "^Stopped")


def test_a_killed_worker_is_explained_and_the_run_resumes_exactly(app, new_page, undisturbed):
    visit(new_page, f"{app.url}/?{QUERY}")
    new_page.click("#train")
    new_page.wait_for_function("document.querySelectorAll('#table tbody tr').length >= 3")
    os.kill(worker_of(app), signal.SIGKILL)
    killed = time.monotonic()
    status_says(new_page, "^Interrupted[^]*ended by the system, probably because the memory ran out")
    assert time.monotonic() - killed < 5
    new_page.wait_for_selector("#resume:not([disabled])")
    new_page.click("#resume")
    status_says(new_page, "^Done")
    assert latest_run(app) == undisturbed


def test_ten_visitors_at_once_all_finish(app):
    patient = {"timeout": 60}  # httpx's 5 seconds are too few on a busy machine
    clients = [Client(app.url, verbose=False, httpx_kwargs=patient) for _ in range(10)]
    settings = {**SETTINGS, "epochs": 2}
    jobs = [client.submit({**settings, "seed": seed}, api_name="/train") for seed, client in enumerate(clients)]
    for seed, job in enumerate(jobs):
        assert job.result(timeout=300)["reason"] == "completed"
        config = TrainConfig.from_settings({**settings, "seed": seed})
        expected = [
            event.test_loss for event in train(config, load_images("synthetic")) if isinstance(event, EpochEnded)
        ]
        assert [row["test_loss"] for row in job.outputs() if row["event"] == "epoch"] == expected


def test_a_killed_app_leaves_no_worker_and_its_run_can_be_resumed(app, new_page, undisturbed):
    visit(new_page, f"{app.url}/?{QUERY}")
    new_page.click("#train")
    new_page.wait_for_function("document.querySelectorAll('#table tbody tr').length >= 3")
    worker = worker_of(app)
    app.process.kill()
    assert ends(worker, seconds=5)
    new_page.get_by_text("The app does not answer. This page goes on by itself once it does.").wait_for()
    app.restart()
    status_says(new_page, "^Interrupted")
    new_page.wait_for_selector("#resume:not([disabled])")
    new_page.click("#resume")
    status_says(new_page, "^Done")
    assert latest_run(app) == undisturbed
