"""Pieces of work for a GPU that is lent by the second: plain data in and out, exact from one to the next."""

import pickle
from dataclasses import replace

import pytest
import torch

from trainer.images.image_data import load_images
from trainer.jobs.pace import Pace
from trainer.jobs.slices import (
    START_SECONDS,
    ImageFile,
    Measurement,
    Refused,
    RunState,
    Slice,
    Started,
    gpu_seconds,
    next_slice,
    run_job,
    search,
    seconds_to_declare,
)
from trainer.learning.checkpoint import continued
from trainer.learning.lr_finder import num_trials
from trainer.learning.race import race
from trainer.runs.events import CheckpointReady, EpochEnded, Finished
from trainer.runs.reader import read_checkpoint
from trainer.settings.config import TrainConfig

CPU = torch.device("cpu")
CONFIG = TrainConfig(epochs=4, batch_size=8)
ADAM = TrainConfig(epochs=3, batch_size=8, optimizer="adam", scheduler="plateau")
CARRIED = TrainConfig(epochs=4, batch_size=8, zero_grad_every=3)
FAST = Pace(batch_seconds=0.0, test_seconds=1e-3)


@pytest.fixture(scope="module")
def kept(image_folder):
    """Images that are kept in a file, as the app's are."""
    return load_images(str(image_folder))


def crossed(job):
    """What comes of a piece on the other side, both ways pickled."""
    return [pickle.loads(pickle.dumps(fact)) for fact in run_job(pickle.loads(pickle.dumps(job)), CPU)]


def in_slices(configs, images, seconds):
    """The events of a race cut into slices of so many seconds, and how many slices it took."""
    states = {place: RunState.of(config, None) for place, config in enumerate(configs)}
    events, slices = [], 0
    while states:
        job = next_slice(states, dict.fromkeys(states, FAST), images, longest=60)
        slices += 1
        begun, *facts = crossed(replace(job, seconds=seconds))
        assert begun == Started()
        ended = {}
        for place, event in facts:
            events.append((place, event))
            if isinstance(event, EpochEnded):
                ended[place] = event
            elif isinstance(event, CheckpointReady):
                states[place] = RunState(config=configs[place], ended=ended[place], ready=event)
            elif isinstance(event, Finished):
                del states[place]
    return events, slices


def timeless(events):
    """The events that matter, without their times, which no two runs share."""
    rows = [(place, event) for place, event in events if isinstance(event, EpochEnded | CheckpointReady | Finished)]
    return [
        (place, replace(event, seconds=0.0, images_per_second=0.0) if isinstance(event, EpochEnded) else event)
        for place, event in rows
    ]


@pytest.mark.parametrize("configs", [[CONFIG], [ADAM], [CARRIED], [CONFIG, ADAM, CARRIED]])
def test_epoch_by_epoch_is_what_an_uncut_race_is(kept, configs):
    """With time for a single epoch a slice: the same rows and the same weights, bit for bit, whoever is beside it."""
    whole = timeless(race([(config, None) for config in configs], kept))
    events, slices = in_slices(configs, kept, START_SECONDS)
    assert slices == 4 - (configs == [ADAM])
    for place in range(len(configs)):
        assert [event for at, event in timeless(events) if at == place] == [event for at, event in whole if at == place]


def test_what_there_is_time_for_is_one_slice(kept):
    """Nothing is cut that fits."""
    events, slices = in_slices([CONFIG, ADAM], kept, 600)
    assert slices == 1
    assert [event.reason for _, event in events if isinstance(event, Finished)] == ["completed", "completed"]


def test_a_resumed_run_begins_where_it_was_kept(kept, trained):
    """From a run's folder, changed settings included: as `race` itself would go on, and the change told once."""
    folder, _ = trained(CONFIG, kept, until=2)
    state = continued(read_checkpoint(folder), epochs=5, changes={"scheduler": "constant", "lr": 0.01})
    job = Slice(images=ImageFile.of(kept), states={0: RunState.of(state.config, state)}, paces={0: FAST}, seconds=600)
    assert job.states[0].epochs_left == 5 - state.epoch
    whole = timeless(race([(state.config, state)], kept))
    assert timeless(crossed(job)[1:]) == whole
    rows = [event for _, event in whole if isinstance(event, EpochEnded)]
    assert [row.continued_with is not None for row in rows] == [True] + [False] * (len(rows) - 1)


def test_neither_images_nor_tensors_are_pickled(kept, trained):
    """Weights cross as bytes, images as the path of a file: no pickle names torch."""
    folder, _ = trained(CONFIG, kept, until=2)
    state = read_checkpoint(folder)
    job = next_slice({0: RunState.of(CONFIG, state)}, {0: FAST}, kept, longest=60)
    for crossing in (job, search(CONFIG, FAST, kept), Measurement(images=ImageFile.of(kept), config=CONFIG)):
        assert b"torch" not in pickle.dumps(crossing)
    assert len(pickle.dumps(replace(job, states={}))) < 2000
    for fact in run_job(job, CPU):
        assert b"torch" not in pickle.dumps(fact)


def test_a_measurement_yields_a_pace(kept):
    """And nothing else, but that it has begun."""
    begun, pace = crossed(Measurement(images=ImageFile.of(kept), config=CONFIG))
    assert begun == Started()
    assert pace.batch_seconds > 0


def test_a_search_yields_its_trials(kept):
    """As they come, and it can be left at any of them."""
    facts = run_job(search(CONFIG, FAST, kept), CPU)
    assert next(facts) == Started()
    assert [next(facts).step, next(facts).step] == [1, 2]
    facts.close()


@pytest.mark.parametrize(
    ("config", "sentence"),
    [(CONFIG.changed({"batch_size": 1000}), "batch_size"), (CONFIG.changed({"precision": "float16"}), "CUDA")],
)
def test_a_mistake_comes_back_as_its_sentence(kept, config, sentence):
    """An exception would arrive as the bare name of its class."""
    for job in (
        Measurement(images=ImageFile.of(kept), config=config),
        Slice(images=ImageFile.of(kept), states={0: RunState.of(config, None)}, paces={0: FAST}, seconds=60),
    ):
        *_, last = crossed(job)
        assert isinstance(last, Refused)
        assert sentence in last.sentence


def test_other_images_than_the_apps_are_refused(kept, images):
    """A file that was overwritten, and images that no file holds."""
    job = Measurement(images=ImageFile(path=kept.path, digest="0" * 64), config=CONFIG)
    assert "changed" in crossed(job)[-1].sentence
    with pytest.raises(ValueError, match="disk"):
        ImageFile.of(replace(images, path=None))


def test_the_declared_duration_is_tight(kept):
    """What is left, a quarter more and the start; at most a slice, but an epoch of each."""
    pace = Pace(batch_seconds=1.0, test_seconds=0.0)  # 5 batches
    states = {0: RunState.of(CONFIG, None), 1: RunState.of(ADAM, None)}
    paces = dict.fromkeys(states, pace)
    everything, round_of_all = seconds_to_declare(5 * 7), seconds_to_declare(5 * 2)
    assert everything == START_SECONDS + 44
    assert gpu_seconds(next_slice(states, paces, kept, longest=60)) == everything
    assert gpu_seconds(next_slice(states, paces, kept, longest=30.7)) == 30
    assert gpu_seconds(next_slice(states, paces, kept, longest=2)) == round_of_all
    assert gpu_seconds(search(CONFIG, pace, kept)) == seconds_to_declare(num_trials(CONFIG))
