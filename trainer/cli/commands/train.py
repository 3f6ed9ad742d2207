"""The commands `train` and `resume`, also under torchrun."""

import argparse
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainer.cli.follow import follow
from trainer.cli.options import (
    Parser,
    add_command,
    add_data,
    add_device,
    add_json,
    add_settings,
    checkpoints_folder,
    device_of,
    images_of,
    same_images,
    settings_of,
)
from trainer.errors import UserError
from trainer.images import image_data
from trainer.images.image_data import ImageData, imbalance
from trainer.images.mirror import suited
from trainer.learning.checkpoint import Checkpoint, continued, resumed, thread_notice
from trainer.learning.distributed import LostRankError, World
from trainer.learning.loop import train
from trainer.runs import run_folder
from trainer.runs.events import Event
from trainer.runs.reader import read_checkpoint
from trainer.runs.recorder import record
from trainer.runs.run import Run
from trainer.runs.run_folder import MOST_EPOCHS
from trainer.settings.config import ROW_SETTINGS, TrainConfig, parse
from trainer.settings.lessons import LESSONS
from trainer.settings.presets import PRESETS

if TYPE_CHECKING:
    from trainer.cli.options import Commands

# The settings that `resume` may change. Those of the network, the images and their order must stay the same.
_CHANGEABLE = {"optimizer", "scheduler", "scheduler_unit", "num_warmup_steps"} | ROW_SETTINGS


def add_train(commands: "Commands") -> None:
    """Adds the command `train`."""
    about = "train a network and save its checkpoints"
    parser = add_command(commands, "train", train_command, about, is_distributed=True)
    parser.add_argument("--preset", choices=PRESETS, help="start from the settings that the page opens with, or better")
    parser.add_argument("--lesson", choices=LESSONS, metavar="NAME", help="start from a lesson's settings; see lessons")
    add_settings(parser)
    add_data(parser)
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="the folder for runs (default: checkpoints)")
    parser.add_argument("--run", metavar="NAME", help="the run's name (default: from the settings and the time)")
    _add_keep_epochs(parser)
    add_json(parser)
    add_device(parser)


def train_command(options: argparse.Namespace, world: World) -> int:
    """Trains a new run."""
    if options.lesson and options.preset:
        raise UserError("Start from a lesson or from a preset, not from both.")
    if options.lesson and LESSONS[options.lesson].vary:
        raise UserError("{lesson} is a sweep: python -m trainer lessons prints its command.", lesson=options.lesson)
    start = LESSONS[options.lesson].config if options.lesson else PRESETS.get(options.preset)
    settings = settings_of(options)
    config = start.changed(settings) if start else TrainConfig.from_settings(settings)
    name = options.run or f"{config.optimizer}-{config.scheduler}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder = (options.checkpoints or checkpoints_folder()) / run_folder.check_name(name)
    device = device_of(options, world)
    _check_no_run(folder, world)
    images = images_of(options.data, world)
    note = " ".join(filter(None, (images.sentences, imbalance(images))))
    if not options.lesson:
        settings, reason = suited(settings, images)
        config, note = config.changed(settings), f"{note} {reason}".rstrip()
    with world.share_errors():
        events = train(config, images, device=device, world=world)
    with _writing(folder, world):
        _check_no_run(folder, world)  # another command may have started one meanwhile
        run = Run(config=config)
        recorded = _record(events, run, folder, images, world, keeps_all=options.keep_epochs == "all")
        return follow(recorded, run, folder=folder, note=note, world=world, options=options)


def add_resume(commands: "Commands") -> None:
    """Adds the command `resume`."""
    about = "continue a run exactly where its last epoch ended"
    parser = add_command(commands, "resume", resume_command, about, is_distributed=True)
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--epochs", metavar="N", help="the new total (default: the run's own)")
    add_settings(parser, sorted(_CHANGEABLE))
    _add_keep_epochs(parser)
    add_data(parser)
    add_json(parser)
    add_device(parser)


def resume_command(options: argparse.Namespace, world: World) -> int:
    """Resumes a run where its last epoch ended."""
    changes = settings_of(options)
    epochs = None if options.epochs is None else parse("epochs", options.epochs)
    device = device_of(options, world)
    with world.share_errors():
        if world.rank == 0 and not run_folder.is_run(options.run):
            raise UserError("There is no run in {run}.", run=options.run)
    with _writing(options.run, world):
        checkpoint: Checkpoint | None = None
        with world.share_errors():
            if world.rank == 0:
                checkpoint = continued(read_checkpoint(options.run), epochs=epochs, changes=changes)
        saved = world.gather(checkpoint)[0]
        assert saved is not None, "rank 0 has read it"
        images = same_images(saved.data, options.data, world)
        with world.share_errors():
            events = train(saved.config, images, device=device, world=world, resume=saved)
        run = resumed(saved)
        if device.type == "cpu":
            run.notice = thread_notice(saved.threads, torch.get_num_threads())
        recorded = _record(
            events, run, options.run, images, world, resume=saved, keeps_all=options.keep_epochs == "all"
        )
        return follow(recorded, run, folder=options.run, note=images.sentences, world=world, options=options)


def _add_keep_epochs(parser: Parser) -> None:
    parser.add_argument(
        "--keep-epochs",
        choices=("all",),
        help=f"keep the weights of every epoch, not only of the untrained, the best, the last and {MOST_EPOCHS} others",
    )


def _check_no_run(folder: Path, world: World) -> None:
    with world.share_errors():
        if world.rank == 0 and run_folder.is_run(folder):
            raise UserError(
                "There is a run in {folder} already; continue it with `resume`, or choose another --run.",
                folder=folder,
            )


@contextmanager
def _writing(folder: Path, world: World) -> Iterator[None]:
    """Locks the run's folder, on rank 0: the only rank that writes to it."""
    with ExitStack() as lock:
        with world.share_errors():
            if world.rank == 0:
                lock.enter_context(run_folder.writing(folder))
        yield


def _record(
    events: Iterable[Event],
    run: Run,
    folder: Path,
    images: ImageData,
    world: World,
    *,
    resume: Checkpoint | None = None,
    keeps_all: bool = False,
) -> Iterator[Event]:
    """Yields each event after updating `run` and, on rank 0, the run's folder.

    An error of one rank among several, such as too little memory, becomes a LostRankError: the other ranks wait for
    this one, and only its end can end them too.
    """
    try:
        if world.rank == 0:
            # Several ranks stop together, in the training loop itself.
            stop = world.stopping.is_set if world.size == 1 else lambda: False
            facts = image_data.facts(images)
            yield from record(events, run, folder, facts, resume=resume, keeps_all=keeps_all, stop=stop)
            return
        for event in events:
            run.apply(event)
            yield event
    except UserError as error:
        if world.size == 1:
            raise
        raise LostRankError(str(error)) from error
