"""Run folds events into curves, status and progress, and nothing else."""

from itertools import pairwise

import pytest

from trainer.runs.events import REASONS, CheckpointReady, EpochEnded, EvaluationLogged, Finished, StepLogged
from trainer.runs.run import STATUSES, Run
from trainer.settings.config import TrainConfig


def ended(epoch, accuracy=0.1, seconds=2.0, test_share=1.0):
    return EpochEnded(
        epoch=epoch,
        train_loss=2.0,
        train_loss_sum=8.0,
        test_loss=2.0,
        test_accuracy=accuracy,
        lr=0.1,
        grad_norm=1.0,
        seconds=seconds,
        images_per_second=100.0,
        test_share=test_share,
    )


def step(number, loss=2.0, epochs=2, per_epoch=4, seconds=1.0):
    return StepLogged(
        epoch=(number - 1) // per_epoch + 1,
        step=number,
        num_steps=epochs * per_epoch,
        loss=loss,
        lr=0.1,
        grad_norm=1.0,
        epoch_seconds=seconds,
    )


def run(*events, epochs=2, **settings):
    folded = Run(config=TrainConfig(epochs=epochs, **settings))
    for event in events:
        folded.apply(event)
    return folded


def test_a_new_run_is_empty():
    """No epoch, no best epoch and no pace before the first event."""
    fresh = run()
    assert (fresh.epoch, fresh.best, fresh.epochs_passed, fresh.seconds_left, fresh.status) == (
        0,
        None,
        0,
        None,
        "training",
    )


@pytest.mark.parametrize("reason", REASONS)
def test_the_last_event_sets_the_status(reason):
    """Finished sets status and advice."""
    folded = run(Finished(reason=reason, advice="Try less."))
    assert (folded.status, folded.advice) == (reason, "Try less.")
    assert reason in STATUSES


def test_best_is_the_earliest_epoch_with_the_highest_accuracy():
    """Not the last epoch, and not the later of two equal ones."""
    assert run(ended(0), ended(1, 0.5), ended(2, 0.7), ended(3, 0.7), ended(4, 0.6), epochs=4).best.epoch == 2


def test_progress_within_an_epoch():
    """Epochs passed grow with each batch, up to the end of the epoch."""
    folded = run(ended(0))
    seen = []
    for number in range(1, 9):
        folded.apply(step(number))
        seen.append(folded.epochs_passed)
        if number % 4 == 0:
            folded.apply(ended(number // 4))
    assert seen == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    assert (folded.epoch, folded.epochs_passed) == (2, 2.0)


def test_seconds_left():
    """By the last epoch's pace; in the first epoch by its own, once it is known. Evaluations are included."""
    first = step(1, seconds=1.5)
    assert run(ended(0), first).seconds_left is None
    assert run(ended(0), first, step(2, seconds=2.0)).seconds_left is None
    assert run(ended(0), first, step(2, seconds=3.0)).seconds_left == pytest.approx(1.5 * 6.0 + 2 * 2.0)
    assert run(ended(0), ended(1, seconds=5.0), step(6)).seconds_left == pytest.approx(0.5 * 3.0 + 2.0)
    tested = EvaluationLogged(epoch=2, fraction=0.75)
    assert run(ended(0), ended(1, seconds=5.0), step(8), tested).seconds_left == pytest.approx(0.25 * 2.0)
    assert run(ended(0), ended(1), ended(2)).seconds_left == 0


def test_seconds_left_if_only_the_last_epoch_is_evaluated_on_all_test_images():
    """The estimate is right before and after the first epoch has ended: 4 s of training, then 1 s, at last 10 s."""
    sizes = {"epochs": 3, "batch_size": 250}  # four batches: 1,000 of 10,000 test images after each epoch
    untrained, first, second = (ended(n, seconds=s, test_share=0.1) for n, s in ((0, 1.0), (1, 5.0), (2, 5.0)))
    steps = [step(number, seconds=seconds, epochs=3) for number, seconds in ((1, 1.0), (2, 2.5), (4, 4.0))]
    assert run(untrained, *steps, **sizes).seconds_left == pytest.approx(2 * 4.0 + 2 * 1.0 + 10.0)
    assert run(untrained, *steps, first, **sizes).seconds_left == pytest.approx(2 * 4.0 + 1.0 + 10.0)
    last = [step(12, epochs=3), EvaluationLogged(epoch=3, fraction=0.25)]
    assert run(untrained, first, second, *last, **sizes).seconds_left == pytest.approx(0.75 * 10.0)


def test_slow_first_batches_do_not_inflate_the_estimate():
    """A device may start with one that takes seconds, or with several within the first half second."""
    slow = [step(1, per_epoch=100, seconds=20.0), step(31, per_epoch=100, seconds=23.0)]
    assert run(ended(0), *slow).seconds_left == pytest.approx(1.69 * 10.0 + 2 * 2.0)
    warming_up = [step(1, per_epoch=100, seconds=0.4), step(2, per_epoch=100, seconds=0.6)]
    steady = step(32, per_epoch=100, seconds=3.6)
    assert run(ended(0), *warming_up, steady).seconds_left == pytest.approx(1.68 * 10.0 + 2 * 2.0)


def test_the_progress_of_an_evaluation():
    """It is 0 again once the epoch has ended."""
    folded = run(ended(0), EvaluationLogged(epoch=1, fraction=0.5))
    assert folded.evaluated == 0.5
    folded.apply(ended(1))
    assert folded.evaluated == 0


def test_a_checkpoint_changes_nothing():
    """It concerns files."""
    before, after = (
        run(ended(0)),
        run(ended(0), CheckpointReady(epoch=0, model_config={}, model=b"", training=b"", state={})),
    )
    assert before == after


def test_smoothed_loss_has_no_bias_towards_zero():
    """The first value is the loss itself, a constant stays constant, and a jump is followed slowly."""
    assert [point.smoothed for point in run(*[step(n, 2.0) for n in range(1, 9)]).curve.points] == pytest.approx(
        [2.0] * 8
    )
    points = run(*[step(n, 2.0) for n in range(1, 8)], step(8, 100.0)).curve.points
    assert 2.0 < points[-1].smoothed < 25
    assert points[-1].loss == 100.0


@pytest.mark.parametrize("count", [100, 800, 801, 5000, 20_000])
def test_points_are_thinned_evenly(count):
    """A plot has at most 800 points, evenly spread over the run, however long it is."""
    folded = run(*[step(n, float(n), epochs=10, per_epoch=count // 10) for n in range(1, count + 1)], epochs=10)
    assert min(count, 400) <= len(folded.curve.points) <= 800
    positions = [point.epochs for point in folded.curve.points]
    assert positions == sorted(set(positions))
    assert positions[0] <= 0.1
    assert positions[-1] > 9.9
    gaps = [b - a for a, b in pairwise(positions)]
    assert max(gaps) < 2.01 * min(gaps)


def test_runs_do_not_share_their_lists():
    """Each run has its own curves."""
    one = run(ended(0), step(1))
    assert (run().history, run().curve.points) == ([], [])
    assert len(one.history) == len(one.curve.points) == 1
