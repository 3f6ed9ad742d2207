"""The command `landscape`."""

import argparse
import json
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.cli.options import (
    add_command,
    add_data,
    add_device,
    add_json,
    check_output,
    device_of,
    images_of_runs,
    save_text,
    to_count,
)
from trainer.cli.progress import bar_of
from trainer.errors import UserError
from trainer.insight import contours, plane, timeline
from trainer.insight.landscape import (
    NUM_IMAGES,
    NUM_POINTS,
    LossMap,
    empty_map,
    evaluate,
    grid_over,
    map_row,
    point_row,
    read_cache,
    revisit,
    training_sample,
    write_cache,
)
from trainer.networks.model import OptimizerLabModel
from trainer.runs.reader import read_run

if TYPE_CHECKING:
    from trainer.cli.options import Commands


def add_landscape(commands: "Commands") -> None:
    """Adds the command `landscape`."""
    about = "draw the training loss around the path of a run, or of several that were trained on the same pictures"
    parser = add_command(commands, "landscape", landscape_command, about)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--random",
        action="store_true",
        help="around the last network in two random directions, instead of through the epochs",
    )
    parser.add_argument(
        "--grid", default=str(NUM_POINTS), metavar="N", help=f"points along each axis (default: {NUM_POINTS})"
    )
    parser.add_argument(
        "--images", default=str(NUM_IMAGES), metavar="N", help=f"training pictures (default: {NUM_IMAGES})"
    )
    parser.add_argument("--output", type=Path, metavar="FILE.svg", help="where to save the chart")
    add_data(parser)
    add_json(parser)
    add_device(parser)


def landscape_command(options: argparse.Namespace) -> int:
    """Computes a landscape, or reads it from the run's folder, and draws it."""
    num_points, num_images = to_count("--grid", options.grid), to_count("--images", options.images)
    if options.output and options.output.suffix.lower() != ".svg":
        raise UserError("--output takes the name of an .svg file.")
    check_output(options.output)
    device = device_of(options)
    grid = grid_over(_plane_of(options), num_points)
    config, images = images_of_runs(options.runs, options.data)
    split = training_sample(config, images, num_images)
    found = empty_map(grid, _names(options.runs), len(split.labels))
    with bar_of(1.0, is_hidden=options.json) as bar:
        cached = read_cache(options.runs[0], grid, split)
        for event in revisit(grid, cached) if cached else evaluate(grid, split, device=device):
            found.losses[event.row, event.column] = event.loss
            bar.n = event.fraction
            bar.refresh()
            if options.json:
                print(json.dumps(point_row(grid, event), allow_nan=False), flush=True)
    if not cached:
        with suppress(UserError):  # a run in training, or a disk that refuses
            write_cache(options.runs[0], grid, split, found.losses)
    if options.output:
        save_text(options.output, contours.draw(found))
    _report(found, options)
    return 0


def _plane_of(options: argparse.Namespace) -> plane.Plane:
    if not options.random:
        return plane.through_epochs([timeline.of_folder(folder) for folder in options.runs])
    if len(options.runs) > 1:
        raise UserError("--random takes one run.")
    run = read_run(options.runs[0])
    return plane.around(OptimizerLabModel.from_pretrained(options.runs[0]), run.epoch)


def _report(found: LossMap, options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(map_row(found), allow_nan=False), flush=True)
        return
    finite = [loss for loss in found.losses.values() if math.isfinite(loss)]
    if finite:
        print(f"The loss is from {min(finite):.4g} to {max(finite):.4g} at {len(found.losses)} points.")
    if found.num_infinite:
        print(f"At {found.num_infinite} points it is not finite.")
    print("\n".join(contours.caption(found)))
    if options.output:
        print(f"The chart is in {options.output}")
    else:
        print("Draw it with --output FILE.svg", file=sys.stderr)


def _names(folders: list[Path]) -> list[str]:
    """Returns the names of the runs; those of equal names are numbered."""
    names = [folder.resolve().name for folder in folders]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]
