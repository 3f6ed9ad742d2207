"""A killed process loses only its work since the last whole epoch: a resumed run equals an uninterrupted one bit for
bit."""

import copy
import json
import pickle
import random
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from trainer.learning.loop import train
from trainer.runs.reader import read_checkpoint
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS

BASE = TrainConfig(epochs=4, batch_size=8)
CONFIGS = {
    **{name: BASE.changed({"optimizer": name}) for name in OPTIMIZERS},
    "sgd without momentum": replace(BASE, momentum=0.0),
    "adam with amsgrad": BASE.changed({"optimizer": "adam", "amsgrad": True}),
    "rmsprop with all its tensors": BASE.changed({"optimizer": "rmsprop", "centered": True, "momentum": 0.5}),
    "gradients carried over": BASE.changed({"optimizer": "adam", "scheduler": "constant", "zero_grad_every": 3}),
    "fast network": BASE.changed({"optimizer": "adamw", "model": "fast", "scheduler": "plateau"}),
}

KILLED_AND_RESUMED = """
# Trains each run of `cases` in child processes that die at the given instants, one after another, and finally in one
# that does not. An instant is a number of events, or a float of seconds, after which SIGALRM ends the process anywhere.
import os, pickle, signal, sys
from pathlib import Path
import prodigyopt, schedulefree, timm.optim  # once, for all children
from trainer.images.image_data import facts
from trainer.learning.checkpoint import resumed
from trainer.learning.loop import train
from trainer.runs import run_folder
from trainer.runs.reader import read_checkpoint
from trainer.runs.recorder import record
from trainer.runs.run import Run

here = Path(sys.argv[1])
os.fsync = lambda descriptor: None  # the machine stays up, so files written by a dead process are complete
images, cases = pickle.loads((here / "cases.pickle").read_bytes())

def work(folder, config, instant):
    if isinstance(instant, float):
        signal.setitimer(signal.ITIMER_REAL, instant)
    with run_folder.writing(folder):
        checkpoint = read_checkpoint(folder) if run_folder.is_run(folder) else None
        if checkpoint and checkpoint.epoch == config.epochs:
            return
        run = resumed(checkpoint) if checkpoint else Run(config=config)
        events = train(config, images, resume=checkpoint)
        for number, _ in enumerate(record(events, run, folder, facts(images), resume=checkpoint)):
            if number == instant:
                os.kill(os.getpid(), signal.SIGKILL)

for name, config, instants in cases:
    for instant in [*instants, None]:
        child = os.fork()
        if not child:
            work(here / name, config, instant)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == 0 or (instant is not None and code in (-signal.SIGKILL, -signal.SIGALRM)), (name, instant, code)
"""


def state_of(folder):
    """Returns everything that later epochs depend on, and the history without times."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.safetensors")}
    content = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    rows = [
        {key: value for key, value in row.items() if key not in ("seconds", "images_per_second")}
        for row in content["history"]
    ]
    return files, rows, content["state"], content["curve"]["points"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGALRM.")
def test_killed_runs_resume_exactly(tiny, trained, tmp_path, monkeypatch):
    """Each run is killed three times: after random events, at a random instant, and soon after it was resumed."""
    chance = random.Random(14)
    cases = [
        (name, config, [chance.randint(0, 12), chance.uniform(0.001, 0.1), chance.randint(0, 3)])
        for name, config in CONFIGS.items()
    ]
    (tmp_path / "cases.pickle").write_bytes(pickle.dumps((tiny, cases)))
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", KILLED_AND_RESUMED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    whole = {
        name: state_of(trained(config, tiny, folder=tmp_path / "whole" / name)[0]) for name, config in CONFIGS.items()
    }
    differ = [name for name, _, _ in cases if state_of(tmp_path / name) != whole[name]]
    assert differ == []


@pytest.mark.parametrize("name", CONFIGS)
def test_a_resumed_training_does_not_change_its_checkpoint(name, tiny, trained):
    """The checkpoint is saved again at the first event, so training must not share any of its tensors."""
    config = CONFIGS[name]
    folder, _ = trained(config, tiny, until=2)
    checkpoint = read_checkpoint(folder)
    tensors = {key: tensor.clone() for key, tensor in {**checkpoint.weights, **checkpoint.tensors}.items()}
    rest = copy.deepcopy((checkpoint.state, checkpoint.history, checkpoint.curve, checkpoint.data))
    for _ in train(config, tiny, resume=checkpoint):
        pass
    after = {**checkpoint.weights, **checkpoint.tensors}
    assert [key for key in tensors if not torch.equal(tensors[key], after[key])] == []
    assert (checkpoint.state, checkpoint.history, checkpoint.curve, checkpoint.data) == rest
