"""Stop and resume through real folders: bit for bit what an uninterrupted run would have done."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from cases import first_is_quick

from trainer.learning.checkpoint import continued
from trainer.learning.loop import prepare, train
from trainer.runs import run_folder
from trainer.runs.events import CheckpointReady
from trainer.runs.reader import read_checkpoint
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.schedulers import SCHEDULERS

# Optimizer and scheduler are saved independently, so their product is not needed: every optimizer runs with its own,
# and every scheduler with sgd, by epoch and, after a warm-up, by batch.
CASES = [
    *[{"optimizer": optimizer} for optimizer in OPTIMIZERS],
    *[
        {"optimizer": "sgd", "scheduler": scheduler, "scheduler_unit": unit, "num_warmup_steps": warmup}
        for scheduler, (unit, warmup) in itertools.product(SCHEDULERS, (("epoch", 0), ("batch", 3)))
        if scheduler != "plateau"
    ],
    *[
        {"optimizer": optimizer, "scheduler": scheduler}
        for optimizer, scheduler in itertools.product(("sgd", "adam"), ("constant", "plateau"))
    ],
    {"optimizer": "sgd", "scheduler": "cosine", "scheduler_unit": "epoch", "num_warmup_steps": 3},
    *[
        {"optimizer": optimizer, "scheduler": scheduler, "zero_grad_every": every}
        for optimizer, scheduler, every in itertools.product(("sgd", "adam"), ("constant", "onecycle"), (3, 0))
    ],
    {"optimizer": "sgd", "scheduler": "onecycle", "cycle_momentum": True},
    {"optimizer": "adam", "scheduler": "cyclic", "cycle_momentum": True},
    {"optimizer": "sgd", "scheduler": "onecycle", "three_phase": True, "num_warmup_steps": 2},
    {"optimizer": "sgd", "nesterov": True},
    {"optimizer": "sgd", "momentum": 0.0},
    {"optimizer": "adam", "amsgrad": True, "precision": "bfloat16"},
    {"optimizer": "rmsprop", "centered": True, "momentum": 0.5, "precision": "bfloat16", "zero_grad_every": 3},
    {"softmax": True, "activation": "none", "normalize": False, "train_split": "test"},
    {"label_smoothing": 0.1, "drop_last": True, "shuffle": False, "flip": False, "shift": 0, "num_images": 20},
    {"pretrained": "finetuned", "optimizer": "adamw"},
    {"pretrained": "frozen", "optimizer": "muon"},
    {"model": "fast", "pretrained": "frozen", "optimizer": "adamw_schedulefree"},
    {"model": "fast"},
    *[{"model": "fast", "optimizer": optimizer, "epochs": 2} for optimizer in OPTIMIZERS if optimizer != "sgd"],
    {"model": "fast", "optimizer": "adamw", "scheduler": "plateau", "precision": "bfloat16", "zero_grad_every": 3},
    {"model": "fast", "activation": "none", "softmax": True, "normalize": False},
]

UNTIMED = ("seconds", "images_per_second")


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """Skips fsync: these tests write thousands of files, and none of them is about crashes."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def named(settings):
    return "-".join(f"{name[:9]}={value}" for name, value in settings.items())


def on_disk(folder):
    """Returns the bytes of layers.json and of every safetensors file, and training.json's content without times."""
    paths = [folder / "layers.json", *folder.rglob("*.safetensors")]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    content = json.loads((folder / "training.json").read_text())
    for row in content["history"]:
        for name in UNTIMED:
            row.pop(name)
    return files, content


def assert_same(one, other):
    """Compares two folders; a failure shows the names of the files that differ, not their bytes."""
    (files, content), (other_files, other_content) = on_disk(one), on_disk(other)
    assert content == other_content
    assert files.keys() == other_files.keys()
    assert [name for name in files if files[name] != other_files[name]] == []


@pytest.mark.parametrize("settings", first_is_quick(CASES), ids=named)
def test_resume_is_exact(settings, tiny, trained, tmp_path):
    """All epochs at once, and half of them, a stop in the next, and the rest from the folder: the same bytes."""
    config = TrainConfig(**{"epochs": 4, "batch_size": 8, "seed": 3, **settings})
    if config.scheduler == "onecycle":
        config = config.changed({"pct_start": 0.4})
    whole, run = trained(config, tiny, folder=tmp_path / "whole")
    assert run.status == "completed"

    half = config.epochs // 2
    part, run = trained(config, tiny, folder=tmp_path / "part", until=half)
    assert (run.status, run.epoch) == ("stopped", half)
    with run_folder.writing(part):
        checkpoint = read_checkpoint(part)
    checkpoint = continued(checkpoint, epochs=None, changes={})
    _, run = trained(checkpoint.config, tiny, folder=part, resume=checkpoint)
    assert (run.status, run.epoch) == ("completed", config.epochs)
    assert_same(whole, part)


def test_the_cases_are_complete():
    """They contain every optimizer and every scheduler."""
    assert {case.get("optimizer", "sgd") for case in CASES} == OPTIMIZERS.keys()
    assert {case.get("scheduler", "onecycle") for case in CASES} == SCHEDULERS.keys()


@pytest.fixture
def two_epochs(tiny, trained):
    """A function that trains two epochs with some settings, and returns folder and checkpoint."""

    def make(**settings):
        config = TrainConfig(**{"epochs": 2, "batch_size": 8, **settings})
        folder, run = trained(config, tiny)
        assert run.status == "completed"
        return folder, read_checkpoint(folder)

    return make


def continue_from(checkpoint, *, epochs=None, **changes):
    return continued(checkpoint, epochs=epochs, changes=changes)


@pytest.mark.parametrize("scheduler", ["constant", "step", "cyclic", "plateau"])
def test_more_epochs_are_those_of_a_longer_run(scheduler, tiny, trained, two_epochs, tmp_path):
    """If the schedule does not depend on the number of epochs, 2 + 2 epochs equal a run of 4."""
    folder, checkpoint = two_epochs(scheduler=scheduler)
    checkpoint = continue_from(checkpoint, epochs=4)
    trained(checkpoint.config, tiny, folder=folder, resume=checkpoint)
    whole, _ = trained(TrainConfig(scheduler=scheduler, epochs=4, batch_size=8), tiny, folder=tmp_path / "whole")
    assert_same(whole, folder)


@pytest.mark.parametrize("scheduler", ["onecycle", "cosine", "linear"])
def test_a_finished_schedule_is_refused(scheduler, two_epochs):
    """A schedule that covered the run cannot simply continue: the sentence says what to choose."""
    _, checkpoint = two_epochs(scheduler=scheduler)
    with pytest.raises(ValueError, match="choose the scheduler to continue with"):
        continue_from(checkpoint, epochs=4)


@pytest.mark.parametrize("epochs", [None, 1, 2])
def test_nothing_left_to_train_is_refused(epochs, two_epochs):
    """A finished run needs a larger total."""
    _, checkpoint = two_epochs(scheduler="constant")
    with pytest.raises(ValueError, match="has trained 2 epochs already"):
        continue_from(checkpoint, epochs=epochs)


CYCLE = {"scheduler": "onecycle", "cycle_momentum": True, "pct_start": 0.5}
CONTINUATIONS = [
    {"scheduler": "constant", "lr": 0.001},
    {"scheduler": "onecycle", "lr": 0.02},
    {"scheduler": "cosine", "num_warmup_steps": 1},
    {"optimizer": "adam", "lr": 0.002},
    {"optimizer": "adagrad", "scheduler": "step", "step_size": 1},
    {"momentum": 0.0, "scheduler": "constant"},
]


@pytest.mark.parametrize("until", [2, 4])
@pytest.mark.parametrize("changes", first_is_quick(CONTINUATIONS), ids=named)
def test_continuation_with_chosen_settings(changes, until, tiny, trained, two_epochs, tmp_path):
    """The new settings apply from the next epoch, whose row records them; an interrupted continuation resumes exactly,
    even before its first epoch has ended."""
    folder, checkpoint = two_epochs(scheduler="onecycle")
    first = continue_from(checkpoint, epochs=6, **changes)
    assert first.schedule_from == 2
    trained(first.config, tiny, folder=folder, resume=first)
    _, content = on_disk(folder)
    rows = content["history"]
    assert [row["continued_with"] for row in rows] == [None, None, None, changes, None, None, None]
    assert content["config"] == json.loads(json.dumps(first.config.settings()))
    assert content["config"].items() >= {**changes, "epochs": 6}.items()
    if changes.get("scheduler") == "constant":
        assert all(row["lr"] == first.config.lr for row in rows[3:])

    cut, _ = trained(checkpoint.config, tiny, folder=tmp_path / "cut")
    trained(
        first.config, tiny, folder=cut, resume=continue_from(read_checkpoint(cut), epochs=6, **changes), until=until
    )
    again = continue_from(read_checkpoint(cut))
    assert (again.epoch, again.schedule_from) == (until, 2)
    trained(again.config, tiny, folder=cut, resume=again)
    assert_same(folder, cut)


def test_settings_chosen_again_before_an_epoch_has_ended(tiny, trained, two_epochs):
    """Earlier choices still apply, and the row of the first epoch records all of them."""
    folder, checkpoint = two_epochs(scheduler="onecycle")
    first = continue_from(checkpoint, epochs=4, scheduler="constant", lr=0.5)
    trained(first.config, tiny, folder=folder, resume=first, until=2)
    second = continue_from(read_checkpoint(folder), epochs=3, optimizer="adam", lr=0.002)
    assert (second.config.optimizer, second.config.scheduler, second.config.epochs) == ("adam", "constant", 3)
    _, run = trained(second.config, tiny, folder=folder, resume=second)
    assert (run.status, run.epoch) == ("completed", 3)
    assert run.history[-1].continued_with == {"scheduler": "constant", "lr": 0.002, "optimizer": "adam"}
    assert read_checkpoint(folder).continued_with is None


@pytest.mark.parametrize("every", [1, 3])
def test_a_new_onecycle_covers_the_remaining_steps(every, tiny, trained, two_epochs):
    """With a step every 3 batches and 4 batches an epoch, epochs 3 and 4 have 3 steps, after batches 9, 12 and 15;
    torch's OneCycleLR raises an error at a step beyond its total."""
    folder, checkpoint = two_epochs(scheduler="constant", zero_grad_every=every)
    checkpoint = continue_from(checkpoint, epochs=4, scheduler="onecycle", pct_start=0.5)
    _, run = trained(checkpoint.config, tiny, folder=folder, resume=checkpoint)
    assert (run.status, run.epoch) == ("completed", 4)


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"optimizer": "adam"}, {"amsgrad": True}),
        ({"optimizer": "rmsprop"}, {"centered": True}),
        ({"optimizer": "rmsprop"}, {"momentum": 0.9}),
        ({"optimizer": "rmsprop"}, CYCLE),
        ({"optimizer": "sgd"}, {"momentum": 0.0}),
        ({"optimizer": "sgd", "momentum": 0.0, **CYCLE}, {"scheduler": "constant"}),
    ],
    ids=named,
)
def test_a_change_that_needs_more_tensors_resets_the_optimizer(settings, changes, tiny, trained, two_epochs):
    """Tensors that the old optimizer state lacks do not end the run with an error."""
    folder, checkpoint = two_epochs(**{"scheduler": "constant", **settings})
    checkpoint = continue_from(checkpoint, epochs=3, **changes)
    assert not checkpoint.tensors
    _, run = trained(checkpoint.config, tiny, folder=folder, resume=checkpoint)
    assert (run.status, run.epoch) == ("completed", 3)


@pytest.mark.parametrize(("optimizer", "num_tensors"), [("sgd", 10), ("adam", 30)])
@pytest.mark.parametrize("changes", [{"lr": 0.001}, CYCLE], ids=named)
def test_other_changes_keep_the_optimizers_state(changes, optimizer, num_tensors, tiny, trained, two_epochs):
    """Momentum carries over if the optimizer stays the same."""
    folder, checkpoint = two_epochs(scheduler="constant", optimizer=optimizer)
    continuation = continue_from(checkpoint, epochs=3, **changes)
    assert continuation.tensors.keys() == checkpoint.tensors.keys()
    assert len(checkpoint.tensors) == num_tensors
    assert trained(continuation.config, tiny, folder=folder, resume=continuation)[1].status == "completed"


def with_state(state, **changes):
    return {**state, **changes}


HOSTILE = {
    "another optimizer's tensor": lambda checkpoint: replace(
        checkpoint,
        tensors={**checkpoint.tensors, "optimizer.nothing.momentum_buffer": checkpoint.weights["network.conv1.bias"]},
    ),
    "a nameless tensor": lambda checkpoint: replace(
        checkpoint, tensors={"x": checkpoint.weights["network.conv1.bias"]}
    ),
    "another shape": lambda checkpoint: replace(
        checkpoint,
        tensors={
            **checkpoint.tensors,
            "optimizer.network.conv1.bias.momentum_buffer": checkpoint.weights["network.conv1.weight"],
        },
    ),
    "another dtype": lambda checkpoint: replace(
        checkpoint, tensors={name: t.double() for name, t in checkpoint.tensors.items()}
    ),
    "a gradient of another shape": lambda checkpoint: replace(
        checkpoint, tensors={"gradient.network.conv1.weight": checkpoint.weights["network.linear1.weight"]}
    ),
    "no group": lambda checkpoint: replace(checkpoint, state=with_state(checkpoint.state, optimizer=[])),
    "a strange group": lambda checkpoint: replace(
        checkpoint, state=with_state(checkpoint.state, optimizer=[{"params": [1]}])
    ),
    "a group's lr as text": lambda checkpoint: replace(
        checkpoint, state=with_state(checkpoint.state, optimizer=[{"lr": "x"}])
    ),
    "a group's huge lr": lambda checkpoint: replace(
        checkpoint, state=with_state(checkpoint.state, optimizer=[{**checkpoint.state["optimizer"][0], "lr": 1e308}])
    ),
    "an lr that the schedule will give a group": lambda checkpoint: replace(
        checkpoint,
        state=with_state(checkpoint.state, optimizer=[{**checkpoint.state["optimizer"][0], "initial_lr": 1e308}]),
    ),
    "a schedule that is further than the run": lambda checkpoint: replace(
        checkpoint,
        state=with_state(checkpoint.state, scheduler={**checkpoint.state["scheduler"], "last_epoch": 21}),
    ),
    "a schedule of another length": lambda checkpoint: replace(
        checkpoint,
        state=with_state(checkpoint.state, scheduler={**checkpoint.state["scheduler"], "total_iters": -1}),
    ),
    "a method's name": lambda checkpoint: replace(
        checkpoint, state=with_state(checkpoint.state, scheduler={"step": 1})
    ),
    "a scheduler's text": lambda checkpoint: replace(
        checkpoint, state=with_state(checkpoint.state, scheduler={"last_epoch": "x"})
    ),
    "a scheduler that is no object": lambda checkpoint: replace(
        checkpoint, state=with_state(checkpoint.state, scheduler=3)
    ),
    "no scaler": lambda checkpoint: replace(
        checkpoint, state={k: v for k, v in checkpoint.state.items() if k != "scaler"}
    ),
}


@pytest.mark.parametrize("breaks", first_is_quick(HOSTILE))
def test_a_state_that_does_not_fit_is_refused(breaks, tiny, two_epochs):
    """A wrong optimizer or scheduler state in a foreign checkpoint is one plain error, before any training."""
    _, checkpoint = two_epochs(scheduler="constant")
    checkpoint = HOSTILE[breaks](continue_from(checkpoint, epochs=3))
    with pytest.raises(ValueError, match="does not fit"):
        train(checkpoint.config, tiny, resume=checkpoint)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "nadam", "adadelta"])
def test_half_of_an_optimizers_tensors_is_refused(optimizer, tiny, two_epochs):
    """A foreign checkpoint without one kind of tensor is refused before torch looks for it."""
    _, checkpoint = two_epochs(scheduler="constant", optimizer=optimizer)
    kinds = sorted({name.rpartition(".")[2] for name in checkpoint.tensors})
    assert len(kinds) > 1
    left = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.endswith(kinds[0])}
    checkpoint = continue_from(replace(checkpoint, tensors=left), epochs=3)
    with pytest.raises(ValueError, match="does not fit"):
        train(checkpoint.config, tiny, resume=checkpoint)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "nadam"])
def test_an_optimizers_tensors_keep_device_and_memory_format(optimizer, tiny, two_epochs):
    """Tensors have their parameter's memory format, without which torch's steps are slower; scalars are on the CPU,
    where they are read."""
    _, checkpoint = two_epochs(scheduler="constant", optimizer=optimizer)
    _, learner = prepare(checkpoint.config, tiny, device=torch.device("cpu"), resume=checkpoint)
    for parameter, values in learner.optimizer.state.items():
        tensors = [value for value in values.values() if isinstance(value, torch.Tensor)]
        assert tensors
        assert all(value.stride() == parameter.stride() for value in tensors if value.dim())
        assert all(value.device.type == "cpu" for value in tensors if not value.dim())


def test_gradients_are_saved_only_if_the_next_batch_adds_to_them(tiny):
    """training.safetensors has gradients with zero_grad_every 3 and 0, and none with 1."""
    from safetensors.torch import load

    for every, carried in ((1, False), (3, True), (0, True)):
        config = TrainConfig(epochs=1, batch_size=8, scheduler="constant", zero_grad_every=every)
        ready = [event for event in train(config, tiny) if isinstance(event, CheckpointReady)][-1]
        assert any(name.startswith("gradient.") for name in load(ready.training)) is carried
