"""The command `sweep`."""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainer.cli.options import (
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
    to_count,
)
from trainer.cli.progress import bar_of
from trainer.errors import UserError
from trainer.images.image_data import ImageData, facts
from trainer.jobs.cluster import LOCAL, check_place, connect
from trainer.jobs.pace import Pace, measure
from trainer.runs import run_folder
from trainer.runs.run import Run
from trainer.settings.fields import text_of
from trainer.sweeps import chart, folder, results
from trainer.sweeps.axes import Cell, Grid, parse_axis
from trainer.sweeps.axes import grid as make_grid
from trainer.sweeps.folder import Sweep
from trainer.sweeps.runner import (
    Worker,
    fitting,
    most_at_once,
    run_sweep,
    start_workers,
    sweep_settings,
    threads_of_each,
)

if TYPE_CHECKING:
    from trainer.cli.options import Commands

_SECONDS_BETWEEN_CHARTS = 10.0
_MOST_PARALLEL = 256


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
    parser.add_argument(
        "--on",
        default=LOCAL,
        metavar="local|ray|ray://HOST:PORT",
        help="where to train: on this machine, on a Ray cluster that is started here, or on a running one",
    )
    parser.add_argument(
        "--parallel", metavar="N", help="runs at a time (default: one for each core, or each free one of a cluster)"
    )
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
    place, reason = check_place(options.on), ""
    parallel = None if options.parallel is None else to_count("--parallel", options.parallel, most=_MOST_PARALLEL)
    device = device_of(options) if place == LOCAL or options.dry_run else None  # None: on the nodes of a cluster
    if options.resume:
        sweep = folder.read(options.resume)
        images = same_images(sweep.data, options.data)
    else:
        name = run_folder.check_name(options.run or f"sweep-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        axes = tuple(map(parse_axis, options.vary))
        make_grid(settings, axes)  # refuses it before the images are loaded
        images = images_of(options.data)
        settings, reason = sweep_settings(settings, axes, images)
        whole = (options.checkpoints or checkpoints_folder()) / name
        sweep = Sweep(folder=whole, settings=settings, axes=axes, data=facts(images))
    grid = fitting(sweep.grid, images)
    if not options.json:
        print(f"{images.sentences} {reason}".rstrip(), file=sys.stderr)
    _report_refused(grid, options)
    if options.dry_run:
        assert device is not None
        return _report_plan(grid, images, device, min(len(grid.cells), parallel or most_at_once(device)), options)
    with _place(place, device, parallel, options) as workers:
        if not options.resume:
            folder.create(sweep)
        with folder.running(sweep.folder):
            return _run(sweep, grid, images, workers, options)


Workers = Callable[[int], AbstractContextManager[Sequence[Worker]]]
"""Starts at most that many workers, and ends them when the `with` block does."""


@contextmanager
def _place(
    place: str, device: torch.device | None, parallel: int | None, options: argparse.Namespace
) -> Iterator[Workers]:
    """Returns the workers of the place where the sweep is to train."""
    if device:
        yield lambda most: start_workers(device, min(most, parallel or most_at_once(device)))
        return
    with closing(connect(place, device=options.device, parallel=parallel)) as cluster:
        yield lambda most: nullcontext([cluster] * min(most, cluster.size))


def _run(sweep: Sweep, grid: Grid, images: ImageData, workers: Workers, options: argparse.Namespace) -> int:
    runs = folder.runs_of(sweep)
    left = folder.unfinished(grid.cells, runs)
    ended = folder.ended(runs)
    if not options.json:
        done = f", {len(ended)} of them done" if ended else ""
        print(f"The sweep is kept in {sweep.folder}: {len(grid.cells)} runs{done}.\n", flush=True)
        print(_line({name: name for name in _columns(sweep)}, sweep), flush=True)
    stopping = threading.Event()
    total = sum(cell.config.epochs for cell in grid.cells)
    drawn = time.monotonic()
    with (
        _stopped_by_signals(stopping),
        workers(len(left)) as started,
        bar_of(total, is_hidden=options.json) as bar,
    ):
        for report in run_sweep(sweep, left, images, started, stopping):
            if report:
                cell, run = report
                runs[cell] = run
                bar.clear()
                _report_problems(cell, run)
                if folder.has_ended(run) and cell not in ended:
                    ended[cell] = run
                    _print_row(sweep, folder.result(cell, run), options)
                    is_due = time.monotonic() > drawn + _SECONDS_BETWEEN_CHARTS
                    with suppress(OSError):  # a disk that refuses now may accept them after the next run
                        _save(sweep, ended, with_chart=is_due)
                    drawn = time.monotonic() if is_due else drawn
            bar.n = sum(cell.config.epochs if cell in ended else run.epochs_passed for cell, run in runs.items())
            bar.refresh()
    is_saved = not any(run.warning for run in runs.values())
    try:
        _save(sweep, ended, with_chart=True)
    except OSError as error:
        is_saved = False
        print(f"The results cannot be written: {run_folder.reason(error)}.", file=sys.stderr)
    _report_best(sweep, ended, options)
    if stopping.is_set() and len(ended) < len(grid.cells):
        print(f"Stopped. Go on with: python -m trainer sweep --resume {sweep.folder}", file=sys.stderr)
        return 130
    return 0 if len(ended) == len(grid.cells) and is_saved else 1


def _report_problems(cell: Cell, run: Run) -> None:
    """Prints what went wrong with a run that is not trained any more, and what differs if it was resumed."""
    if run.status == "training":
        return
    advice = f"not finished: {run.advice}" if run.status == "interrupted" and run.advice else ""
    for sentence in filter(None, (advice, run.notice, run.warning)):
        print(f"{_named(cell.values)}: {sentence}", file=sys.stderr, flush=True)


def _report_refused(grid: Grid, options: argparse.Namespace) -> None:
    for values, sentence in grid.refused:
        if options.json:
            print(json.dumps({"event": "refused", **values, "reason": sentence}), flush=True)
        else:
            print(f"Left out: {_named(values)}: {sentence}", file=sys.stderr)


def _report_plan(grid: Grid, images: ImageData, device: torch.device, at_once: int, options: argparse.Namespace) -> int:
    """Prints the number of runs and the time they take, from a pace that is measured for each optimizer."""
    if device.type == "cpu":
        torch.set_num_threads(threads_of_each(at_once))
    paces: dict[tuple[Any, ...], Pace] = {}
    seconds = 0.0
    for cell in grid.cells:
        config = cell.config
        kind = (config.optimizer, config.model, config.batch_size, config.precision, config.num_images)
        if kind not in paces:
            paces[kind] = measure(config, images, device=device)
        seconds += paces[kind].run_seconds(config, images) / at_once
    plan = {"runs": len(grid.cells), "refused": len(grid.refused), "seconds": round(seconds, 1)}
    if options.json:
        print(json.dumps({"event": "plan", **plan}))
    else:
        print(f"{len(grid.cells)} runs, about {_duration(seconds)} on this machine.")
    return 0


def _report_best(sweep: Sweep, ended: Mapping[Cell, Run], options: argparse.Namespace) -> None:
    best = results.best(ended, sweep.axes)
    if not options.json and best:
        print(f"\nBest by the {results.measure_of(ended).loss_name}:")
    for group in best:
        row = results.best_row(group)
        if options.json:
            print(json.dumps({"event": "best", **row}, allow_nan=False), flush=True)
            continue
        loss = results.mean_and_std(group, results.measure_of(ended).loss, ".4f")
        accuracy = results.mean_and_std(group, "test_accuracy", ".2%")
        print(f"  {_named(group.values) or 'all'}: loss {loss}, {accuracy} of the test pictures right")


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
    """Writes the results. Raises OSError if the disk refuses."""
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


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
