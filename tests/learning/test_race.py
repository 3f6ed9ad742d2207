"""A race: contenders train as if alone, and advance together."""

import time
from dataclasses import replace

import pytest

from trainer.errors import Message
from trainer.images.image_data import facts
from trainer.learning.checkpoint import continued, resumed
from trainer.learning.loop import train
from trainer.learning.race import MAX_SEEDS, MAX_SETTINGS, TimeLimit, limit_time, over_seeds, race
from trainer.runs.events import CheckpointReady, EpochEnded, Finished, StepLogged
from trainer.runs.reader import read_checkpoint, read_run
from trainer.runs.recorder import Recorder, record_race
from trainer.runs.run import Run
from trainer.settings.config import MODELS, TrainConfig
from trainer.settings.optimizers import OPTIMIZERS

CONFIG = TrainConfig(epochs=3, batch_size=8, scheduler="constant")
ADAM = TrainConfig(epochs=3, batch_size=8, scheduler="constant", optimizer="adam")


def within(seconds):
    return TimeLimit(seconds=seconds, advice=Message("later"), too_slow=Message("never"))


def timeless(event):
    """Returns the event without its times, which differ between runs."""
    times = {"seconds", "images_per_second", "epoch_seconds"} & set(type(event).__dataclass_fields__)
    return replace(event, **dict.fromkeys(times, 0.0))


def test_each_contender_trains_as_if_it_were_alone(tiny):
    """Its events, weights included, are those of `train`, whatever the other contenders are."""
    configs = [CONFIG, ADAM, CONFIG.changed({"zero_grad_every": 0}), CONFIG.changed({"batch_size": 4, "epochs": 1})]
    events = list(race([(config, None) for config in configs], tiny))
    for index, config in enumerate(configs):
        alone = [timeless(event) for event in train(config, tiny)]
        assert [timeless(event) for its_index, event in events if its_index == index] == alone


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_optimizer_races_as_if_it_were_alone(model, tiny):
    """None shares anything with the others."""
    configs = [TrainConfig(optimizer=name, model=model, epochs=1, batch_size=4) for name in OPTIMIZERS]
    events = list(race([(config, None) for config in configs], tiny))
    for index, config in enumerate(configs):
        alone = [timeless(event) for event in train(config, tiny)]
        assert [timeless(event) for its_index, event in events if its_index == index] == alone


@pytest.mark.slow
def test_seeds_of_fast_share_no_statistics(tiny):
    """Each contender has running statistics of its own, and ends with the weights of a training alone."""
    configs = over_seeds([CONFIG.changed({"model": "fast"}), CONFIG], 2)
    events = list(race([(config, None) for config in configs], tiny))
    for index, config in enumerate(configs):
        alone = [timeless(event) for event in train(config, tiny)]
        assert [timeless(event) for its_index, event in events if its_index == index] == alone


def test_a_race_of_one_is_a_training(tiny):
    """The same events, with index 0."""
    events = list(race([(CONFIG, None)], tiny))
    assert {index for index, _ in events} == {0}
    assert [timeless(event) for _, event in events] == [timeless(event) for event in train(CONFIG, tiny)]


def test_all_advance_together(tiny):
    """No contender is ever ahead by more than one of the largest batches."""
    configs = [CONFIG, CONFIG.changed({"batch_size": 2}), ADAM]
    passed = dict.fromkeys(range(3), 0.0)
    for index, event in race([(config, None) for config in configs], tiny):
        if isinstance(event, StepLogged):
            passed[index] = event.step / event.num_steps * configs[index].epochs
            assert max(passed.values()) - min(passed.values()) <= 1 / 4 + 1e-9


def test_the_others_continue_when_one_diverges(tiny):
    """Each contender ends with one Finished and its own reason."""
    events = race([(CONFIG.changed({"lr": 1e4}), None), (CONFIG, None)], tiny)
    reasons = {index: event.reason for index, event in events if isinstance(event, Finished)}
    assert reasons == {0: "diverged", 1: "completed"}


def test_the_same_seed_starts_from_the_same_weights(tiny):
    """Contenders with the same seed have the same untrained network; another seed gives another one."""
    configs = over_seeds([CONFIG, ADAM], 2)
    assert [(config.optimizer, config.seed) for config in configs] == [("sgd", 0), ("sgd", 1), ("adam", 0), ("adam", 1)]
    untrained = {}
    for index, event in race([(config, None) for config in configs], tiny):
        if isinstance(event, CheckpointReady) and event.epoch == 0:
            untrained[index] = event.model
    assert untrained[0] == untrained[2]
    assert untrained[1] == untrained[3]
    assert untrained[0] != untrained[1]


def test_times_are_those_of_a_contenders_own_turns(tiny):
    """They contain neither the others' turns nor the reader's time."""
    started = time.perf_counter()
    seconds = 0.0
    for _, event in race([(CONFIG, None), (ADAM, None)], tiny):
        if isinstance(event, EpochEnded):
            seconds += event.seconds
            time.sleep(0.05)
    assert 0 < seconds <= time.perf_counter() - started - 8 * 0.05


@pytest.mark.parametrize(
    ("configs", "num_seeds", "sentence"),
    [
        ([], 1, "Add settings"),
        ([CONFIG, CONFIG.changed({"seed": 3})], 1, "the same"),
        ([CONFIG.changed({"lr": 1.0 / n}) for n in range(1, MAX_SETTINGS + 2)], 1, "up to 6"),
        ([CONFIG], 0, "1 to 5"),
        ([CONFIG], MAX_SEEDS + 1, "1 to 5"),
    ],
)
def test_an_invalid_race_is_refused(configs, num_seeds, sentence):
    """Without settings, with too many, or with two equal ones."""
    with pytest.raises(ValueError, match=sentence):
        over_seeds(configs, num_seeds)


def test_a_config_that_does_not_fit_is_refused_at_once(tiny):
    """On the call, before the first event."""
    with pytest.raises(ValueError, match="batch_size"):
        race([(CONFIG, None), (CONFIG.changed({"batch_size": 1000}), None)], tiny)


def test_stop_saves_every_contender_and_resume_is_exact(tiny, tmp_path):
    """After a stop each folder has the last epoch, from which the contenders continue as if never stopped."""
    configs = [CONFIG, ADAM]

    def recorders(runs):
        return [Recorder(run=run, folder=tmp_path / str(index), data=facts(tiny)) for index, run in enumerate(runs)]

    for index in range(2):
        (tmp_path / str(index)).mkdir()
    recorded = recorders([Run(config=config) for config in configs])
    events = race([(config, None) for config in configs], tiny)
    last = [
        (index, event.reason)
        for index, event in record_race(events, recorded, stop=lambda: recorded[1].run.epoch >= 1)
        if isinstance(event, Finished)
    ]
    assert last == [(0, "stopped"), (1, "stopped")]

    states = [read_checkpoint(tmp_path / str(index)) for index in range(2)]
    assert all(1 <= state.epoch < 3 for state in states)
    again = recorders([resumed(state) for state in states])
    for _ in record_race(race([(state.config, state) for state in states], tiny), again):
        pass
    for index, config in enumerate(configs):
        whole = [event for event in train(config, tiny) if isinstance(event, EpochEnded)]
        run = read_run(tmp_path / str(index))
        assert run.status == "completed"
        assert [timeless(row) for row in run.history] == [timeless(row) for row in whole]


def test_stop_before_a_contenders_turn_saves_its_changed_settings(tiny, trained, tmp_path):
    """Stopped at the first batch: the changes of both are saved, although only one had a turn."""
    folders = [trained(replace(CONFIG, epochs=1), tiny, folder=tmp_path / name)[0] for name in "ab"]
    states = [continued(read_checkpoint(folder), epochs=3, changes={"scheduler": "constant"}) for folder in folders]
    recorders = [
        Recorder(run=resumed(state), folder=folder, data=facts(tiny), resume=state)
        for folder, state in zip(folders, states, strict=True)
    ]
    events = race([(state.config, state) for state in states], tiny)
    assert len(list(record_race(events, recorders, stop=lambda: True))) == 2
    for folder, state in zip(folders, states, strict=True):
        recorded = read_checkpoint(folder)
        assert (recorded.config, recorded.continued_with) == (state.config, {"scheduler": "constant"})


def test_a_paused_contender_leaves_at_the_end_of_an_epoch(tiny):
    """`pause` is called after each epoch but the last; a paused contender yields no more events, not even Finished."""
    calls = []

    def pause(index):
        calls.append(index)
        return index == 1

    events = list(race([(CONFIG, None), (ADAM, None)], tiny, pause=pause))
    epochs = {
        index: [event.epoch for at, event in events if at == index and isinstance(event, EpochEnded)]
        for index in (0, 1)
    }
    assert epochs == {0: [0, 1, 2, 3], 1: [0, 1]}
    assert sorted(calls) == [0, 0, 1]
    assert [(index, event.reason) for index, event in events if isinstance(event, Finished)] == [(0, "completed")]


def test_a_run_without_an_epoch_in_time_has_other_advice(tiny):
    """To resume it would end in the same way; a run with an epoch can be resumed."""
    before = list(race([(CONFIG, None)], tiny))
    ready = next(event for _, event in before if isinstance(event, CheckpointReady) and event.epoch == 1)
    untrained, step = before[1][1], next(event for _, event in before if isinstance(event, StepLogged))

    def events():
        yield 0, ready
        yield 1, untrained
        time.sleep(0.1)
        yield 1, step

    ended = [event for _, event in limit_time(events(), 2, within(0.05))][3:]
    assert isinstance(untrained, CheckpointReady)
    assert [event.advice for event in ended] == ["later", "never"]


def test_out_of_time_ends_all_unfinished_runs(tiny):
    """With the given advice; finished runs and races within the limit stay as they are."""
    configs = [CONFIG.changed({"lr": 1e4}), CONFIG, ADAM]
    events = limit_time(race([(config, None) for config in configs], tiny), 3, within(0))
    assert [(index, event.reason) for index, event in events if isinstance(event, Finished)] == [
        (index, "out_of_time") for index in range(3)
    ]
    whole = list(limit_time(race([(CONFIG, None)], tiny), 1, within(1e9)))
    assert whole[-1] == (0, Finished(reason="completed"))


@pytest.mark.slow
def test_only_the_time_of_the_race_counts_towards_the_limit(tiny):
    """A race that waits between its events, because others have their turn, has used no time."""
    events = limit_time(race([(CONFIG, None)], tiny), 1, within(2))
    seen = []
    for _, event in events:
        seen.append(event)
        time.sleep(0.05)
    assert seen[-1] == Finished(reason="completed")
