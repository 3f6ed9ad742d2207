"""The tutorial's experiments: the mistakes go wrong as they did in the notebook, and their mended twins do not."""

from dataclasses import replace
from itertools import pairwise

import pytest

from trainer import train
from trainer.data import subset
from trainer.events import EpochEnded, Finished, StepLogged
from trainer.lessons import LESSONS

MISTAKES = ("softmax-plateau", "adam-step-per-batch", "sgd-step-per-batch")


def sums(config, data, epochs):
    """The sums of batch losses of the first epochs, as the tutorial prints them."""
    short = config.changed({"epochs": epochs})
    return [e.train_loss_sum for e in train(short, data) if isinstance(e, EpochEnded) and e.epoch]


@pytest.fixture(scope="module")
def drawn():
    """2,048 drawn test pictures: 32 batches an epoch."""
    from trainer.data import load_images

    data = load_images("synthetic")
    return replace(data, train=subset(data.train, 64), test=subset(data.test, 2000))


@pytest.mark.parametrize("lesson", LESSONS.values(), ids=LESSONS)
def test_every_lesson_is_sound_and_told(lesson):
    """Its settings and its twin's are valid and differ in the mistake alone; its words are there."""
    own, twin = lesson.config.settings(), lesson.twin.settings()
    assert {name for name in own if own[name] != twin.get(name)} == set(lesson.mended)
    assert lesson.config.train_split == "test"
    assert lesson.config.activation == "none"
    assert lesson.before
    assert lesson.after


@pytest.mark.parametrize("name", MISTAKES[1:])
def test_a_schedule_per_batch_freezes_drawn_pictures_too(drawn, name):
    """From the third epoch on (lr is gone after some 50 batches) nothing moves."""
    moved = sums(LESSONS[name].config, drawn, 4)
    assert abs(moved[3] - moved[2]) < 0.001


def test_gradients_never_cleared_blow_up(drawn):
    """Within three epochs of drawn pictures the loss is no number any more."""
    events = list(train(LESSONS["zero-grad-never"].config.changed({"epochs": 30}), drawn))
    assert events[-1].reason == "diverged"
    assert "zero_grad_every" in events[-1].advice


def test_one_real_epoch_falls_a_little(real_images):
    """Lesson 1: the last ten steps average below the first ten, by far less than its twin's."""
    lesson = LESSONS["one-epoch"]
    losses = [e.loss for e in train(lesson.config, real_images) if isinstance(e, StepLogged)]
    assert len(losses) == 156
    assert 2.25 < sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 < 2.32


def test_softmax_plateau_on_real_images(real_images):
    """Lesson 2 starts at guessing and hardly moves; without the softmax it is clearly lower."""
    lesson = LESSONS["softmax-plateau"]
    plateau = sums(lesson.config, real_images, 3)
    assert 359.0 <= plateau[0] <= 359.6
    assert all(0 < a - b < 0.05 for a, b in pairwise(plateau))
    assert sums(lesson.twin, real_images, 2)[-1] < plateau[-1] - 2


@pytest.mark.parametrize("name", MISTAKES[1:])
def test_a_schedule_per_batch_freezes_real_images(real_images, name):
    """Lessons 3 and 4: from the second epoch on the sum stays the same; stepped per epoch it falls."""
    lesson = LESSONS[name]
    frozen = sums(lesson.config, real_images, 3)
    assert abs(frozen[2] - frozen[1]) < 0.001
    assert sums(lesson.twin, real_images, 1)[-1] < frozen[-1] - 0.5


def test_zero_grad_never_blows_up_in_its_first_real_epoch(real_images):
    """It diverges before its first epoch ends."""
    events = list(train(LESSONS["zero-grad-never"].config, real_images))
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "diverged"
    assert max(e.epoch for e in events if isinstance(e, EpochEnded)) == 0
