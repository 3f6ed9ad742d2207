"""The worker process: the events of `race`, whatever else runs, and a plain end when the process dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainer.errors import UserError
from trainer.images.image_data import load_images
from trainer.jobs import process
from trainer.jobs.process import Served, WorkerLostError, WorkerProcess
from trainer.jobs.work import ImageFile, Race, Search, Timing, images_in
from trainer.learning.checkpoint import continued
from trainer.learning.lr_finder import find_lr
from trainer.learning.race import race
from trainer.runs.events import CheckpointReady, EpochEnded, Finished, StepLogged
from trainer.runs.reader import read_checkpoint
from trainer.settings.config import TrainConfig

pytestmark = pytest.mark.slow

ONE = TrainConfig(epochs=3, batch_size=8, optimizer="adam")
OTHER = TrainConfig(epochs=3, batch_size=8, scheduler="constant", seed=3)
LONG = TrainConfig(epochs=1000, batch_size=1, scheduler="constant")


@pytest.fixture(scope="module")
def pictures(image_folder):
    """Images in a file, like the app's."""
    return load_images(str(image_folder))


@pytest.fixture(scope="module")
def worker():
    started = WorkerProcess(torch.device("cpu"))
    yield started
    started.close()


def run(worker, work, stopping=None):
    """The events of the work, without the times."""
    return [event for event in worker.run(work, stopping or threading.Event()) if not isinstance(event, Served)]


def of(config, pictures):
    return Race.of([(config, None)], pictures)


def exact(events):
    """What must be equal bit for bit: all losses, accuracies and weights."""
    facts = []
    for index, event in events:
        match event:
            case StepLogged():
                facts.append((index, event.step, event.loss, event.lr, event.grad_norm))
            case EpochEnded():
                facts.append((index, event.epoch, event.train_loss, event.test_loss, event.test_accuracy))
            case CheckpointReady():
                facts.append((index, event.epoch, event.model, event.training))
            case Finished():
                facts.append((index, event.reason))
    return facts


def undisturbed(config, pictures):
    return exact(race([(config, None)], pictures))


def test_trainings_that_share_the_worker_are_bit_for_bit_those_of_undisturbed_ones(worker, pictures):
    results = {}

    def train(config):
        results[config] = exact(run(worker, of(config, pictures)))

    stop_long, long = threading.Event(), []
    threads = [threading.Thread(target=lambda: long.extend(run(worker, of(LONG, pictures), stop_long)))]
    threads += [threading.Thread(target=train, args=(config,)) for config in (ONE, OTHER)]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join(120)
    assert len(worker) == 1
    stop_long.set()
    threads[0].join(5)
    assert len(worker) == 0
    assert long, "the long one advanced, too"
    assert results == {config: undisturbed(config, pictures) for config in (ONE, OTHER)}


def test_a_resumed_run_and_a_search(worker, pictures, trained):
    folder, _ = trained(ONE, pictures, until=1)
    checkpoint = continued(read_checkpoint(folder), epochs=ONE.epochs, changes={})
    contenders = [(checkpoint.config, checkpoint)]
    assert exact(run(worker, Race.of(contenders, pictures))) == exact(race(contenders, pictures))
    trials = worker.run(Search.of(ONE, pictures), threading.Event())
    assert next(trials) == next(find_lr(ONE, pictures))
    trials.close()


def test_a_refusal_is_raised_and_the_worker_lives_on(worker, pictures):
    pid = worker.pid
    with pytest.raises(UserError, match="num_images"):
        run(worker, of(ONE.changed({"num_images": 50_000}), pictures))
    assert run(worker, of(ONE, pictures))[-1] == (0, Finished(reason="completed"))
    assert worker.pid == pid


def test_stopping_takes_effect_at_once(worker, pictures):
    stopping = threading.Event()
    threading.Timer(0.5, stopping.set).start()
    started = time.monotonic()
    run(worker, of(LONG, pictures), stopping)
    assert time.monotonic() - started < 3


def test_a_killed_worker_fails_its_work_within_seconds_and_the_next_one_runs(worker, pictures):
    """ui/jobs/test_kills.py does so at random instants."""
    events = worker.run(of(LONG, pictures), threading.Event())
    next(events)
    killed = time.monotonic()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError, match="memory"):
        list(events)
    assert time.monotonic() - killed < 5
    assert worker.deaths == 1
    assert exact(run(worker, of(ONE, pictures))) == undisturbed(ONE, pictures)
    assert worker.deaths == 0


def test_a_worker_that_has_died_does_not_attract_the_work(monkeypatch):
    """It holds no work, but the other one is better until it has ended some."""

    class Device:
        def __init__(self, number):
            self.number, self.deaths, self.held = number, 0, 0

        def __len__(self):
            return self.held

        def run(self, work, stopping):
            yield self.number

    monkeypatch.setattr(process, "WorkerProcess", Device)
    workers = process.Workers([0, 1])
    first, second = workers._workers
    first.deaths, second.held = 1, 5
    assert list(workers.run(None, None)) == [1]
    first.deaths = 0
    assert list(workers.run(None, None)) == [0]


def test_a_slow_reader_makes_the_worker_wait(worker, pictures, monkeypatch):
    """Events do not gather in memory, as they would on a slow disk; none is lost, and a stop still takes effect."""
    monkeypatch.setattr(process, "_MOST_UNREAD", 3)
    events = worker.run(of(ONE.changed({"epochs": 60}), pictures), threading.Event())
    seen = [next(events)]
    (task,) = worker._tasks.values()
    time.sleep(4)
    assert task.turns.qsize() == 3
    seen += events
    epochs = [
        event.epoch for _, event in (one for one in seen if isinstance(one, tuple)) if isinstance(event, EpochEnded)
    ]
    assert epochs == list(range(61))
    events = worker.run(of(LONG, pictures), threading.Event())
    next(events)
    time.sleep(2)
    events.close()
    assert run(worker, of(ONE, pictures))[-1] == (0, Finished(reason="completed"))


def test_work_that_had_not_begun_goes_to_the_new_worker(worker, pictures):
    os.kill(worker.pid, signal.SIGSTOP)
    results = []
    thread = threading.Thread(target=lambda: results.extend(run(worker, of(ONE, pictures))))
    thread.start()
    time.sleep(0.5)
    os.kill(worker.pid, signal.SIGKILL)
    thread.join(60)
    assert results[-1] == (0, Finished(reason="completed"))


def test_a_segmentation_fault_is_reported_with_its_code(worker, pictures):
    events = worker.run(of(LONG, pictures), threading.Event())
    next(events)
    os.kill(worker.pid, signal.SIGSEGV)
    with pytest.raises(WorkerLostError, match="-11"):
        list(events)


def test_a_worker_that_cannot_start_is_reported_and_tried_again(pictures, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", sys.executable)
        worker = WorkerProcess(torch.device("cpu"))
        patch.setenv("PYTHONHOME", "/nowhere")
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError, match="could not be started"):
            run(worker, of(ONE, pictures))
    assert run(worker, of(ONE, pictures))[-1] == (0, Finished(reason="completed"))
    worker.close()


APP = """
import sys, threading, torch
from trainer.images.image_data import open_images
from trainer.jobs.process import WorkerProcess
from trainer.jobs.work import Race
from trainer.settings.config import TrainConfig
worker = WorkerProcess(torch.device("cpu"))
config = TrainConfig(epochs=1000, batch_size=1, scheduler="constant")
events = worker.run(Race.of([(config, None)], open_images(sys.argv[1])), threading.Event())
next(events)
print(worker.pid, flush=True)
for _ in events:
    pass
"""


def test_the_worker_of_a_killed_app_ends_by_itself(pictures):
    """Within seconds, and without a word."""
    app = subprocess.Popen(
        [sys.executable, "-c", APP, str(pictures.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    pid = int(app.stdout.readline())
    app.kill()
    app.wait()
    app.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2]:
        assert time.monotonic() < deadline, "the worker is an orphan"
        time.sleep(0.05)
    assert app.stderr.read() == ""
    app.stderr.close()


def test_images_are_mapped_not_copied(pictures):
    work = of(ONE, pictures)
    assert images_in(work.images).path == work.images.path


def test_parts_of_a_job_begin_with_the_time_of_the_earlier_ones(worker, pictures):
    """A part that counts as having had more time waits for a long training to catch up."""
    seconds = [
        event.seconds
        for event in worker.run(replace(of(ONE, pictures), served_before=100.0), threading.Event())
        if isinstance(event, Served)
    ]
    assert 100 < seconds[0] <= seconds[-1] < 160


def test_a_pace_is_measured_in_the_worker(worker, pictures):
    (pace,) = run(worker, Timing(images=ImageFile.of(pictures), config=ONE))
    assert 0 < pace.batch_seconds < 10


def test_pictures_that_were_deleted_meanwhile_are_reported(tmp_path):
    """A visitor may delete their own while the work waits for its turn."""
    with pytest.raises(UserError, match="deleted before they could be read"):
        images_in(ImageFile(path=tmp_path / "own.safetensors", digest="0" * 64))
