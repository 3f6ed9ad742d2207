"""A run's curves as an event file of TensorBoard, which the Hub displays as training metrics."""

from pathlib import Path
from tempfile import TemporaryDirectory

from trainer.runs.events import EpochEnded
from trainer.runs.run import Run

# TensorBoard reads every file with "tfevents" in its name. Its own names have the time and the host at the end.
EVENT_FILE = "events.out.tfevents.0.optimizer-lab"

_TAGS = {
    "loss/train": "train_loss",
    "loss/test": "test_loss",
    "loss/holdout": "holdout_loss",
    "accuracy/test": "test_accuracy",
    "accuracy/holdout": "holdout_accuracy",
    "lr": "lr",
    "grad_norm": "grad_norm",
}


def event_file(run: Run) -> bytes:
    """Returns the content of an event file: the figures of each epoch, at the seconds that the run had taken by then.

    It is the same for the same run: the time counts from 0, and there is no name of a host in it.
    """
    from tensorboardX.proto.event_pb2 import Event  # takes a second to import, and only publishing needs it
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter

    def summary(row: EpochEnded) -> Summary:
        values = {tag: getattr(row, name) for tag, name in _TAGS.items()}
        return Summary(
            value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if value is not None]
        )

    with TemporaryDirectory() as folder:
        path = Path(folder) / EVENT_FILE
        writer = RecordWriter(str(path))
        writer.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
        seconds = 0.0
        for row in run.history:
            seconds += row.seconds
            writer.write(Event(wall_time=seconds, step=row.epoch, summary=summary(row)).SerializeToString())
        writer.close()
        return path.read_bytes()
