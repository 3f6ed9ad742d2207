"""The range test: its ramp, what it does not change, and its suggestion of an lr that trains, or of none."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from cases import first_is_quick

from trainer.images.image_data import Split, subset
from trainer.learning import lr_finder
from trainer.learning.loop import train
from trainer.learning.lr_finder import Finding, Trial, find_lr, row, suggest
from trainer.runs.events import EpochEnded, Finished, StepLogged
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS

# The suggestion of a range test depends on the last digits.
pytestmark = pytest.mark.usefixtures("all_threads")

QUICK = TrainConfig(batch_size=26, flip=False, shift=0)  # all of `tiny` in one batch
CLASSES = 10


@pytest.fixture
def short(monkeypatch):
    """Limits ramps to a hundred steps, for tests that do not depend on the suggestion."""
    monkeypatch.setattr(lr_finder, "_MOST_STEPS", 100)


@pytest.fixture(scope="session")
def small(images):
    """The synthetic pictures at half their size, with which a ramp takes some seconds."""

    def halved(split):
        pixels = split.images[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)
        return Split(images=pixels, labels=split.labels)

    return replace(images, train=halved(images.train), test=halved(images.test), digest="halved")


def found(config, data):
    """Returns the trials and the finding."""
    *trials, finding = find_lr(config, data)
    assert all(isinstance(trial, Trial) for trial in trials)
    assert isinstance(finding, Finding)
    return trials, finding


def made(losses, *, smoothed=None, low=1e-5, high=10.0, num_steps=None):
    """Returns trials with these losses, which count as smoothed unless `smoothed` is given, at lrs from low to high."""
    num_steps = num_steps or len(losses)
    return [
        Trial(
            step=index + 1,
            num_steps=num_steps,
            lr=low * (high / low) ** (index / (num_steps - 1)),
            loss=loss,
            smoothed=smoothed_loss,
        )
        for index, (loss, smoothed_loss) in enumerate(zip(losses, smoothed or losses, strict=True))
    ]


def test_prodigy_has_no_lr_to_find(tiny):
    """It finds its own; the finding says so, without any trial."""
    trials, finding = found(TrainConfig(optimizer="prodigy"), tiny)
    assert (trials, finding.suggestion) == ([], None)
    assert finding.reason == "prodigy finds its own lr while it trains: leave lr at 1."


@pytest.mark.parametrize("optimizer", first_is_quick(sorted(set(OPTIMIZERS) - {"prodigy"})))
def test_the_ramp(optimizer, tiny, short):
    """lr rises by the same factor at each step, over three decades on both sides of the optimizer's default."""
    trials, _ = found(TrainConfig(batch_size=26, flip=False, shift=0, optimizer=optimizer), tiny)
    default = OPTIMIZERS[optimizer].defaults["lr"]
    assert [trial.step for trial in trials] == list(range(1, len(trials) + 1))
    assert trials[0].lr == pytest.approx(default / 1000)
    factor = 1e6 ** (1 / (trials[0].num_steps - 1))
    for earlier, later in itertools.pairwise(trials):
        assert later.lr / earlier.lr == pytest.approx(factor)
    assert len(trials) <= trials[0].num_steps


def test_it_measures_what_trains(tiny, short):
    """The first losses equal those of `train`, because lr is still too low to matter."""
    config = QUICK.changed({"scheduler": "constant", "lr": OPTIMIZERS["sgd"].defaults["lr"] / 1000, "epochs": 3})
    trained = [event.loss for event in train(config, tiny) if isinstance(event, StepLogged)]
    tried = [trial.loss for trial in found(config, tiny)[0]]
    assert tried[0] == trained[0]
    assert tried[:3] == pytest.approx(trained, abs=1e-6)


def test_the_ramp_is_a_run_with_that_schedule(tiny, short):
    """It equals a loop written with torch over the same batches, with lr set before each step, bit for bit."""
    from torch.nn import functional

    from trainer.images.batches import batches
    from trainer.learning.learner import build_model

    config = QUICK.changed({"optimizer": "adam"})
    trials, _ = found(config, tiny)
    network = build_model(config, tiny, tiny.train).train()
    optimizer = torch.optim.Adam(network.parameters())
    for trial in trials[:60]:
        (batch,) = batches(tiny.train, config, trial.step)
        optimizer.param_groups[0]["lr"] = trial.lr
        loss = functional.cross_entropy(network(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.item() == trial.loss


@pytest.mark.slow
def test_one_lr_for_the_batches_of_a_step(tiny, short):
    """With zero_grad_every, lr rises at optimizer steps, not between the batches of one."""
    trials, _ = found(QUICK.changed({"zero_grad_every": 4, "epochs": 10}), tiny)
    lrs = [trial.lr for trial in trials]
    assert trials[0].num_steps % 4 == 0
    assert lrs[0:40:4] == lrs[3:43:4]
    assert lrs[3] < lrs[4]


def test_the_schedule_and_the_lr_are_ignored(tiny, short):
    """Configs that differ only in schedule and lr have the same trials and finding."""
    planned = QUICK.changed({"scheduler": "cyclic", "lr": 0.5, "num_warmup_steps": 3, "cycle_momentum": True})
    assert found(planned, tiny) == found(QUICK.changed({"scheduler": "constant"}), tiny)


def test_it_changes_nothing_else(tiny):
    """Neither the global random state, nor the images, nor a training that runs at the same time."""
    config = TrainConfig(batch_size=8, epochs=2, scheduler="constant")
    alone = [event.loss for event in train(config, tiny) if isinstance(event, StepLogged)]
    state, pixels = torch.get_rng_state(), tiny.train.images.clone()
    interleaved, search = [], find_lr(config, tiny)
    for event in train(config, tiny):
        next(search)
        if isinstance(event, StepLogged):
            interleaved.append(event.loss)
    search.close()
    assert interleaved == alone
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(tiny.train.images, pixels)


def final_test_loss(config, data):
    """Returns the test loss after the last epoch, infinite if training diverged."""
    events = [event for event in train(config, data) if isinstance(event, EpochEnded | Finished)]
    return events[-2].test_loss if events[-1].reason == "completed" else math.inf


@pytest.mark.slow
def test_the_suggestion_is_stable_and_trains(small):
    """Two seeds agree within a factor of 2, and a short training at that lr beats a tenth and ten times that lr."""
    config = TrainConfig(optimizer="adam", batch_size=32, epochs=8, flip=False, shift=0, scheduler="constant")
    findings = [found(config.changed({"seed": seed}), small)[1] for seed in (0, 1)]
    suggestions = [finding.suggestion for finding in findings]
    assert max(suggestions) <= 2 * min(suggestions)
    for finding in findings:
        assert f"{finding.suggestion:g}" in finding.reason or "third" in finding.reason
        assert finding.diverges_at is None or finding.suggestion <= finding.diverges_at / 2.9
    grid = [final_test_loss(config.changed({"lr": lr}), small) for lr in (suggestions[0] / 10, suggestions[0] * 10)]
    for scheduler in ("constant", "onecycle"):
        assert final_test_loss(config.changed({"lr": suggestions[0], "scheduler": scheduler}), small) < min(*grid, 1.5)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"weight_decay": 100.0}, "nothing to suggest"),  # its weights only shrink
        ({"weight_decay": 1e8}, "where it diverges"),  # at the first step
        ({"zero_grad_every": 0}, "zero_grad_every"),
    ],
)
def test_nothing_is_suggested_if_nothing_learns(settings, word, tiny, short):
    """The suggestion is None, with the reason."""
    trials, finding = found(QUICK.changed(settings), tiny)
    assert finding.suggestion is None
    assert word in finding.reason
    assert finding.diverges_at is not None
    assert trials[0].lr / 1.1 <= finding.diverges_at <= trials[-1].lr * 1.1


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"batch_size": 27}, "batch_size"),
        ({"num_images": 1000}, "num_images"),
        ({"precision": "float16", "batch_size": 8}, "CUDA"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_at_once(settings, word, tiny):
    """On the call, before the first trial."""
    with pytest.raises(ValueError, match=word):
        find_lr(TrainConfig(**settings), tiny)


def test_a_handful_of_pictures(tiny, short):
    """The ramp repeats a few small batches as often as it needs."""
    few = replace(tiny, train=subset(tiny.train, 5))
    trials, finding = found(TrainConfig(batch_size=4), few)
    assert len(trials) > 20  # of 2 batches an epoch
    assert finding.suggestion is None or trials[0].lr <= finding.suggestion <= trials[-1].lr


def test_it_ends_when_the_loss_explodes(tiny, short):
    """At the first NaN, or when the smoothed loss is far above its start; rows stay strict JSON."""
    trials, finding = found(QUICK, tiny)
    assert len(trials) < trials[0].num_steps
    assert all(math.isfinite(trial.loss) for trial in trials[:-1])
    assert not trials[-1].smoothed <= 1.5 * math.log(CLASSES)
    assert finding.diverges_at < trials[-1].lr * 1.1
    assert row(replace(trials[-1], loss=math.nan))["loss"] is None
    assert row(finding)["event"] == "suggestion"


FLAT, FALL = [2.3, 2.301] * 50, [2.3 - 0.01 * step for step in range(1, 81)]


def test_the_suggestion_is_half_way_down():
    """For losses that are flat and then fall straight to 1.5, it is the first lr with at most 1.9, to two digits."""
    trials = made(FLAT + FALL)
    half = next(trial for trial in trials if trial.loss <= 1.9 + 0.0005)
    finding = suggest(TrainConfig(), trials, CLASSES)
    assert finding.suggestion == pytest.approx(half.lr, rel=0.06)
    assert finding.diverges_at is None
    assert "from 2.30 to 1.50" in finding.reason
    assert "never diverged" in finding.reason


@pytest.mark.parametrize("worst", [3.0, math.inf, math.nan])
def test_divergence_starts_where_the_loss_rises_for_good(worst):
    """Not at an earlier peak, but at the last rise above half-way; the suggestion is at most a third of that lr."""
    losses = [*FLAT, *FALL, 2.2, 1.5, 1.4, *[1.4] * 20, worst]
    trials = made(losses, num_steps=260)
    finding = suggest(TrainConfig(), trials, CLASSES)
    assert finding.diverges_at == pytest.approx(trials[-1].lr, rel=0.06)
    steep = suggest(TrainConfig(), made([*FLAT, 1.9, 1.5, 3.0], num_steps=260), CLASSES)
    assert steep.suggestion == pytest.approx(steep.diverges_at / 3, rel=0.06)
    assert "third" in steep.reason


def test_a_fall_within_the_noise_is_not_learning():
    """Neither noise nor a fall from above down to guessing leads to a suggestion."""
    wandering = [2.3 + 0.05 * math.sin(step) for step in range(200)]
    wandering = made(wandering, smoothed=[2.3 + 0.01 * math.sin(step / 30) for step in range(200)])
    for trials in (wandering, made([4.0] * 100 + [2.31] * 100)):
        finding = suggest(TrainConfig(), trials, CLASSES)
        assert finding.suggestion is None
        assert finding.diverges_at is None
        assert "nothing to suggest" in finding.reason


def test_on_real_images(real_images):
    """An epoch of 4,096 pictures at the suggested lr, constant or as onecycle's peak, ends far below guessing."""
    config = TrainConfig(epochs=1)
    _, finding = found(config, real_images)
    few = replace(real_images, test=subset(real_images.test, 500))
    for scheduler in ("constant", "onecycle"):
        trained = config.changed({"scheduler": scheduler, "lr": finding.suggestion, "num_images": 4096})
        assert final_test_loss(trained, few) < 2.2
