"""The app as a ZeroGPU Space: the real `spaces` package with the scheduler of tests/zerogpu.py.

Workers are forked, arguments and results are pickled, and a worker that takes too long is killed, as on a Space. Only
the GPU is missing: see zerogpu_app.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from torchvision.io import write_png
from zerogpu import PATIENCE, serve_scheduler

from tests.e2e.test_page import status_says
from tests.e2e.test_pictures import choose_own
from trainer.images.image_data import OWN, load_images
from trainer.learning.loop import train
from trainer.learning.race import race
from trainer.runs.events import EpochEnded
from trainer.runs.reader import read_checkpoint, read_run, read_settings
from trainer.settings.config import TrainConfig

PROGRAM = "tests/zerogpu_app.py"
SMALL = {"epochs": 4, "batch_size": 8, "optimizer": "adam", "scheduler": "cosine"}
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
LONG = {**SMALL, "epochs": 1000}
# `spaces` decodes a visitor's token and uses only its middle part.
VISITOR, POOR = "a.e30.visitor", "a.e30.poor"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Uses one thread here too, because the number of threads changes the order of sums and so the last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scheduler():
    with serve_scheduler() as running:
        yield running


@pytest.fixture(scope="module")
def pictures(images, tmp_path_factory):
    """A folder of pictures of 8×8 pixels, so that an epoch takes almost no time."""
    folder = tmp_path_factory.mktemp("pictures") / "tiny"
    for split, count in (("train", 256), ("test", 40)):
        for index in range(count):
            drawn = getattr(images, split)
            path = folder / split / images.class_names[int(drawn.labels[index]) % 3] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(drawn.images[index, :, 4:28:3, 4:28:3].contiguous(), str(path))
    return str(folder)


@pytest.fixture(scope="module")
def app(launched, scheduler, pictures, tmp_path_factory):
    home = str(tmp_path_factory.mktemp("home"))
    environment = {**scheduler.environment(home), **ONE_THREAD, "OPTIMIZER_LAB_DATA": pictures}
    with launched(tmp_path_factory.mktemp("checkpoints"), PROGRAM, **environment) as running:
        yield running


@pytest.fixture
def client(app, request):
    """A gradio_client with the token of VISITOR, or the one in the test's parameter."""
    token = getattr(request, "param", VISITOR)
    connected = Client(app.url, verbose=False, headers={"x-ip-token": token})
    yield connected
    connected.close()


def test_a_training_declares_its_duration(scheduler, client):
    """The pace of a kind of batch is measured once, in a lease of its own, and reused for later trainings."""
    scheduler.settle()
    before = len(scheduler.leases)
    unmeasured = {**SMALL, "batch_size": 24}
    assert list(client.submit(unmeasured, api_name="/train"))[-1]["reason"] == "completed"
    scheduler.settle()
    measured, *trained = scheduler.leases[before:]
    before = len(scheduler.leases)
    assert measured.declared == 8
    list(client.submit({**unmeasured, "lr": 1e-4}, api_name="/train"))
    scheduler.settle()
    again = scheduler.leases[before:]
    assert len(again) <= 4, "slices of an epoch, and no measurement"
    assert min(sum(lease.processor_seconds for lease in part) for part in ([measured], trained, again)) > 0
    for lease in (measured, *trained, *again):
        assert not lease.killed
        assert lease.processor_seconds <= lease.declared <= 60


def test_a_training_in_slices_equals_an_uninterrupted_one(app, scheduler, client, pictures):
    """It takes several slices in one worker, on the visitor's quota, and gives the numbers of `train` bit for bit."""
    before = len(scheduler.leases)
    rows = list(client.submit({**SMALL, "epochs": 16}, api_name="/train"))
    scheduler.settle()
    assert rows[-1]["reason"] == "completed"

    leases = scheduler.leases[before:]
    assert len(leases) >= 2
    assert all(lease.token == VISITOR for lease in leases), "every slice uses the visitor's request"
    assert not any(lease.killed or lease.failed for lease in leases)
    assert len({lease.pid for lease in leases}) == 1
    assert leases[0].pid != app.process.pid

    config = TrainConfig.from_settings({**SMALL, "epochs": 16})
    whole = [event for event in train(config, load_images(pictures)) if isinstance(event, EpochEnded)]
    epochs = [row for row in rows if row["event"] == "epoch"]
    assert [row["test_loss"] for row in epochs] == [event.test_loss for event in whole]
    assert [row["train_loss"] for row in epochs] == [event.train_loss for event in whole]
    assert read_run(app.checkpoints / rows[-1]["checkpoint"]).status == "completed"


def test_cancelling_releases_the_gpu_and_keeps_the_worker(scheduler, client):
    """A slice that is cancelled ends at its next event; the lease counts as done, not as failed."""
    job = client.submit(LONG, api_name="/train")
    next(row for row in job if row["event"] == "epoch" and row["epoch"] == 1)
    job.cancel()
    scheduler.settle()
    assert not scheduler.leases[-1].killed
    assert not scheduler.leases[-1].failed
    os.kill(scheduler.leases[-1].pid, 0)


@pytest.mark.parametrize("client", [POOR], indirect=True)
def test_a_spent_quota_leaves_a_resumable_run(app, scheduler, client):
    """The rest of the quota is used; then the run ends with the reason, the time to wait and the time still needed."""
    assert list(client.submit(SMALL, api_name="/train"))[-1]["reason"] == "completed"  # measures the pace
    scheduler.settle()
    scheduler.left[POOR] = scheduler.leases[-1].declared + 0.5  # enough for one slice only
    rows = list(client.submit(LONG, api_name="/train"))
    finished = rows[-1]
    assert finished["event"] == "finished"
    assert finished["reason"] == "out_of_time"
    assert "used up" in finished["advice"]
    assert "1:00:00" in finished["advice"]
    assert "s more of GPU time" in finished["advice"]
    saved = read_checkpoint(app.checkpoints / finished["checkpoint"])
    assert 0 < saved.epoch < 1000
    assert read_run(app.checkpoints / finished["checkpoint"]).status == "out_of_time"

    scheduler.left[POOR] = 0
    with pytest.raises(AppError, match="Your GPU time for today is used up: 0 s are left"):
        client.submit(SMALL, api_name="/train").result()


def test_a_killed_worker_is_explained_and_replaced(app, scheduler, client):
    """A worker killed within an epoch leaves the run with its last complete epoch, and the next training works."""
    job = client.submit(LONG, api_name="/train")
    rows = []
    for row in job:
        rows.append(row)
        if row["event"] == "epoch" and row["epoch"] == 1:
            scheduler.patience = 0.0
    scheduler.patience = PATIENCE
    assert scheduler.leases[-1].killed
    assert rows[-1]["reason"] == "out_of_time"
    assert "taken back" in rows[-1]["advice"]
    assert read_checkpoint(app.checkpoints / rows[-1]["checkpoint"]).epoch >= 1
    assert list(client.submit(SMALL, api_name="/train"))[-1]["reason"] == "completed"


def test_the_lr_finder_declares_its_duration(scheduler, client):
    """It takes one lease to measure the pace and one to search."""
    before = len(scheduler.leases)
    settings = {"batch_size": 256, "optimizer": "rmsprop"}
    result = client.predict(settings, api_name="/find_lr")
    scheduler.settle()
    measured, searched = scheduler.leases[before:]
    assert measured.declared == 8
    assert 0 < searched.processor_seconds < searched.declared
    lrs = [row["lr"] for row in result["rows"]]
    assert lrs == sorted(set(lrs))
    assert len(lrs) > 50
    assert result["reason"].endswith(".")


def test_a_users_error_in_the_worker_keeps_its_sentence(client):
    """`spaces` by itself would send only the name of the exception's class."""
    with pytest.raises(AppError, match="precision float16 needs a CUDA GPU"):
        client.submit({**SMALL, "precision": "float16"}, api_name="/train").result()


def test_classifying_uses_no_quota(app, scheduler, client, images, tmp_path):
    """A picture is classified in the app's own process, even while a training has the GPU."""
    key = list(client.submit({**SMALL, "epochs": 1}, api_name="/train"))[-1]["checkpoint"]
    picture = tmp_path / "shape.png"
    write_png(images.test.images[0].contiguous(), str(picture))
    job = client.submit(LONG, api_name="/train")
    next(row for row in job if row["event"] == "epoch")
    before = len(scheduler.leases)
    try:
        assert len(client.predict(handle_file(picture), key, api_name="/classify")["confidences"]) == 3
        assert len(scheduler.leases) == before
    finally:
        job.cancel()
        scheduler.settle()


def test_the_page_reports_gpu_time_and_a_spent_quota(app, scheduler, new_page, screenshots):
    """The status shows the time used and needed; a spent quota is explained; Resume and Stop work within a slice."""
    token = "a.e30.reader"
    scheduler.left[token] = 1000
    new_page.context.set_extra_http_headers({"x-ip-token": token})
    new_page.goto(f"{app.url}/?epochs=60&batch_size=8&optimizer=adam&scheduler=cosine")
    new_page.wait_for_selector("#note >> text=Training on")
    new_page.click("#train")
    status_says(new_page, r"^Training[^]*GPU time: .* used, about .* still needed")
    scheduler.left[token] = 0
    status_says(new_page, r"^Out of time[^]*used up[^]*press Resume")
    new_page.screenshot(path=screenshots / "out-of-time.png", full_page=True)
    scheduler.left[token] = 1000
    new_page.wait_for_function("document.querySelector('#more-epochs input').value === '60'")
    new_page.fill("#more-epochs input", "10")
    new_page.click("#resume")
    status_says(new_page, "^Training")
    new_page.evaluate("document.querySelector('#stop').click()")  # click() would wait until the page stops redrawing
    status_says(new_page, "^(Stopped|Not trained)")  # the latter if the first slice has not begun yet
    scheduler.settle()
    assert not scheduler.leases[-1].killed
    new_page.click("#resume")
    status_says(new_page, r"^Done[^]*GPU time: .* used")


def test_a_visitors_own_pictures_train_there(app, scheduler, new_page, tmp_path):
    """The worker maps them from their file; the seconds are those of the visitor."""
    token = "a.e30.owner"
    new_page.context.set_extra_http_headers({"x-ip-token": token})
    new_page.goto(app.url)
    new_page.wait_for_selector("#note >> text=Training on")
    choose_own(new_page, tmp_path, 20)
    before = len(scheduler.leases)
    new_page.click("#train")
    status_says(new_page, r"^Done[^]*GPU time: .* used")
    scheduler.settle()
    assert {lease.token for lease in scheduler.leases[before:]} == {token}
    newest = max(app.checkpoints.glob("*/training.json"), key=lambda file: file.stat().st_mtime)
    config, data = read_settings(newest.parent)
    assert (config.pretrained, data["source"]) == ("frozen", OWN)


# Runs in a new process, because the ZeroGPU mode of `spaces` patches torch.
RACE = """
import gc, json, os, pathlib, sys
import zerogpu_app
import app
import torch
from trainer.learning.checkpoint import Checkpoint
from trainer.settings.config import TrainConfig
from trainer.images.image_data import load_images
from trainer.runs.events import EpochEnded, Finished
from trainer.networks.model import OptimizerLabModel
from trainer.jobs.slices import Slice
from trainer.jobs.work import RunState
from ui.jobs.zerogpu import BorrowedGpu

KINDS = (Checkpoint, OptimizerLabModel, Slice, RunState, torch.optim.Optimizer)

class Probe:
    seconds = 20
    def run(self, device):
        gc.collect()
        objects = gc.get_objects()
        left = sorted({type(one).__name__ for one in objects if isinstance(one, KINDS)})
        yield os.getpid(), left, sum(isinstance(one, torch.Tensor) for one in objects)

if __name__ == "__main__":
    images = load_images()
    configs = [TrainConfig.from_settings(json.loads(text)) for text in sys.argv[1:]]
    list(app.run_on_gpu(Probe()))  # forks the worker while this process holds no model
    gpu = BorrowedGpu(app.run_on_gpu)
    list(gpu.race([(configs[0].changed({"epochs": 1}), None)], images))
    _, before = app.run_on_gpu(Probe())  # the first training has mapped the images, which stay
    events = [(at, event) for at, event in gpu.race([(config, None) for config in configs], images)]
    _, after = app.run_on_gpu(Probe())
    print(json.dumps({
        "before": before, "after": after,
        "reasons": [event.reason for _, event in events if isinstance(event, Finished)],
        "losses": [(at, event.epoch, event.test_loss) for at, event in events if isinstance(event, EpochEnded)],
    }))
"""


def test_a_race_in_slices_equals_an_uninterrupted_one_and_leaves_nothing_behind(scheduler, pictures, tmp_path):
    """Each run has the numbers of `race`; the worker, which serves the next visitor, keeps no model or new tensor."""
    configs = [
        TrainConfig.from_settings({**SMALL, "epochs": 8}),
        TrainConfig.from_settings({**SMALL, "lr": 1e-4, "epochs": 5}),
    ]
    before = len(scheduler.leases)
    environment = {**scheduler.environment(str(tmp_path)), **ONE_THREAD, "OPTIMIZER_LAB_DATA": pictures}
    process = subprocess.run(
        [sys.executable, "-c", RACE, *(json.dumps(config.settings()) for config in configs)],
        env={**os.environ, **environment, "PYTHONPATH": "tests"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    assert result["reasons"] == ["completed", "completed"]
    whole = race([(config, None) for config in configs], load_images(pictures))
    losses = [[at, event.epoch, event.test_loss] for at, event in whole if isinstance(event, EpochEnded)]
    assert sorted(result["losses"]) == sorted(losses)
    leases = scheduler.leases[before:]
    assert len(leases) >= 7, "three probes, a measurement, a training, and the race in slices"
    assert len({lease.pid for lease in leases}) == 1, "a single worker"
    assert result["before"] == result["after"]
    assert result["after"][1] == []
