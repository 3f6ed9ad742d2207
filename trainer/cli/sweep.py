"""The command `sweep`."""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from trainer.cli.options import (
    add_command,
    add_data,
    add_device,
    add_json,
    add_settings,
    checkpoints_folder,
    device_of,
    images_of,
    settings_of,
)
from trainer.cli.progress import BAR_FORMAT
from trainer.errors import UserError
from trainer.images.image_data import ImageData, facts
from trainer.jobs.pace import measure
from trainer.runs import run_folder
from trainer.runs.run import Run
from trainer.settings.fields import text_of
from trainer.sweeps import chart, folder, results
from trainer.sweeps.axes import Cell, Grid, parse_axis
from trainer.sweeps.axes import grid as make_grid
from trainer.sweeps.folder import Sweep
from trainer.sweeps.runner import fitting, has_ended, most_at_once, run_sweep, start_workers

if TYPE_CHECKING:
    from trainer.cli.options import Commands

_SECONDS_BETWEEN_CHARTS = 10.0


def add_sweep(commands: "Commands") -> None:
    """Adds the command `sweep`."""
    about = "train over a grid of settings, to see which are best and how much they matter"
    parser = add_command(commands, "sweep", sweep_command, about)
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="a setting and its values: a,b,c or lo..hi:n (n values, evenly spaced in the logarithm), and a;b for "
        "settings that are lists; several make their product",
    )
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="finish a sweep that was interrupted")
    parser.add_argument("--dry-run", action="store_true", help="only say which runs it would be, and how long")
    parser.add_argument("--parallel", metavar="N", help="runs at a time (default: one for each core)")
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="the folder for sweeps (default: checkpoints)")
    parser.add_argument("--run", metavar="NAME", help="the sweep's name (default: from the time)")
    add_settings(parser)
    add_data(parser)
    add_json(parser)
    add_device(parser)


def sweep_command(options: argparse.Namespace) -> int:
    """Runs a new sweep, or the rest of one."""
    settings = settings_of(options)
    if options.resume and (options.vary or settings or options.run or options.checkpoints):
        raise UserError("--resume takes the settings of the sweep that it continues: leave out the others.")
    device = device_of(options)
    count = _number(options.parallel) if options.parallel else most_at_once(device)
    if options.resume:
        sweep = folder.read(options.resume)
        images = images_of(options.data or sweep.data.get("source"))
        if images.digest != sweep.data.get("digest"):
            raise UserError(
                "This sweep was trained on other pictures ({expected}) than these ({found}); name those with --data.",
                expected=sweep.data.get("name"),
                found=images.name,
            )
    else:
        name = run_folder.check_name(options.run or f"sweep-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        axes = tuple(map(parse_axis, options.vary))
        make_grid(settings, axes)  # refuses it before the images are loaded
        images = images_of(options.data)
        place = (options.checkpoints or checkpoints_folder()) / name
        sweep = Sweep(folder=place, settings=settings, axes=axes, data=facts(images))
    grid = fitting(sweep.grid, images)
    if not options.json:
        print(images.note, file=sys.stderr)
    _report_refused(grid, options)
    if options.dry_run:
        return _report_plan(grid, images, device, options)
    if not options.resume:
        folder.create(sweep)
    with folder.running(sweep.folder):
        return _run(sweep, grid, images, device, count, options)


def _run(sweep: Sweep, grid: Grid, images: ImageData, device: Any, count: int, options: argparse.Namespace) -> int:
    runs = folder.runs_of(sweep)
    left = [cell for cell in grid.cells if cell not in runs or not has_ended(runs[cell])]
    ended = {cell: run for cell, run in runs.items() if has_ended(run)}
    if not options.json:
        done = f", {len(ended)} of them done" if ended else ""
        print(f"The sweep is kept in {sweep.folder}: {len(grid.cells)} runs{done}.\n", flush=True)
        print(_line({name: name for name in _columns(sweep)}, sweep), flush=True)
    stopping = threading.Event()
    total = sum(cell.config.epochs for cell in grid.cells)
    drawn = time.monotonic()
    with (
        _stopped_by_signals(stopping),
        tqdm(total=total, disable=True if options.json else None, leave=False, bar_format=BAR_FORMAT) as bar,
    ):
        workers = start_workers(device, min(count, len(left))) if left else []
        try:
            for report in run_sweep(sweep, left, images, workers, stopping):
                if report:
                    cell, run = report
                    runs[cell] = run
                    if has_ended(run) and cell not in ended:
                        ended[cell] = run
                        bar.clear()
                        _print_row(sweep, folder.result(cell, run), options)
                        is_due = time.monotonic() > drawn + _SECONDS_BETWEEN_CHARTS
                        _save(sweep, ended, with_chart=is_due)
                        drawn = time.monotonic() if is_due else drawn
                    elif run.status == "interrupted" and run.advice:
                        print(f"Not finished: {_named(cell.values)}: {run.advice}", file=sys.stderr, flush=True)
                bar.n = sum(cell.config.epochs if cell in ended else run.epochs_passed for cell, run in runs.items())
                bar.refresh()
        finally:
            for worker in workers:
                worker.close()
    _save(sweep, ended, with_chart=True)
    _report_best(sweep, ended, options)
    if stopping.is_set() and len(ended) < len(grid.cells):
        print(f"Stopped. Go on with: python -m trainer sweep --resume {sweep.folder}", file=sys.stderr)
        return 130
    return 0 if len(ended) == len(grid.cells) else 1


def _report_refused(grid: Grid, options: argparse.Namespace) -> None:
    for values, sentence in grid.refused:
        if options.json:
            print(json.dumps({"event": "refused", **values, "reason": sentence}), flush=True)
        else:
            print(f"Left out: {_named(values)}: {sentence}", file=sys.stderr)


def _report_plan(grid: Grid, images: ImageData, device: Any, options: argparse.Namespace) -> int:
    """Prints the number of runs and the time they take, from a pace that is measured for each optimizer."""
    paces: dict[tuple[Any, ...], float] = {}
    seconds = 0.0
    for cell in grid.cells:
        config = cell.config
        kind = (config.optimizer, config.model, config.batch_size, config.precision, config.num_images)
        if kind not in paces:
            paces[kind] = measure(config, images, device=device).epoch_seconds(config, images)
        seconds += paces[kind] * config.epochs
    plan = {"runs": len(grid.cells), "refused": len(grid.refused), "seconds": round(seconds, 1)}
    if options.json:
        print(json.dumps({"event": "plan", **plan}))
    else:
        print(f"{len(grid.cells)} runs, about {_duration(seconds)} on this machine.")
    return 0


def _report_best(sweep: Sweep, ended: Mapping[Cell, Run], options: argparse.Namespace) -> None:
    best = results.best(ended, sweep.axes)
    if not options.json and best:
        print("\nBest by the loss on the pictures kept aside:" if best[0].spread("holdout_loss") else "\nBest:")
    for group in best:
        row = results.best_row(group)
        if options.json:
            print(json.dumps({"event": "best", **row}, allow_nan=False), flush=True)
            continue
        loss = group.spread("holdout_loss") or group.spread("test_loss")
        accuracy = group.spread("test_accuracy")
        assert loss is not None, "a group without a loss is not among the best"
        assert accuracy is not None
        print(
            f"  {_named(group.values)}: loss {loss[0]:.4f} ± {loss[1]:.4f}, "
            f"{accuracy[0]:.2%} ± {accuracy[1]:.2%} of the test pictures right"
        )


def _print_row(sweep: Sweep, row: Mapping[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps({"event": "cell", **row}, allow_nan=False), flush=True)
    else:
        print(_line(row, sweep), flush=True)


def _columns(sweep: Sweep) -> list[str]:
    return [*(axis.name for axis in sweep.axes), *folder.COLUMNS]


def _line(row: Mapping[str, Any], sweep: Sweep) -> str:
    cells = []
    for name in _columns(sweep):
        value = row[name]
        text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else text_of(value)
        cells.append(f"{text:>{max(len(name), 10)}}")
    return "  ".join(cells)


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {text_of(value)}" for name, value in values.items())


def _save(sweep: Sweep, ended: Mapping[Cell, Run], *, with_chart: bool) -> None:
    """Writes the results; a disk that refuses now may accept them after the next run."""
    with suppress(OSError):
        folder.write_results(sweep, ended)
        if with_chart and ended:
            folder.write_chart(sweep, chart.draw(ended, sweep.axes))


@contextmanager
def _stopped_by_signals(stopping: threading.Event) -> Iterator[None]:
    """Makes Ctrl-C and SIGTERM stop the runs so that they can be continued; a second one ends at once."""

    def stop(*_: Any) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:4]) <= 256 or len(text) > 4:
        raise UserError("--parallel takes the number of runs at a time, from 1 to 256.")
    return int(text)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
