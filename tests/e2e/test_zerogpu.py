"""The app as a ZeroGPU Space: under the real `spaces` package, whose workers, durations and quotas a stand-in lends.

The workers are forked, what goes to them and comes from them is pickled, and whoever takes longer than declared is
killed. Only the GPU is missing: see zerogpu_app.py.
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
from zerogpu import lending

from tests.e2e.test_page import status_says
from trainer.images.image_data import load_images
from trainer.learning.loop import train
from trainer.learning.race import race
from trainer.runs.events import EpochEnded
from trainer.runs.reader import read_checkpoint, read_run
from trainer.settings.config import TrainConfig

PROGRAM = "tests/zerogpu_app.py"
SMALL = {"epochs": 4, "batch_size": 8, "optimizer": "adam", "scheduler": "cosine"}
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
LONG = {**SMALL, "epochs": 1000}
# `spaces` decodes a visitor's token, of which only the middle part matters to it.
VISITOR, POOR = "a.e30.visitor", "a.e30.poor"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """As ONE_THREAD makes the app: several would wait for each other on a busy machine, and add up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scheduler():
    with lending() as running:
        yield running


@pytest.fixture(scope="module")
def pictures(images, tmp_path_factory):
    """A folder of pictures of 8×8: what takes no time on a busy machine either is killed for no one's fault."""
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
    """gradio_client, as the visitor that the test's parameter names."""
    token = getattr(request, "param", VISITOR)
    connected = Client(app.url, verbose=False, headers={"x-ip-token": token})
    yield connected
    connected.close()


def test_a_training_declares_what_it_takes(scheduler, client):
    """Measured once for this kind of batch, by a piece of work of its own; then known to whoever trains the like."""
    scheduler.settle()
    before = len(scheduler.leases)
    of_its_own = {**SMALL, "batch_size": 24}
    assert list(client.submit(of_its_own, api_name="/train"))[-1]["reason"] == "completed"
    scheduler.settle()
    measured, *trained = scheduler.leases[before:]
    before = len(scheduler.leases)
    assert measured.declared == 8
    list(client.submit({**of_its_own, "lr": 1e-4}, api_name="/train"))
    scheduler.settle()
    again = scheduler.leases[before:]
    assert len(again) <= 4, "slices of an epoch, and no measurement"
    for lease in (measured, *trained, *again):
        assert not lease.killed
        assert lease.ended - lease.begun <= lease.declared <= 60


def test_a_training_in_slices_equals_one_at_a_stretch(app, scheduler, client, pictures):
    """In slices of some epochs, in one worker, on the visitor's quota; the numbers of `train`, bit for bit."""
    before = len(scheduler.leases)
    rows = list(client.submit({**SMALL, "epochs": 60}, api_name="/train"))
    scheduler.settle()
    assert rows[-1]["reason"] == "completed"

    leases = scheduler.leases[before:]
    assert len(leases) >= 2
    assert all(lease.token == VISITOR for lease in leases), "the request is known in every slice"
    assert not any(lease.killed or lease.failed for lease in leases)
    assert len({lease.pid for lease in leases}) == 1
    assert leases[0].pid != app.process.pid

    config = TrainConfig.from_settings({**SMALL, "epochs": 60})
    whole = [event for event in train(config, load_images(pictures)) if isinstance(event, EpochEnded)]
    shown = [row for row in rows if row["event"] == "epoch"]
    assert [row["test_loss"] for row in shown] == [event.test_loss for event in whole]
    assert [row["train_loss"] for row in shown] == [event.train_loss for event in whole]
    assert read_run(app.checkpoints / rows[-1]["checkpoint"]).status == "completed"


def test_who_leaves_gives_the_gpu_back_and_the_worker_lives_on(scheduler, client):
    """Cancelled in a slice: it ends at its next sign of life, as done and not as failed."""
    job = client.submit(LONG, api_name="/train")
    next(row for row in job if row["event"] == "epoch" and row["epoch"] == 1)
    job.cancel()
    scheduler.settle()
    assert not scheduler.leases[-1].killed
    assert not scheduler.leases[-1].failed
    os.kill(scheduler.leases[-1].pid, 0)


@pytest.mark.parametrize("client", [POOR], indirect=True)
def test_a_spent_quota_leaves_a_run_that_can_go_on(app, scheduler, client):
    """What is left of it is used; then the run waits, and is told why, until when, and how much is to come."""
    assert list(client.submit(SMALL, api_name="/train"))[-1]["reason"] == "completed"  # the pace is known now
    scheduler.settle()
    scheduler.left[POOR] = scheduler.leases[-1].declared + 0.5  # a slice, and no second one
    rows = list(client.submit(LONG, api_name="/train"))
    finished = rows[-1]
    assert finished["event"] == "finished"
    assert finished["reason"] == "out_of_time"
    assert "used up" in finished["advice"]
    assert "1:00:00" in finished["advice"]
    assert "s of GPU time" in finished["advice"]
    kept = read_checkpoint(app.checkpoints / finished["checkpoint"])
    assert 0 < kept.epoch < 1000
    assert read_run(app.checkpoints / finished["checkpoint"]).status == "out_of_time"

    scheduler.left[POOR] = 0
    with pytest.raises(AppError, match="Your GPU time for today is used up: 0 s are left"):
        client.submit(SMALL, api_name="/train").result()


def test_a_worker_that_is_taken_back_is_told_and_the_next_one_works(app, scheduler, client):
    """Killed in the middle of an epoch: the run keeps its last whole one; the app goes on."""
    job = client.submit(LONG, api_name="/train")
    rows = []
    for row in job:
        rows.append(row)
        if row["event"] == "epoch" and row["epoch"] == 1:
            scheduler.patience = 0.0
    scheduler.patience = 1.0
    assert scheduler.leases[-1].killed
    assert rows[-1]["reason"] == "out_of_time"
    assert "taken back" in rows[-1]["advice"]
    assert read_checkpoint(app.checkpoints / rows[-1]["checkpoint"]).epoch >= 1
    assert list(client.submit(SMALL, api_name="/train"))[-1]["reason"] == "completed"


def test_the_lr_finder_goes_the_same_way(scheduler, client):
    """A measurement, then one piece of work of a declared duration."""
    before = len(scheduler.leases)
    settings = {"batch_size": 256, "optimizer": "rmsprop"}
    told = client.predict(settings, api_name="/find_lr")
    scheduler.settle()
    measured, searched = scheduler.leases[before:]
    assert measured.declared == 8
    assert searched.ended - searched.begun < searched.declared
    lrs = [row["lr"] for row in told["rows"]]
    assert lrs == sorted(set(lrs))
    assert len(lrs) > 50
    assert told["reason"].endswith(".")


def test_a_mistake_that_only_the_worker_can_see_keeps_its_sentence(client):
    """Not the bare name of an exception's class."""
    with pytest.raises(AppError, match="precision float16 needs a CUDA GPU"):
        client.submit({**SMALL, "precision": "float16"}, api_name="/train").result()


def test_classifying_takes_no_quota(app, scheduler, client, images, tmp_path):
    """A picture is classified in the app's own process, also while the GPU is lent to a training."""
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


def test_the_page_shows_the_seconds_and_what_to_do_when_they_are_spent(app, scheduler, new_page, screenshots):
    """Used and to come while it trains; out of time, a sentence, and Resume that ends the run; Stop in a slice."""
    token = "a.e30.reader"
    scheduler.left[token] = 1000
    new_page.context.set_extra_http_headers({"x-ip-token": token})
    new_page.goto(f"{app.url}/?epochs=60&batch_size=8&optimizer=adam&scheduler=cosine")
    new_page.wait_for_selector("#note >> text=Training on")
    new_page.click("#train")
    status_says(new_page, r"^Training[^]*GPU time: .* used, about .* to come")
    scheduler.left[token] = 0
    status_says(new_page, r"^Out of time[^]*used up[^]*press Resume")
    new_page.screenshot(path=screenshots / "out-of-time.png", full_page=True)
    scheduler.left[token] = 1000
    new_page.wait_for_function("document.querySelector('#more-epochs input').value === '60'")
    new_page.fill("#more-epochs input", "10")
    new_page.click("#resume")
    status_says(new_page, "^Training")
    new_page.evaluate("document.querySelector('#stop').click()")  # without waiting for a page that redraws to rest
    status_says(new_page, "^Stopped")
    scheduler.settle()
    assert not scheduler.leases[-1].killed
    new_page.click("#resume")
    status_says(new_page, r"^Done[^]*GPU time: .* used")


# In the mode of `spaces` that this process cannot be in: it changes torch.
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
from trainer.jobs.slices import Slice, RunState
from ui.zerogpu import BorrowedGpu

KINDS = (Checkpoint, OptimizerLabModel, Slice, RunState, torch.optim.Optimizer)

class Probe:
    seconds = 20
    def run(self, device):
        gc.collect()
        found = gc.get_objects()
        left = sorted({type(one).__name__ for one in found if isinstance(one, KINDS)})
        yield os.getpid(), left, sum(isinstance(one, torch.Tensor) for one in found)

if __name__ == "__main__":
    images = load_images()
    configs = [TrainConfig.from_settings(json.loads(text)) for text in sys.argv[1:]]
    list(app.run_on_gpu(Probe()))  # a worker begins as a copy of this process, in which there is nothing yet
    gpu = BorrowedGpu(app.run_on_gpu)
    list(gpu.race([(configs[0].changed({"epochs": 1}), None)], images))
    _, before = app.run_on_gpu(Probe())  # the images were mapped for good by the worker's first piece of work
    events = [(at, event) for at, event in gpu.race([(config, None) for config in configs], images)]
    _, after = app.run_on_gpu(Probe())
    print(json.dumps({
        "before": before, "after": after,
        "reasons": [event.reason for _, event in events if isinstance(event, Finished)],
        "losses": [(at, event.epoch, event.test_loss) for at, event in events if isinstance(event, EpochEnded)],
    }))
"""


def test_a_race_in_slices_equals_one_at_a_stretch_and_leaves_nothing_behind(scheduler, pictures, tmp_path):
    """Every contender's numbers; in the worker, the next visitor's, are no model, no optimizer, no tensor more."""
    configs = [
        TrainConfig.from_settings({**SMALL, "epochs": 30}),
        TrainConfig.from_settings({**SMALL, "lr": 1e-4, "epochs": 20}),
    ]
    before = len(scheduler.leases)
    environment = {**scheduler.environment(str(tmp_path)), **ONE_THREAD, "OPTIMIZER_LAB_DATA": pictures}
    process = subprocess.run(
        [sys.executable, "-c", RACE, *(json.dumps(config.settings()) for config in configs)],
        env={**os.environ, **environment, "PYTHONPATH": "tests"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    told = json.loads(process.stdout.splitlines()[-1])
    assert told["reasons"] == ["completed", "completed"]
    whole = race([(config, None) for config in configs], load_images(pictures))
    losses = [[at, event.epoch, event.test_loss] for at, event in whole if isinstance(event, EpochEnded)]
    assert sorted(told["losses"]) == sorted(losses)
    leases = scheduler.leases[before:]
    assert len(leases) >= 7, "three probes, a measurement, a training, and the race in slices"
    assert len({lease.pid for lease in leases}) == 1, "one worker for all"
    assert told["before"] == told["after"]
    assert told["after"][1] == []
