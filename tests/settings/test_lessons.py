"""The lessons: the mistakes fail as in the notebook, and their fixed versions do not."""

import json
import math
from dataclasses import replace
from itertools import islice, pairwise
from statistics import fmean

import pytest
import torch
from safetensors.torch import load

from trainer import TrainConfig, train
from trainer.images.image_data import subset
from trainer.insight.plane import Snapshots, vector_of
from trainer.insight.sharpness import Measured, SharpnessMeasured, measure
from trainer.learning.training_set import training_split
from trainer.networks.model import OptimizerLabModel
from trainer.runs.events import CheckpointReady, EpochEnded, Finished, StepLogged
from trainer.settings.config import ROW_SETTINGS
from trainer.settings.lessons import LESSONS, lesson_of, zero_grad_lab

TRAINED = {name: lesson for name, lesson in LESSONS.items() if not lesson.vary}
MISTAKES = ("softmax-plateau", "adam-step-per-batch", "sgd-step-per-batch")


def sums(config, data, epochs):
    """Returns the sums of batch losses of the first epochs, as the tutorial prints them."""
    short = config.changed({"epochs": epochs, "train_split": "train"})
    few = replace(data, train=getattr(data, config.train_split), test=subset(data.test, 100))
    return [e.train_loss_sum for e in train(short, few) if isinstance(e, EpochEnded) and e.epoch]


@pytest.fixture(scope="module")
def drawn():
    """2,048 synthetic pictures as the test split: 32 batches per epoch."""
    from trainer.images.image_data import load_images

    data = load_images("synthetic")
    return replace(data, train=subset(data.train, 64), test=subset(data.test, 2000))


@pytest.mark.parametrize("lesson", LESSONS.values(), ids=LESSONS)
def test_every_lesson_is_complete(lesson):
    """It and its comparison runs are valid and differ only in what these change; its texts are not empty."""
    own = lesson.config.settings()
    for changes, compared in zip(lesson.comparisons, lesson.compared, strict=True):
        other = compared.settings()
        differing = {name for name in own.keys() | other.keys() if own.get(name) != other.get(name)}
        assert differing
        assert all(other[name] == value for name, value in changes.items())
        assert {name for name in differing if name not in ROW_SETTINGS} <= {*changes, "scheduler", "scheduler_unit"}
    if lesson.printed or lesson.is_mistake:
        assert lesson.config.train_split == "test"
        assert lesson.config.activation == "none"
    assert bool(lesson.comparisons) != bool(lesson.vary)
    assert len(lesson.printed) == len(lesson.printed_at)
    assert lesson.before
    assert lesson.after


def test_a_lesson_as_json():
    """The keys are public; the first comparison is called `mended` there."""
    lesson = LESSONS["one-epoch"]
    assert json.loads(json.dumps(lesson.to_json())) == {
        "name": "one-epoch",
        "title": lesson.title,
        "settings": {"epochs": 1},
        "mended": {"epochs": 10, "momentum": 0.9},
        "comparisons": [{"epochs": 10, "momentum": 0.9}],
        "vary": [],
        "before": lesson.before,
        "after": lesson.after,
        "printed": [2.2978, 2.2988, 2.3163, 2.3253, 2.2804],
        "printed_unit": "batch",
        "printed_at": [1, 2, 3, 4, 156],
    }


@pytest.mark.parametrize("lesson", TRAINED.values(), ids=TRAINED)
def test_a_lesson_is_known_by_its_settings(lesson):
    """With fewer epochs or another seed it is still the lesson; its comparison runs and the default config are not."""
    shorter = {} if lesson.name == "one-epoch" else {"epochs": 2}
    assert lesson_of(lesson.config.changed({"seed": 5, **shorter})) is lesson
    assert not any(lesson_of(config) for config in lesson.compared)
    assert lesson_of(TrainConfig()) is None


@pytest.mark.slow
def test_accumulated_gradients_are_those_of_one_large_batch(images):
    """k batches of n, with the loss divided by k, and one batch of k·n have the same losses in each epoch."""
    plain = {"optimizer": "sgd", "momentum": 0.0, "epochs": 2, "batch_size": 32, "lr": 0.1, "scheduler": "constant"}
    images = replace(images, train=subset(images.train, 256), test=subset(images.test, 50))
    every, accumulated, never, large = zero_grad_lab(TrainConfig.from_settings(plain), 4)
    assert (large.batch_size, accumulated.zero_grad_every, never.zero_grad_every) == (128, 4, 0)
    accumulated_rows, large_rows = (
        [(e.train_loss, e.test_loss, e.grad_norm) for e in train(config, images) if isinstance(e, EpochEnded)][1:]
        for config in (accumulated, large)
    )
    for (loss, test_loss, _), (its_loss, its_test_loss, _) in zip(accumulated_rows, large_rows, strict=True):
        assert loss == pytest.approx(its_loss, abs=1e-5)
        assert test_loss == pytest.approx(its_test_loss, abs=1e-5)
    other = [e.test_loss for e in train(every, images) if isinstance(e, EpochEnded)]
    assert other[-1] != pytest.approx(large_rows[-1][1], abs=1e-4), "four times as many steps should differ"


@pytest.mark.parametrize(("every", "batch_size"), [(1, 64), (0, 64), (10**6, 64), (4, 0)])
def test_an_impossible_zero_grad_lab_is_refused(every, batch_size):
    """Nothing to accumulate, a batch that is too large, or one that is all pictures."""
    with pytest.raises(ValueError, match=r"\.$"):
        zero_grad_lab(TrainConfig(batch_size=batch_size), every)


@pytest.mark.slow
def test_softmax_plateau_on_synthetic_pictures(drawn):
    """Lesson 2 falls by less than a fiftieth of what it falls without the softmax."""
    lesson = LESSONS["softmax-plateau"]
    plateau, fixed = (sums(config, drawn, 4) for config in (lesson.config, lesson.compared[0]))
    assert all(0 < a - b < 0.002 for a, b in pairwise(plateau))
    assert fixed[0] - fixed[-1] > 50 * (plateau[0] - plateau[-1])
    assert fixed[-1] < plateau[-1] - 0.05


@pytest.mark.slow
def test_gradients_never_cleared_blow_up(drawn):
    """The loss becomes NaN."""
    events = list(train(LESSONS["zero-grad-never"].config.changed({"epochs": 30}), drawn))
    assert events[-1].reason == "diverged"
    assert "zero_grad_every" in events[-1].advice


def test_one_real_epoch_falls_a_little(real_images):
    """Lesson 1: the last ten steps average below the first ten, and half the fixed version's epoch is far lower."""
    lesson = LESSONS["one-epoch"]
    losses = [e.loss for e in train(lesson.config, real_images) if isinstance(e, StepLogged)]
    assert len(losses) == 156
    assert 2.25 < sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 < 2.32
    fixed = (e.loss for e in train(lesson.compared[0], real_images) if isinstance(e, StepLogged))
    assert sum(islice(fixed, 78)) < sum(losses[:78]) - 0.5


def test_softmax_plateau_on_real_images(real_images):
    """Lesson 2 starts at random guessing and hardly falls."""
    lesson = LESSONS["softmax-plateau"]
    plateau = sums(lesson.config, real_images, 2)
    assert 359.0 <= plateau[0] <= 359.6
    assert all(0 < a - b < 0.05 for a, b in pairwise(plateau))
    assert min(plateau) > 358


@pytest.mark.parametrize("name", MISTAKES[1:])
def test_a_schedule_per_batch_freezes_real_images(real_images, name):
    """Lessons 3 and 4: soon no batch's loss changes between epochs; with a step per epoch the sum falls."""
    lesson, test = LESSONS[name], real_images.test
    few = replace(real_images, train=subset(test, 5000), test=subset(test, 100))
    config = lesson.config.changed({"epochs": 2, "train_split": "train"})
    losses = [event.loss for event in train(config, few) if isinstance(event, StepLogged)]
    assert losses[60:78] == pytest.approx(losses[138:], abs=1e-4)
    assert sums(lesson.compared[0], few, 2)[-1] < sum(losses[78:]) - 0.2


def test_zero_grad_never_blows_up_in_its_first_real_epoch(real_images):
    """It diverges before its first epoch ends."""
    events = list(train(LESSONS["zero-grad-never"].config, real_images))
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "diverged"
    assert max(e.epoch for e in events if isinstance(e, EpochEnded)) == 0


def ends(name, data, *, num_runs=None, num_images=2500):
    """Returns the last rows of a lesson and its first comparison runs; most show the point with half their pictures."""
    lesson, few = LESSONS[name], replace(data, test=subset(data.test, 1000))
    return [
        [event for event in train(config.changed({"num_images": num_images}), few) if isinstance(event, EpochEnded)][-1]
        for config in [lesson.config, *lesson.compared][:num_runs]
    ]


def test_muon_is_ahead_of_adamw(real_images):
    """By several percentage points after three epochs."""
    muon, adamw = ends("muon-against-adamw", real_images, num_runs=2)
    assert muon.test_accuracy > adamw.test_accuracy + 0.04
    assert muon.train_loss < adamw.train_loss - 0.2


def test_schedule_free_is_ahead_of_a_cosine_and_of_a_constant_lr(real_images):
    free, cosine, constant = ends("no-schedule", real_images)
    assert free.test_loss < min(cosine.test_loss, constant.test_loss) - 0.05


def test_prodigy_finds_an_lr_where_adamw_has_the_wrong_one(real_images):
    """Ten times too small is slow; ten times too large ends at guessing."""
    prodigy, small, large = ends("no-learning-rate", real_images, num_images=5000)
    assert prodigy.test_loss < small.test_loss - 0.05
    assert large.test_loss == pytest.approx(math.log(10), abs=0.02)


def test_l2_in_adam_is_another_weight_decay(real_images):
    """The same value holds Adam back much more than AdamW."""
    adam, adamw = ends("l2-or-decoupled", real_images)
    assert adam.train_loss > adamw.train_loss + 0.05
    assert adam.test_loss > adamw.test_loss + 0.03


def test_no_lr_makes_up_for_a_larger_batch(real_images):
    """After an epoch the square root is the best of the larger batches; the small one is ahead of it after half."""
    lesson, few = LESSONS["batch-and-lr"], replace(real_images, test=subset(real_images.test, 1000))
    unchanged, linear, root = (
        next(event.test_loss for event in train(config, few) if isinstance(event, EpochEnded) and event.epoch)
        for config in lesson.compared
    )
    assert root < unchanged - 0.05
    assert unchanged < linear - 0.1
    losses = (event.loss for event in train(lesson.config, few) if isinstance(event, StepLogged))
    assert sum(islice(losses, 184, 200)) / 16 < root - 0.1


def test_sam_keeps_the_test_loss_low(real_images):
    """AdamW memorises: its train loss is lower and its test loss higher."""
    sam, adamw = ends("flat-minimum", real_images, num_images=1000)
    assert adamw.train_loss < 0.5 < sam.train_loss
    assert adamw.test_loss > sam.test_loss + 0.3


def test_the_sharpness_hovers_at_the_edge_of_stability(real_images):
    """It climbs to about 2/lr, at half the lr to twice as much; the loss falls in waves. 250 pictures, for time."""
    levels = []
    lesson, few = LESSONS["edge-of-stability"], replace(real_images, test=subset(real_images.test, 100))
    for config, epochs in zip([lesson.config, *lesson.compared], (60, 90), strict=True):
        short = config.changed({"num_images": 250, "epochs": epochs})
        events = list(train(short, few))
        losses = [event.train_loss for event in events if isinstance(event, EpochEnded) and event.epoch]
        assert any(after > before for before, after in pairwise(losses))
        assert fmean(losses[-10:]) < losses[0] - 0.1
        chosen = [0, *range(epochs - 30, epochs + 1, 5)]
        ready = [event for event in events if isinstance(event, CheckpointReady) and event.epoch in chosen]
        first, *others = sharpness_of(short, ready, training_split(short, few))
        levels.append(fmean(others))
        assert first < 2
        assert 0.6 < levels[-1] * config.lr / 2 < 2
    assert 1.2 < levels[1] / levels[0] < 3.5


def sharpness_of(config, checkpoints, split):
    """Returns the sharpness of each checkpoint."""
    model = OptimizerLabModel(**checkpoints[0].model_config)
    weights = []
    for ready in checkpoints:
        model.load_state_dict(load(ready.model))
        weights.append(vector_of(model))
    epochs = tuple(ready.epoch for ready in checkpoints)
    snapshots = Snapshots(config=model.config, epochs=epochs, weights=torch.stack(weights), num_missing=0)
    measured = Measured(snapshots=snapshots, lrs=(config.lr,) * len(epochs), label_smoothing=0.0)
    return [row.sharpness for row in measure(measured, split) if isinstance(row, SharpnessMeasured)]
