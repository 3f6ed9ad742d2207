"""A run's curves as TensorBoard reads them."""

import socket
import struct
from dataclasses import replace

import pytest
from tensorboardX.proto.event_pb2 import Event

from trainer.cli.main import main
from trainer.runs.events import EpochEnded
from trainer.runs.exports.tensorboard import EVENT_FILE, event_file
from trainer.runs.reader import read_run
from trainer.runs.run import Run
from trainer.settings.config import TrainConfig

UNTRAINED = EpochEnded(
    epoch=0,
    train_loss=None,
    train_loss_sum=None,
    test_loss=2.5,
    test_accuracy=0.125,
    lr=None,
    grad_norm=None,
    seconds=0.5,
    images_per_second=None,
)
TRAINED = replace(UNTRAINED, epoch=1, train_loss=1.5, test_accuracy=0.5, lr=0.25, grad_norm=4.0, seconds=2.0)
RUN = Run(config=TrainConfig(), history=[UNTRAINED, TRAINED])


def read_events(content):
    """Parses TFRecords (https://www.tensorflow.org/tutorials/load_data/tfrecord): length, its CRC, data, their CRC."""
    events = []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[12 + length + 4 :]
    return events


def test_the_figures_of_each_epoch():
    """Each has those that it has, at its number and at the seconds that had passed."""
    header, *epochs = read_events(event_file(RUN))
    assert header.file_version == "brain.Event:2"
    figures = [{value.tag: value.simple_value for value in event.summary.value} for event in epochs]
    assert [(event.step, event.wall_time) for event in epochs] == [(0, 0.5), (1, 2.5)]
    assert figures == [
        {"loss/test": 2.5, "accuracy/test": 0.125},
        {"loss/train": 1.5, "loss/test": 2.5, "accuracy/test": 0.5, "lr": 0.25, "grad_norm": 4.0},
    ]


def test_the_same_run_has_the_same_bytes(monkeypatch):
    """Whenever and wherever it is written: there is no time and no name of a machine in it."""
    first = event_file(RUN)
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert event_file(RUN) == first
    assert socket.gethostname().encode() not in first


def test_export(small_run, tmp_path, capsys):
    """The command writes the file where TensorBoard looks for it, a folder for each run."""
    logs = tmp_path / "logs"
    for _ in range(2):
        assert main(["export", str(small_run), "--tensorboard", str(logs)]) == 0
    assert [path.relative_to(logs).as_posix() for path in logs.rglob("*.*")] == [f"{small_run.name}/{EVENT_FILE}"]
    assert (logs / small_run.name / EVENT_FILE).read_bytes() == event_file(read_run(small_run))
    assert f"tensorboard --logdir {logs}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "to", "sentence"), [("nowhere", "x", "There is no run in"), ("run", "file", "cannot be")]
)
def test_what_cannot_be_exported(run, to, sentence, small_run, tmp_path, capsys):
    """One line on stderr, exit status 2."""
    (tmp_path / "file").touch()
    assert main(["export", str(tmp_path / run), "--tensorboard", str(tmp_path / to)]) == 2
    assert sentence in capsys.readouterr().err
