"""The command `sharpness`."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.cli.options import add_command, add_data, add_device, add_json, device_of, images_of_runs, to_count
from trainer.cli.progress import bar_of
from trainer.insight import timeline
from trainer.insight.landscape import training_sample
from trainer.insight.plane import read_snapshots
from trainer.insight.sharpness import MOST_EPOCHS, NUM_IMAGES, Measured, SharpnessMeasured, measure

if TYPE_CHECKING:
    from trainer.cli.options import Commands

_NOTE = """
The sharpness is the largest eigenvalue of the Hessian of the loss on {count:,} training pictures. Where it is above
2/lr, plain gradient descent is unstable, and the loss rises and falls instead of falling (Cohen et al. 2021,
arXiv:2103.00065). Momentum and other optimizers have other limits."""


def add_sharpness(commands: "Commands") -> None:
    """Adds the command `sharpness`."""
    about = "measure how sharply the loss curves at each epoch of a run, compared with 2/lr"
    parser = add_command(commands, "sharpness", sharpness_command, about)
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--images", default=str(NUM_IMAGES), metavar="N", help=f"training pictures (default: {NUM_IMAGES})"
    )
    add_data(parser)
    add_json(parser)
    add_device(parser)


def sharpness_command(options: argparse.Namespace) -> int:
    """Prints the sharpness at each epoch of a run."""
    num_images = to_count("--images", options.images)
    device = device_of(options)
    line = timeline.of_folder(options.run)
    measured = Measured.of(line.run, read_snapshots(line, MOST_EPOCHS))
    config, images = images_of_runs([options.run], options.data)
    split = training_sample(config, images, num_images)
    if not options.json:
        print("epoch  sharpness      2/lr      loss", flush=True)
    with bar_of(1.0, is_hidden=options.json) as bar:
        for event in measure(measured, split, device=device):
            bar.n = event.fraction
            bar.refresh()
            if not isinstance(event, SharpnessMeasured):
                continue
            bar.clear()
            if options.json:
                print(json.dumps({"event": "sharpness", **asdict(event)}, allow_nan=False), flush=True)
            else:
                figures = "  ".join(f"{_text(value):>8}" for value in (event.sharpness, event.limit, event.loss))
                print(f"{event.epoch:5d}   {figures}", flush=True)
    if not options.json:
        print(_NOTE.format(count=len(split.labels)))
    return 0


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
