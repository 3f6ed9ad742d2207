"""The command `export`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.cli.options import add_command
from trainer.errors import UserError
from trainer.runs import run_folder
from trainer.runs.exports.tensorboard import EVENT_FILE, event_file
from trainer.runs.reader import read_run

if TYPE_CHECKING:
    from trainer.cli.options import Commands


def add_export(commands: "Commands") -> None:
    """Adds the command `export`."""
    parser = add_command(commands, "export", export_command, "write the curves of a run for another program")
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--tensorboard", type=Path, metavar="DIR", required=True, help="the folder for TensorBoard's event files"
    )


def export_command(options: argparse.Namespace) -> int:
    """Writes a run's curves into a folder of its own in `--tensorboard`, and prints the command that displays them."""
    if not run_folder.is_run(options.run):
        raise UserError("There is no run in {run}.", run=options.run)
    content = event_file(read_run(options.run))
    folder = options.tensorboard / options.run.resolve().name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / EVENT_FILE).write_bytes(content)
    except OSError as error:
        raise UserError("The folder cannot be written: {reason}.", reason=run_folder.reason(error)) from None
    print(f"The curves are in {folder}. Look at them: tensorboard --logdir {options.tensorboard}")
    return 0
