"""A worker that is killed again and again: no run is lost, and the result is that of an undisturbed run."""

import os
import random
import signal
import time

import pytest
import torch

from trainer.jobs.process import WorkerProcess
from trainer.learning.loop import train
from trainer.runs.events import EpochEnded
from trainer.runs.reader import read_checkpoint, read_run
from trainer.settings.config import TrainConfig
from ui.lab import Lab
from ui.visitors import new_visitor

pytestmark = pytest.mark.slow

CONFIG = TrainConfig(epochs=100, batch_size=1, optimizer="adam", scheduler="cosine")


@pytest.fixture
def worker():
    process = WorkerProcess(torch.device("cpu"))
    yield process
    process.close()


def test_twenty_kills_at_random_instants_change_nothing(worker, pictures, tmp_path, monkeypatch):
    """Each ends the job within five seconds with a plain reason, and the run is resumed from its last epoch."""
    monkeypatch.setattr("ui.lab.load_images", lambda progress: pictures)
    lab = Lab(checkpoints=tmp_path, device=torch.device("cpu"), run=worker.run)
    chance, visitor, epochs = random.Random(0), new_visitor(), []
    job = lab.train(visitor, [CONFIG])
    for _ in range(20):
        before = job.version
        while job.version < before + 3:  # it trains
            assert not job.ended.is_set(), job.failure
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        killed = time.monotonic()
        os.kill(worker.pid, signal.SIGKILL)
        assert job.ended.wait(5), "the job did not notice"
        assert time.monotonic() - killed < 5
        if not lab.runs.of(visitor):  # killed before the untrained network was saved
            assert "memory ran out" in job.failure
            job = lab.train(visitor, [CONFIG])
            continue
        run = read_run(job.folders[0])
        assert (run.status, "memory ran out" in run.advice) == ("interrupted", True)
        epochs.append(run.epoch)
        job = lab.resume(visitor, job.race, total_epochs=CONFIG.epochs, changes={})
    assert job.ended.wait(120)
    assert epochs == sorted(epochs)
    assert read_run(job.folders[0]).status == "completed"

    undisturbed = [event for event in train(CONFIG, pictures) if isinstance(event, EpochEnded)]
    rows = [(row.train_loss, row.test_loss, row.grad_norm) for row in read_checkpoint(job.folders[0]).history]
    assert rows == [(row.train_loss, row.test_loss, row.grad_norm) for row in undisturbed]
