"""Trainings side by side: each as if it were alone, none ahead of the others."""

import time
from dataclasses import replace

import pytest

from trainer.images.image_data import facts
from trainer.learning.checkpoint import continued, resumed
from trainer.learning.loop import train
from trainer.learning.race import MAX_SEEDS, MAX_SETTINGS, limit_time, over_seeds, race
from trainer.runs.events import CheckpointReady, EpochEnded, Finished, StepLogged
from trainer.runs.reader import read_checkpoint, read_run
from trainer.runs.recorder import Recorder, record_race
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig

CONFIG = TrainConfig(epochs=3, batch_size=8, scheduler="constant")
ADAM = TrainConfig(epochs=3, batch_size=8, scheduler="constant", optimizer="adam")


def timeless(event):
    """The event without its times, which no two runs share."""
    times = {"seconds", "images_per_second", "epoch_seconds"} & set(type(event).__dataclass_fields__)
    return replace(event, **dict.fromkeys(times, 0.0))


def test_each_contender_trains_as_if_it_were_alone(tiny):
    """Event by event, weights included, what `train` yields, whatever runs beside it."""
    configs = [CONFIG, ADAM, CONFIG.changed({"zero_grad_every": 0}), CONFIG.changed({"batch_size": 4, "epochs": 1})]
    events = list(race([(config, None) for config in configs], tiny))
    for place, config in enumerate(configs):
        alone = [timeless(event) for event in train(config, tiny)]
        assert [timeless(event) for index, event in events if index == place] == alone


def test_seeds_of_fast_share_no_statistics(tiny):
    """Its running means and variances are each contender's own: weights and all are those of a training alone."""
    configs = over_seeds([CONFIG.changed({"model": "fast"}), CONFIG], 2)
    events = list(race([(config, None) for config in configs], tiny))
    for place, config in enumerate(configs):
        alone = [timeless(event) for event in train(config, tiny)]
        assert [timeless(event) for index, event in events if index == place] == alone


def test_a_race_of_one_is_a_training(tiny):
    """The one code path: the same events under place 0."""
    events = list(race([(CONFIG, None)], tiny))
    assert {place for place, _ in events} == {0}
    assert [timeless(event) for _, event in events] == [timeless(event) for event in train(CONFIG, tiny)]


def test_all_advance_together(tiny):
    """At any time, no contender is more than a batch of the coarsest ahead in epochs, small batches or large."""
    configs = [CONFIG, CONFIG.changed({"batch_size": 2}), ADAM]
    passed = dict.fromkeys(range(3), 0.0)
    for place, event in race([(config, None) for config in configs], tiny):
        if isinstance(event, StepLogged):
            passed[place] = event.step / event.num_steps * configs[place].epochs
            assert max(passed.values()) - min(passed.values()) <= 1 / 4 + 1e-9


def test_who_diverges_leaves_the_others_to_go_on(tiny):
    """One Finished each, with its own reason."""
    events = race([(CONFIG.changed({"lr": 1e4}), None), (CONFIG, None)], tiny)
    reasons = {place: event.reason for place, event in events if isinstance(event, Finished)}
    assert reasons == {0: "diverged", 1: "completed"}


def test_the_same_seed_starts_from_the_same_weights(tiny):
    """Contenders over the same seeds share their untrained networks; another seed has another."""
    configs = over_seeds([CONFIG, ADAM], 2)
    assert [(config.optimizer, config.seed) for config in configs] == [("sgd", 0), ("sgd", 1), ("adam", 0), ("adam", 1)]
    untrained = {}
    for place, event in race([(config, None) for config in configs], tiny):
        if isinstance(event, CheckpointReady) and event.epoch == 0:
            untrained[place] = event.model
    assert untrained[0] == untrained[2]
    assert untrained[1] == untrained[3]
    assert untrained[0] != untrained[1]


def test_times_are_those_of_a_contenders_own_turns(tiny):
    """What another's epochs and the reader take is not in them."""
    begun = time.perf_counter()
    seconds = 0.0
    for _, event in race([(CONFIG, None), (ADAM, None)], tiny):
        if isinstance(event, EpochEnded):
            seconds += event.seconds
            time.sleep(0.05)
    assert 0 < seconds <= time.perf_counter() - begun - 8 * 0.05


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
def test_what_is_no_race_is_told(configs, num_seeds, sentence):
    """None, too many, or the same twice: a sentence each."""
    with pytest.raises(ValueError, match=sentence):
        over_seeds(configs, num_seeds)


def test_a_config_that_does_not_fit_is_told_before_anything_runs(tiny):
    """At the call, not at the first event."""
    with pytest.raises(ValueError, match="batch_size"):
        race([(CONFIG, None), (CONFIG.changed({"batch_size": 1000}), None)], tiny)


def test_stop_keeps_every_contender_and_resume_goes_on_exactly(tiny, tmp_path):
    """Stopped in the middle, each folder holds its last epoch, and what follows is what would have followed."""
    configs = [CONFIG, ADAM]

    def recorders(runs):
        return [Recorder(run=run, folder=tmp_path / str(place), data=facts(tiny)) for place, run in enumerate(runs)]

    for place in range(2):
        (tmp_path / str(place)).mkdir()
    kept = recorders([Run(config=config) for config in configs])
    events = race([(config, None) for config in configs], tiny)
    last = [
        (place, event.reason)
        for place, event in record_race(events, kept, stop=lambda: kept[1].run.epoch >= 1)
        if isinstance(event, Finished)
    ]
    assert last == [(0, "stopped"), (1, "stopped")]

    states = [read_checkpoint(tmp_path / str(place)) for place in range(2)]
    assert all(1 <= state.epoch < 3 for state in states)
    again = recorders([resumed(state) for state in states])
    for _ in record_race(race([(state.config, state) for state in states], tiny), again):
        pass
    for place, config in enumerate(configs):
        whole = [event for event in train(config, tiny) if isinstance(event, EpochEnded)]
        run = read_run(tmp_path / str(place))
        assert run.status == "completed"
        assert [timeless(row) for row in run.history] == [timeless(row) for row in whole]


def test_stop_before_its_turn_keeps_what_a_contender_was_to_go_on_with(tiny, trained, tmp_path):
    """Stopped at the first batch of all: both settings are there to go on with, though only one had its turn."""
    folders = [trained(replace(CONFIG, epochs=1), tiny, folder=tmp_path / name)[0] for name in "ab"]
    states = [continued(read_checkpoint(folder), epochs=3, changes={"scheduler": "constant"}) for folder in folders]
    recorders = [
        Recorder(run=resumed(state), folder=folder, data=facts(tiny), resume=state)
        for folder, state in zip(folders, states, strict=True)
    ]
    events = race([(state.config, state) for state in states], tiny)
    assert len(list(record_race(events, recorders, stop=lambda: True))) == 2
    for folder, state in zip(folders, states, strict=True):
        kept = read_checkpoint(folder)
        assert (kept.config, kept.continued_with) == (state.config, {"scheduler": "constant"})


def test_a_pause_ends_a_contender_with_an_epoch_and_leaves_the_others(tiny):
    """Asked after each trained epoch but the last; whoever pauses says nothing more, not even that it has finished."""
    asked = []

    def pause(place):
        asked.append(place)
        return place == 1

    events = list(race([(CONFIG, None), (ADAM, None)], tiny, pause=pause))
    epochs = {
        place: [event.epoch for at, event in events if at == place and isinstance(event, EpochEnded)]
        for place in (0, 1)
    }
    assert epochs == {0: [0, 1, 2, 3], 1: [0, 1]}
    assert sorted(asked) == [0, 0, 1]
    assert [(place, event.reason) for place, event in events if isinstance(event, Finished)] == [(0, "completed")]


def test_who_could_not_end_an_epoch_is_told_so(tiny):
    """Going on would end as it did; for who has ended one it is the way."""
    before = list(race([(CONFIG, None)], tiny))
    ready = next(event for _, event in before if isinstance(event, CheckpointReady) and event.epoch == 1)
    untrained, step = before[1][1], next(event for _, event in before if isinstance(event, StepLogged))

    def events():
        yield 0, ready
        yield 1, untrained
        time.sleep(0.1)
        yield 1, step

    ended = [event for _, event in limit_time(events(), 2, seconds=0.05, advice="later", too_slow="never")][3:]
    assert isinstance(untrained, CheckpointReady)
    assert [event.advice for event in ended] == ["later", "never"]


def test_out_of_time_ends_everyone_who_is_not_done(tiny):
    """With the advice given; what has ended by then, and a race that is in time, is left as it is."""
    configs = [CONFIG.changed({"lr": 1e4}), CONFIG, ADAM]
    begun = limit_time(
        race([(config, None) for config in configs], tiny), 3, seconds=0, advice="later", too_slow="never"
    )
    assert [(place, event.reason) for place, event in begun if isinstance(event, Finished)] == [
        (place, "out_of_time") for place in range(3)
    ]
    whole = list(limit_time(race([(CONFIG, None)], tiny), 1, seconds=1e9, advice="later", too_slow="never"))
    assert whole[-1] == (0, Finished(reason="completed"))
