"""Events are picklable and become rows of strict JSON."""

import json
import math
import pickle

import pytest

from trainer.runs.events import (
    REASONS,
    CheckpointReady,
    EpochEnded,
    EvaluationLogged,
    Finished,
    LayersMeasured,
    StepLogged,
    json_fields,
    row,
)

STEP = StepLogged(epoch=1, step=2, num_steps=8, loss=2.3, lr=0.1, grad_norm=1.5, epoch_seconds=0.25)
MEASURED = LayersMeasured(
    epoch=1,
    step=2,
    epochs_passed=0.25,
    layers=("conv1",),
    weight_norm=(2.0,),
    grad_norm=(0.1,),
    update_ratio=(None,),
    inactive=(0.5,),
)
EVALUATION = EvaluationLogged(epoch=1, fraction=0.5)
EPOCH = EpochEnded(
    epoch=1,
    train_loss=2.0,
    train_loss_sum=8.0,
    test_loss=2.1,
    test_accuracy=0.25,
    lr=0.1,
    grad_norm=1.5,
    seconds=1.0,
    images_per_second=64.0,
)
READY = CheckpointReady(epoch=1, model_config={}, model=b"m", training=b"t", state={})
FINISHED = Finished(reason="diverged", advice="Try less.")


@pytest.mark.parametrize(
    "event", [STEP, MEASURED, EVALUATION, EPOCH, READY, FINISHED], ids=lambda event: type(event).__name__
)
def test_events_travel_between_processes(event):
    """Worker processes send them pickled."""
    assert pickle.loads(pickle.dumps(event)) == event


@pytest.mark.parametrize(
    ("event", "keys"),
    [
        (STEP, "event epoch step num_steps loss lr grad_norm epoch_seconds"),
        (
            EPOCH,
            "event epoch train_loss train_loss_sum test_loss test_accuracy lr grad_norm seconds images_per_second "
            "continued_with holdout_loss holdout_accuracy test_share class_accuracy",
        ),
        (READY, "event epoch checkpoint"),
        (FINISHED, "event reason advice checkpoint"),
    ],
    ids=["step", "epoch", "checkpoint", "finished"],
)
def test_rows(event, keys):
    """Each row of the public stream has these keys, `event` first; clients depend on them."""
    public = row(event, "here")
    assert list(public) == keys.split()
    assert public.get("checkpoint", "here") == "here"
    assert json.loads(json.dumps(public, allow_nan=False)) == public


def test_the_names_of_rows():
    """Clients depend on the values of `event` and `reason`."""
    assert [row(event, "")["event"] for event in (STEP, EPOCH, READY, FINISHED)] == [
        "step",
        "epoch",
        "checkpoint",
        "finished",
    ]
    assert REASONS == ("completed", "stopped", "diverged", "out_of_time", "interrupted")


def test_an_evaluations_progress_is_no_row():
    """The public stream leaves it out."""
    assert row(EVALUATION, "here") is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null(value):
    """Strict JSON has no NaN."""
    step = StepLogged(epoch=1, step=1, num_steps=1, loss=value, lr=0.1, grad_norm=value, epoch_seconds=0.0)
    assert json_fields(step)["loss"] is None
    assert json.loads(json.dumps(row(step, ""), allow_nan=False))["grad_norm"] is None
