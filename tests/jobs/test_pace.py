"""How long an epoch will take, measured on a few batches."""

import time

import pytest

from trainer.jobs.pace import Pace, measure, pace_of
from trainer.learning.learner import train_batch
from trainer.learning.loop import train
from trainer.runs.events import EpochEnded
from trainer.settings.config import TrainConfig

CONFIG = TrainConfig(epochs=2, batch_size=32)


@pytest.mark.slow
def test_an_epoch_takes_about_as_long_as_was_measured(images):
    """Within a factor that a busy machine may cost; warming up is not counted."""
    measured = measure(CONFIG, images).epoch_seconds(CONFIG, images)
    begun = time.perf_counter()
    for event in train(CONFIG, images):
        if isinstance(event, EpochEnded) and event.epoch == 0:
            begun = time.perf_counter()
    taken = (time.perf_counter() - begun) / 2
    assert taken / 5 < measured < taken * 5


def test_the_first_batch_only_warms_up(tiny, monkeypatch):
    """However long it takes, as where a GPU has just been lent."""
    calls = []

    def slow_at_first(*arguments, **options):
        time.sleep(0 if calls else 1.5)
        calls.append(1)
        return train_batch(*arguments, **options)

    monkeypatch.setattr("trainer.jobs.pace.train_batch", slow_at_first)
    assert measure(CONFIG.changed({"batch_size": 8}), tiny).batch_seconds < 1


def test_a_schedule_that_ends_does_not_end_the_measurement(tiny):
    """One epoch of four batches under onecycle: more batches than the schedule has are measured all the same."""
    pace = measure(TrainConfig(epochs=1, batch_size=8), tiny)
    assert pace.batch_seconds > 0
    assert pace.test_seconds > 0


def test_the_pace_of_an_epoch_foretells_the_next(tiny):
    """Told from an epoch's row it adds up to that epoch, whole batches alone where the last one is dropped."""
    for drop_last in (False, True):
        config = TrainConfig(epochs=2, batch_size=8, drop_last=drop_last)
        row = [event for event in train(config, tiny) if isinstance(event, EpochEnded)][-1]
        assert pace_of(row, config, tiny).epoch_seconds(config, tiny) == pytest.approx(row.seconds)


def test_epochs_are_as_long_as_they_have_batches(tiny):
    """26 pictures in batches of 8 are four batches, three where the last is dropped."""
    pace = Pace(batch_seconds=2.0, test_seconds=1.0)
    assert pace.epoch_seconds(TrainConfig(batch_size=8), tiny) == 9.0
    assert pace.epoch_seconds(TrainConfig(batch_size=8, drop_last=True), tiny) == 7.0


def test_settings_that_do_not_fit_are_told(tiny):
    """With the sentence that training itself would give."""
    with pytest.raises(ValueError, match="batch_size"):
        measure(TrainConfig(batch_size=1000), tiny)
