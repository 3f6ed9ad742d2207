"""The time of an epoch, estimated from a few batches."""

import time
from dataclasses import replace

import pytest

from trainer.images.image_data import Split
from trainer.jobs.pace import Pace, measure, pace_of
from trainer.learning.learner import train_batch
from trainer.learning.loop import train
from trainer.runs.events import EpochEnded
from trainer.settings.config import TrainConfig

pytestmark = pytest.mark.slow  # a pace needs real time
CONFIG = TrainConfig(epochs=2, batch_size=32)


def test_an_epoch_takes_about_as_long_as_was_measured(images):
    """Within a factor of 5, because the machine may be busy; warming up does not count."""
    measured = measure(CONFIG, images).epoch_seconds(CONFIG, images)
    started = time.perf_counter()
    for event in train(CONFIG, images):
        if isinstance(event, EpochEnded) and event.epoch == 0:
            started = time.perf_counter()
    taken = (time.perf_counter() - started) / 2
    assert taken / 5 < measured < taken * 5


def test_the_first_batch_only_warms_up(tiny, monkeypatch):
    """However long it takes, as on a GPU that was borrowed just now."""
    calls = []

    def slow_at_first(*arguments, **options):
        time.sleep(0 if calls else 1.5)
        calls.append(1)
        return train_batch(*arguments, **options)

    monkeypatch.setattr("trainer.jobs.pace.train_batch", slow_at_first)
    assert measure(CONFIG.changed({"batch_size": 8}), tiny).batch_seconds < 0.17


def test_an_interruption_does_not_count(tiny, monkeypatch):
    """The pace is the median of several rounds, of which other processes may have interrupted one."""
    calls = []

    def interrupted(*arguments, **options):
        calls.append(1)
        time.sleep(0.6 if len(calls) == 4 else 0.06)
        return train_batch(*arguments, **options)

    monkeypatch.setattr("trainer.jobs.pace.train_batch", interrupted)
    assert measure(CONFIG.changed({"batch_size": 8}), tiny).batch_seconds < 0.17


def test_a_schedule_that_ends_does_not_end_the_measurement(tiny):
    """A measurement may take more batches than the schedule of a run with four batches has steps."""
    pace = measure(TrainConfig(epochs=1, batch_size=8), tiny)
    assert pace.batch_seconds > 0
    assert pace.test_seconds > 0


def test_the_pace_of_an_epoch_gives_its_seconds(tiny):
    """The pace of an epoch's row adds up to that epoch's seconds, also if a partial batch is dropped."""
    for drop_last in (False, True):
        config = TrainConfig(epochs=2, batch_size=8, drop_last=drop_last)
        row = [event for event in train(config, tiny) if isinstance(event, EpochEnded)][-1]
        assert pace_of(row, config, tiny).epoch_seconds(config, tiny) == pytest.approx(row.seconds)


def test_epochs_are_as_long_as_they_have_batches(tiny):
    """26 pictures in batches of 8 make four batches, or three if the partial one is dropped."""
    pace = Pace(batch_seconds=2.0, test_seconds=1.0)
    assert pace.epoch_seconds(TrainConfig(batch_size=8), tiny) == 9.0
    assert pace.epoch_seconds(TrainConfig(batch_size=8, drop_last=True), tiny) == 7.0


def test_settings_that_do_not_fit_are_refused(tiny):
    """With the same sentence as in training."""
    with pytest.raises(ValueError, match="batch_size"):
        measure(TrainConfig(batch_size=1000), tiny)


def test_a_run_has_one_evaluation_on_all_test_images(tiny):
    """The others are on 1,000 of 4,000, because 26 pictures are trained on sooner; their pace is that of all."""
    many = Split(images=tiny.test.images[:1].expand(4000, -1, -1, -1), labels=tiny.test.labels[:1].expand(4000))
    data = replace(tiny, test=many)
    pace = Pace(batch_seconds=2.0, test_seconds=4.0)
    config = TrainConfig(epochs=3, batch_size=8)
    assert pace.run_seconds(config, data) == pytest.approx(3 * 4 * 2.0 + 2 * 1.0 + 4.0)
    assert pace.run_seconds(config, tiny) == pytest.approx(3 * 4 * 2.0 + 3 * 4.0)
    row = EpochEnded(
        epoch=1,
        train_loss=2.0,
        train_loss_sum=8.0,
        test_loss=2.0,
        test_accuracy=0.1,
        lr=0.1,
        grad_norm=1.0,
        seconds=9.0,
        images_per_second=26 / 8.0,
        test_share=0.25,
    )
    assert pace_of(row, config, data) == pace
