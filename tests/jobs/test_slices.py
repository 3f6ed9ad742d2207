"""Jobs for a borrowed GPU: plain data in and out, and slices that continue exactly."""

import pickle
from dataclasses import replace

import pytest
import torch
from cases import finish, first_is_quick

from trainer.images.image_data import load_images
from trainer.insight.mistakes import answer
from trainer.jobs.pace import Pace
from trainer.jobs.slices import (
    START_SECONDS,
    Measurement,
    Refused,
    Slice,
    Started,
    gpu_seconds,
    next_slice,
    run_job,
    seconds_to_declare,
    timed,
)
from trainer.jobs.work import Classification, ImageFile, RunState, Search
from trainer.learning.checkpoint import continued
from trainer.learning.lr_finder import num_trials
from trainer.learning.race import race
from trainer.networks.model import OptimizerLabModel
from trainer.runs.events import CheckpointReady, EpochEnded, Finished
from trainer.runs.reader import read_checkpoint
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS

CPU = torch.device("cpu")
CONFIG = TrainConfig(epochs=4, batch_size=8)
ADAM = TrainConfig(epochs=3, batch_size=8, optimizer="adam", scheduler="plateau")
CARRIED = TrainConfig(epochs=4, batch_size=8, zero_grad_every=3)
FAST = Pace(batch_seconds=0.0, test_seconds=1e-3)


@pytest.fixture(scope="module")
def stored(image_folder):
    """Images in a file, like the app's."""
    return load_images(str(image_folder))


def run_pickled(job):
    """Runs a pickled job, and returns its pickled and unpickled events."""
    return [pickle.loads(pickle.dumps(event)) for event in run_job(pickle.loads(pickle.dumps(job)), CPU)]


def in_slices(configs, images, seconds):
    """Returns the events of a race in slices of `seconds`, and the number of slices."""
    states = {index: RunState.of(config, None) for index, config in enumerate(configs)}
    events, slices = [], 0
    while states:
        job = next_slice(states, dict.fromkeys(states, FAST), images, longest=60)
        slices += 1
        started, *slice_events = run_pickled(replace(job, seconds=seconds))
        assert started == Started()
        ended = {}
        for index, event in slice_events:
            events.append((index, event))
            if isinstance(event, EpochEnded):
                ended[index] = event
            elif isinstance(event, CheckpointReady):
                states[index] = RunState(config=configs[index], ended=ended[index], ready=event)
            elif isinstance(event, Finished):
                del states[index]
    return events, slices


def timeless(events):
    """Returns rows, checkpoints and ends without their times, which differ between runs."""
    rows = [(index, event) for index, event in events if isinstance(event, EpochEnded | CheckpointReady | Finished)]
    return [
        (index, replace(event, seconds=0.0, images_per_second=0.0) if isinstance(event, EpochEnded) else event)
        for index, event in rows
    ]


EVERY = [TrainConfig(epochs=2, batch_size=4, optimizer=name) for name in OPTIMIZERS]


@pytest.mark.parametrize("configs", first_is_quick([[CONFIG, ADAM, CARRIED], [CONFIG], [ADAM], [CARRIED], EVERY]))
def test_a_race_in_slices_equals_an_undivided_race(stored, configs):
    """With one epoch a slice, rows and weights are bit for bit the same, whatever the other contenders are."""
    whole = timeless(race([(config, None) for config in configs], stored))
    events, slices = in_slices(configs, stored, START_SECONDS)
    assert slices == max(config.epochs for config in configs)
    for index in range(len(configs)):
        assert [event for at, event in timeless(events) if at == index] == [event for at, event in whole if at == index]


def test_a_race_that_fits_is_one_slice(stored):
    """A race is not divided without need."""
    events, slices = in_slices([CONFIG, ADAM], stored, 600)
    assert slices == 1
    assert [event.reason for _, event in events if isinstance(event, Finished)] == ["completed", "completed"]


def test_a_resumed_run_starts_from_its_checkpoint(stored, trained):
    """With changed settings too: the events are those of `race`, and the first row reports the change."""
    folder, _ = trained(CONFIG, stored, until=2)
    state = continued(read_checkpoint(folder), epochs=5, changes={"scheduler": "constant", "lr": 0.01})
    job = Slice(images=ImageFile.of(stored), states={0: RunState.of(state.config, state)}, paces={0: FAST}, seconds=600)
    assert job.states[0].epochs_left == 5 - state.epoch
    whole = timeless(race([(state.config, state)], stored))
    assert timeless(run_pickled(job)[1:]) == whole
    rows = [event for _, event in whole if isinstance(event, EpochEnded)]
    assert [row.continued_with is not None for row in rows] == [True] + [False] * (len(rows) - 1)


def test_jobs_and_events_contain_no_tensors(stored, trained):
    """Weights are bytes and images the path of a file, so that no pickle mentions torch."""
    folder, _ = trained(CONFIG, stored, until=2)
    state = read_checkpoint(folder)
    job = next_slice({0: RunState.of(CONFIG, state)}, {0: FAST}, stored, longest=60)
    for sent in (
        job,
        timed(Search.of(CONFIG, stored), FAST, stored),
        Measurement(images=ImageFile.of(stored), config=CONFIG),
    ):
        assert b"torch" not in pickle.dumps(sent)
    assert len(pickle.dumps(replace(job, states={}))) < 2000
    for event in run_job(job, CPU):
        assert b"torch" not in pickle.dumps(event)


def test_a_measurement_yields_a_pace(stored):
    """After Started, it yields nothing else."""
    started, pace = run_pickled(Measurement(images=ImageFile.of(stored), config=CONFIG))
    assert started == Started()
    assert pace.batch_seconds > 0


def test_a_classification_has_the_answers_of_its_network(stored):
    """They are those of the network that it was made of; it declares the time of an evaluation."""
    model = OptimizerLabModel(class_names=stored.class_names).eval()
    job = timed(Classification.of(model, stored), Pace(batch_seconds=0.0, test_seconds=7.0), stored)
    assert gpu_seconds(job) == seconds_to_declare(7.0)
    *_, last = run_pickled(job)
    assert last.fraction == 1
    assert torch.equal(last.answers.probabilities, finish(answer(model, stored)).probabilities)


def test_a_search_yields_its_trials(stored):
    """One by one, and the job can be closed at any of them."""
    events = run_job(timed(Search.of(CONFIG, stored), FAST, stored), CPU)
    assert next(events) == Started()
    assert [next(events).step, next(events).step] == [1, 2]
    events.close()


@pytest.mark.parametrize(
    ("config", "sentence"),
    [(CONFIG.changed({"batch_size": 1000}), "batch_size"), (CONFIG.changed({"precision": "float16"}), "CUDA")],
)
def test_a_mistake_is_returned_as_a_sentence(stored, config, sentence):
    """ZeroGPU would report an exception by the name of its class only."""
    for job in (
        Measurement(images=ImageFile.of(stored), config=config),
        Slice(images=ImageFile.of(stored), states={0: RunState.of(config, None)}, paces={0: FAST}, seconds=60),
    ):
        *_, last = run_pickled(job)
        assert isinstance(last, Refused)
        assert sentence in last.sentence


def test_images_other_than_the_apps_are_refused(stored, images):
    """A file that was overwritten, and images that are in no file."""
    job = Measurement(images=ImageFile(path=stored.path, digest="0" * 64), config=CONFIG)
    assert "changed" in run_pickled(job)[-1].sentence
    with pytest.raises(ValueError, match="disk"):
        ImageFile.of(replace(images, path=None))


def test_the_declared_duration(stored):
    """It is 1.25 times the remaining epochs plus the start, limited to `longest` but not below an epoch of each."""
    pace = Pace(batch_seconds=1.0, test_seconds=0.0)  # 5 batches
    states = {0: RunState.of(CONFIG, None), 1: RunState.of(ADAM, None)}
    paces = dict.fromkeys(states, pace)
    all_epochs, one_epoch = seconds_to_declare(5 * 7), seconds_to_declare(5 * 2)
    assert all_epochs == START_SECONDS + 44
    assert gpu_seconds(next_slice(states, paces, stored, longest=60)) == all_epochs
    assert gpu_seconds(next_slice(states, paces, stored, longest=30.7)) == 30
    assert gpu_seconds(next_slice(states, paces, stored, longest=2)) == one_epoch
    assert gpu_seconds(timed(Search.of(CONFIG, stored), pace, stored)) == seconds_to_declare(num_trials(CONFIG))
