"""Several processes train one network: the numbers and the output of one process, and a common end, under torchrun."""

import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from waits import without_waits

from trainer.cli.commands.train import _record
from trainer.cli.main import main
from trainer.errors import UserError
from trainer.images.image_data import load_images
from trainer.learning import distributed
from trainer.learning.distributed import ALONE, LostRankError, World
from trainer.learning.loop import train
from trainer.runs.events import EpochEnded, Finished, StepLogged
from trainer.runs.reader import read_run
from trainer.runs.run import Run
from trainer.settings.config import MODELS, TrainConfig
from trainer.settings.lessons import LESSONS
from trainer.settings.optimizers import OPTIMIZERS

REPOSITORY = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
MESSAGE = "error: Another process of this training has ended or cannot be reached"
FEW = ("--num-images", "512")
# An epoch of 128 batches, long enough to be interrupted.
LONG = ("--epochs", "40", *FEW, "--batch-size", "4", "--scheduler", "constant", "--lr", "0.0003", "--json")

PLAIN = {"epochs": 3, "batch_size": 8, "scheduler": "constant", "lr": 0.01}
CASES = {
    "a last batch that leaves a rank out": {},
    "adam, smoothed labels": {"optimizer": "adam", "lr": 0.001, "label_smoothing": 0.1},
    "a rank left out while gradients add up": {"zero_grad_every": 3},
    "gradients that are never cleared": {"zero_grad_every": 0, "lr": 0.001},
    "the loss drives lr": {"scheduler": "plateau", "patience": 0, "threshold": 1.0},
    "a schedule of batches": {"scheduler": "onecycle", "pct_start": 0.4},
    "no last batch": {"drop_last": True, "flip": False, "shift": 0, "softmax": True},
    "frozen convolutions": {"model": "fast", "pretrained": "frozen", "weight_decay": 0.1},
    "divergence": {"lr": 1e6},
    # At small steps: a weight whose gradient is nearly 0 may go either way by rounding, and a step of Adagrad is then a
    # whole lr.
    **{f"the optimizer {name}": {"optimizer": name, "lr": row.defaults["lr"] / 10} for name, row in OPTIMIZERS.items()},
    **{f"the network {name}": {"model": name, "batch_size": 13} for name in MODELS if name != "quick"},
}

# Runs on three ranks: trains each case, and the first case again with a stop of rank 2 in the second epoch. Rank 0
# writes the events of all ranks. Then rank 2 stops responding.
SCRIPT = """
import dataclasses, datetime, hashlib, os, pickle, sys, time
from trainer.learning import distributed
from trainer.runs.events import CheckpointReady, EvaluationLogged, StepLogged
from trainer.learning.loop import train
from trainer.runs.run import Run

def summarize(events):
    kept = [event for event in events if not isinstance(event, EvaluationLogged)]
    return [
        (event.epoch, hashlib.sha256(event.model + event.training).hexdigest())
        if isinstance(event, CheckpointReady) else event
        for event in kept
    ]

def stop_in_epoch_2(events, world):
    for event in events:
        if isinstance(event, StepLogged) and event.epoch == 2 and world.rank == 2:
            world.stopping.set()
        yield event

distributed._TIMEOUT = datetime.timedelta(seconds=8)
images, configs = pickle.load(open(sys.argv[1], "rb"))
with distributed.join() as world:
    trained = [world.gather(summarize(train(config, images, world=world))) for config in configs]
    longer = train(dataclasses.replace(configs[0], epochs=40), images, world=world)
    stopped = world.gather(summarize(stop_in_epoch_2(longer, world)))
    if world.rank == 0:
        pickle.dump((trained, stopped), open(sys.argv[2], "wb"))
    world.gather(None)
    if world.rank == 2:
        time.sleep(300)
    try:
        world.gather(None)
    except distributed.LostRankError:
        os.write(1, b"first " if world.claim() else b"second ")  # in one call, because both write to the same pipe
        raise
"""


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Limits each process to one thread; with as many as cores they would wait for one another."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        yield


def launch(*arguments, processes=2, agent=("--standalone",)):
    command = [*TORCHRUN, *agent, "--nproc-per-node", str(processes), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, **pipes)


def trainer(*arguments, **options):
    """Starts `torchrun … -m trainer …`; without `--` torchrun would read --run as its --run-path."""
    return launch("-m", "--", "trainer", *arguments, **options)


def finish(process):
    """Waits for a process, and returns (exit status, rows on stdout, stderr)."""
    out, err = process.communicate(timeout=300)
    return process.returncode, [json.loads(line) for line in out.splitlines()], without_waits(err)


def read_until(process, epoch):
    """Reads the rows of a run until an epoch's checkpoint is on disk and the next epoch has started."""
    for line in process.stdout:
        row = json.loads(line)
        if (row["event"], row.get("epoch")) == ("checkpoint", epoch):
            return
    raise AssertionError(process.stderr.read())


def process_of(rank, torchrun):
    """Returns the process id of a rank."""
    for pid in Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text(encoding="utf-8").split():
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return int(pid)
    raise AssertionError(f"There is no rank {rank}.")


def losses(events):
    return [event.loss for event in events if isinstance(event, StepLogged)]


def epochs(events):
    return [event for event in events if isinstance(event, EpochEnded)]


def untimed(events):
    clock = ("seconds", "images_per_second", "epoch_seconds")
    return [
        event if isinstance(event, tuple) else replace(event, **{name: 0.0 for name in clock if hasattr(event, name)})
        for event in events
    ]


def numbers(row):
    """Returns the numbers of an epoch except its times."""
    return [row[name] or 0.0 for name in ("train_loss", "test_loss", "test_accuracy", "grad_norm", "lr")]


# --- the numbers


@pytest.fixture(scope="module")
def ranks(tiny, tmp_path_factory):
    """Returns the events of each case and of the stopped run on SCRIPT's three ranks, and its output."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "script.py").write_text(SCRIPT)
    configs = [TrainConfig(**{**PLAIN, **settings}) for settings in CASES.values()]
    (folder / "given").write_bytes(pickle.dumps((tiny, configs)))
    process = launch(folder / "script.py", folder / "given", folder / "events", processes=3)
    out, err = process.communicate(timeout=300)
    assert (folder / "events").exists(), err
    trained, stopped = pickle.loads((folder / "events").read_bytes())
    return dict(zip(CASES, trained, strict=True)), stopped, out


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_three_ranks_train_as_one_process(case, ranks, tiny):
    """All ranks yield the same events, bit for bit, and up to rounding those of one process."""
    first, *others = (untimed(events) for events in ranks[0][case])
    for events in others:
        assert repr(events) == repr(first)  # repr: NaN is not equal to itself
    alone = list(train(TrainConfig(**{**PLAIN, **CASES[case]}), tiny))
    assert first[-1] == alone[-1]
    if case == "divergence":
        assert first[-1].reason == "diverged"
        return
    assert first[-1].reason == "completed"
    if case.startswith("the network"):
        # Batch normalisation uses the rank's own share only: four or five of thirteen pictures.
        assert losses(first) == pytest.approx(losses(alone), abs=0.5)
        return
    assert losses(first) == pytest.approx(losses(alone), abs=1e-4)
    for row, expected in zip(epochs(first), epochs(alone), strict=True):
        assert numbers(vars_of(row)) == pytest.approx(numbers(vars_of(expected)), abs=1e-4)


def vars_of(event):
    return {name: getattr(event, name) for name in event.__dataclass_fields__}


@pytest.mark.slow
def test_all_ranks_stop_after_the_same_batch(ranks):
    """A stop of one rank ends all of them as stopped, after the same batch."""
    first, *others = (untimed(events) for events in ranks[1])
    assert all(events == first for events in others)
    assert first[-1] == Finished(reason="stopped")
    assert 1 <= epochs(first)[-1].epoch < 40


@pytest.mark.slow
def test_a_silent_rank_ends_the_others(ranks):
    """The others end after the timeout, and only one of them is to report it."""
    assert sorted(ranks[2].split()) == ["first", "second"]


# --- under torchrun


@pytest.mark.slow
def test_lesson_1_equals_that_of_one_process(images, tmp_path):
    """Its losses differ by at most 1e-4 in an epoch of 512 pictures; stdout and stderr are those of one process."""
    few = ("--lesson", "one-epoch", *FEW, "--checkpoints", tmp_path, "--run", "run")
    status, rows, err = finish(trainer("train", *few, "--json"))
    assert status == 0, err
    assert [row["event"] for row in rows] == ["epoch", "checkpoint", *["step"] * 8, "epoch", "checkpoint", "finished"]
    assert [line for line in err.splitlines() if "torch" not in line] == [load_images("synthetic").note]
    alone = list(train(LESSONS["one-epoch"].config.changed({"num_images": 512}), load_images("synthetic")))
    assert [row["loss"] for row in rows if row["event"] == "step"] == pytest.approx(losses(alone), abs=1e-4)
    for row, expected in zip((row for row in rows if row["event"] == "epoch"), epochs(alone), strict=True):
        assert numbers(row) == pytest.approx(numbers(vars_of(expected)), abs=1e-4)


@pytest.mark.slow
def test_a_run_goes_from_two_processes_to_three_and_to_one(tmp_path, capsys):
    """When a rank is killed, all end with one message. Three continue until Ctrl-C, and one process completes the run,
    whose epochs equal those of a single process up to the rounding of hundreds of steps."""
    folder = tmp_path / "run"
    two = trainer("train", *LONG, "--checkpoints", tmp_path, "--run", "run")
    read_until(two, 1)
    os.kill(process_of(1, two), signal.SIGKILL)
    status, _, err = finish(two)
    assert status == 1
    assert err.count(MESSAGE) == 1
    assert "/trainer/" not in err  # no traceback of ours
    run = read_run(folder)
    assert run.status == "interrupted"

    three = trainer("resume", folder, "--json", processes=3)
    read_until(three, run.epoch + 1)
    three.send_signal(signal.SIGINT)
    status, rows, err = finish(three)
    assert status == 1  # torchrun's own
    assert MESSAGE not in err
    assert "/trainer/" not in err
    assert (rows[-1]["event"], rows[-1]["reason"]) == ("finished", "stopped")
    run = read_run(folder)
    assert run.status == "stopped"

    assert main(["resume", str(folder), "--epochs", str(run.epoch + 1)]) == 0
    whole = ("--checkpoints", str(tmp_path), "--run", "whole", "--epochs", str(run.epoch + 1))
    assert main(["train", *LONG[2:], *whole]) == 0
    histories = [read_run(tmp_path / name).history for name in ("run", "whole")]
    for row, expected in zip(*histories, strict=True):
        assert row.train_loss == pytest.approx(expected.train_loss, abs=1e-3)
        assert row.test_loss == pytest.approx(expected.test_loss, abs=1e-3)
        assert row.test_accuracy == pytest.approx(expected.test_accuracy, abs=0.02)


@pytest.mark.slow
def test_two_agents_on_loopback(tmp_path):
    """As on two machines with a process each: one of them prints and writes, with the numbers of one process."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    agent = ("--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "lab")
    given = ("train", "--epochs", "1", *FEW, "--scheduler", "constant", "--json", "--checkpoints", tmp_path)
    agents = [trainer(*given, "--run", "run", agent=agent, processes=1) for _ in range(2)]
    done = [finish(process) for process in agents]
    assert [status for status, _, _ in done] == [0, 0], done
    printed, silent = sorted((rows for _, rows, _ in done), key=len, reverse=True)
    assert silent == []
    assert printed[-1]["reason"] == "completed"
    alone = list(train(TrainConfig(epochs=1, num_images=512, scheduler="constant"), load_images("synthetic")))
    assert [row["loss"] for row in printed if row["event"] == "step"] == pytest.approx(losses(alone), abs=1e-4)


@pytest.mark.slow
def test_a_mistake_is_reported_once(tmp_path):
    """A mistake that only rank 0 can detect ends all of them, with one line."""
    status, rows, err = finish(trainer("resume", tmp_path / "nowhere"))
    assert (status, rows) == (1, [])
    assert re.findall("^error: .*", err, re.MULTILINE) == [f"error: There is no run in {tmp_path / 'nowhere'}."]
    assert err.startswith("error: ")


# --- what needs no second process


def test_an_error_of_one_rank_ends_all(tiny, tmp_path):
    """It reports its own reason; the others notice its closed connection, and do not wait."""

    def out_of_memory():
        yield from ()
        raise UserError("The device ran out of memory.")

    for rank in (0, 1):
        with pytest.raises(LostRankError, match="out of memory"):
            list(_record(out_of_memory(), Run(config=TrainConfig()), tmp_path / "run", tiny, World(rank, 2)))
    with pytest.raises(ValueError, match="out of memory"):
        list(_record(out_of_memory(), Run(config=TrainConfig()), tmp_path / "run", tiny, World(0, 1)))


def test_more_processes_than_a_batch_has_images(tiny):
    """Is refused with a sentence, before any communication."""
    with pytest.raises(ValueError, match="batch_size of 8 is too small for 9 processes"):
        train(TrainConfig(batch_size=8), tiny, world=World(0, 9))


def test_trainings_without_a_world_of_their_own_cannot_be_stopped():
    """All share ALONE: a stop of one would be a stop of all."""
    with pytest.raises(RuntimeError, match="share ALONE"):
        ALONE.stopping.set()
    assert not ALONE.stopping.is_set()


def test_a_single_process_without_torchrun(monkeypatch):
    """No process group is started, neither without torchrun nor with torchrun and one process."""
    with distributed.join() as world:
        assert (world.rank, world.size) == (0, 1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "lab")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with distributed.join() as world:
        assert (world.rank, world.size) == (0, 1)
        assert world.gather("value") == ["value"]
        assert world.claim()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("rank", "device", "sentence"),
    [(2, "cuda", "This machine has 2 GPUs, fewer than processes"), (0, "mps", "add --device cpu")],
)
def test_a_device_for_each_rank(rank, device, sentence, monkeypatch):
    """All share the CPU, each needs a GPU of its own, and too few GPUs are refused with a sentence."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    world = World(rank, 3, local_rank=rank)
    assert distributed.own_device(world, torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(ValueError, match=sentence):
        distributed.own_device(world, torch.device(device))


def test_a_gpu_for_each_rank(monkeypatch):
    """The second process on a machine takes its second GPU."""
    taken = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert distributed.own_device(World(3, 4, local_rank=1), torch.device("cuda")) == torch.device("cuda:1")
    assert taken == [torch.device("cuda:1")]
