"""The commands `find-lr` and `preview-lr`."""

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING

from trainer.cli.options import (
    add_command,
    add_data,
    add_device,
    add_json,
    add_settings,
    device_of,
    images_of,
    settings_of,
)
from trainer.cli.progress import bar_of
from trainer.images.mirror import suited
from trainer.learning import lr_finder
from trainer.learning.schedulers import preview
from trainer.learning.training_set import batches_per_epoch
from trainer.settings.config import TrainConfig

if TYPE_CHECKING:
    from trainer.cli.options import Commands

_MAX_ROWS = 24


def add_find_lr(commands: "Commands") -> None:
    """Adds the command `find-lr`."""
    about = "try the learning rates from low to high and suggest one"
    parser = add_command(commands, "find-lr", find_lr_command, about)
    add_settings(parser)
    add_data(parser)
    add_json(parser)
    add_device(parser)


def find_lr_command(options: argparse.Namespace) -> int:
    """Prints the trials of a learning-rate search and the suggested lr."""
    settings = settings_of(options)
    TrainConfig.from_settings(settings)  # refuses them before the images are loaded
    device = device_of(options)
    images = images_of(options.data)
    settings, reason = suited(settings, images)
    search = lr_finder.find_lr(TrainConfig.from_settings(settings), images, device=device)
    print(f"{images.sentences} {reason}".rstrip(), file=sys.stderr)
    trials: list[lr_finder.Trial] = []
    with bar_of(1.0, is_hidden=options.json) as bar:
        for result in search:
            if options.json:
                print(json.dumps(lr_finder.row(result), allow_nan=False), flush=True)
            if isinstance(result, lr_finder.Trial):
                trials.append(result)
                bar.n = result.step / result.num_steps
                bar.set_postfix_str(f"lr {result.lr:.2g}, loss {result.smoothed:.3f}")
            else:
                finding = result  # the last result
    if not options.json:
        print("       lr      loss  smoothed")
        for trial in trials[:: math.ceil(len(trials) / _MAX_ROWS) or 1]:
            print(f"{trial.lr:9.2g}  {trial.loss:8.4g}  {trial.smoothed:8.4g}")
        suggestion = "none" if finding.suggestion is None else f"{finding.suggestion:g}"
        print(f"\nSuggested lr: {suggestion}. {finding.reason}")
    return 0


def add_preview_lr(commands: "Commands") -> None:
    """Adds the command `preview-lr`."""
    parser = add_command(commands, "preview-lr", preview_lr_command, "print the lr of each step of a run")
    add_settings(parser)
    parser.add_argument(
        "--data", metavar="SOURCE", help="take the number of pictures from this data (default: CIFAR-10's)"
    )
    add_json(parser)


def preview_lr_command(options: argparse.Namespace) -> int:
    """Prints each step of a run with its lr."""
    config = TrainConfig.from_settings(settings_of(options))
    images = images_of(options.data) if options.data else None
    per_epoch = batches_per_epoch(config, images)
    if images:
        print(images.sentences, file=sys.stderr)
    if config.scheduler == "plateau":
        print("plateau lowers lr when the test loss stalls, so only its first lr is known here.", file=sys.stderr)
    for step, lr in preview(config, batches_per_epoch=per_epoch):
        print(json.dumps({"step": step, "lr": lr}) if options.json else f"{step}\t{lr:g}")
    return 0
