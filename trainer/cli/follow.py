"""Shows a training on the terminal: its events as rows of JSON, or as a progress bar and a table."""

import argparse
import json
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainer.cli.progress import bar_of
from trainer.learning.distributed import World
from trainer.runs import run_folder
from trainer.runs.events import EpochEnded, Event, row
from trainer.runs.run import Run, by_class

_HEADER = "epoch  train loss  test loss  test accuracy        lr  seconds  images/s"


def follow(
    events: Iterable[Event], run: Run, *, folder: Path, note: str, world: World, options: argparse.Namespace
) -> int:
    """Trains by iterating over the events, and prints them; returns the exit status.

    `events` must also update `run`, whose warning and notice go to stderr when they change. With --json each event
    becomes a row on stdout, otherwise there are a bar on stderr and a table on stdout. `note`, a sentence about the
    images, goes to stderr. Ctrl-C stops the training at its next event. The exit status is 130 if it was stopped, 1 if
    the run could not be saved, otherwise 0.
    """

    def stop(*_: Any) -> None:
        world.stopping.set()
        if world.size == 1:  # a second Ctrl-C interrupts at once instead of at the next event
            signal.signal(signal.SIGINT, signal.default_int_handler)

    # torchrun forwards the signals that it receives, and sends SIGTERM after another rank has failed.
    signals = [signal.SIGINT] if world.size == 1 else [signal.SIGINT, signal.SIGTERM]
    previous = {number: signal.signal(number, stop) for number in signals}
    bar = bar_of(run.config.epochs, is_hidden=options.json)
    said = {""}
    try:
        print(note, file=sys.stderr)
        if not options.json:
            print(f"The run is kept in {folder}\n\n{_HEADER}", flush=True)
        for event in events:
            for sentence in {run.warning, run.notice} - said:
                print(sentence, file=sys.stderr)
            said = {"", run.warning, run.notice}
            if options.json:
                data = row(event, str(folder) if run_folder.is_run(folder) else None)
                if data is not None:
                    print(json.dumps(data, allow_nan=False), flush=True)
                continue
            bar.n = run.epochs_passed
            if run.last_step is not None:
                bar.set_postfix_str(f"epoch {run.last_step.epoch}, loss {run.last_step.loss:.3f}", refresh=False)
            bar.refresh()
            if isinstance(event, EpochEnded):
                bar.clear()
                print(_table_row(event), flush=True)
    finally:
        bar.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if not options.json:
        print(f"\n{_summary(run, folder)}")
    if world.stopping.is_set() or run.status == "stopped":
        return 130
    return 1 if run.warning else 0


def _table_row(ended: EpochEnded) -> str:
    trained = ended.train_loss is not None
    return (
        f"{ended.epoch:5d}  {format(ended.train_loss, '10.4f') if trained else ' ' * 10}  {ended.test_loss:9.4f}  "
        f"{ended.test_accuracy:13.2%}  {format(ended.lr, '8.3g') if trained else ' ' * 8}  {ended.seconds:7.1f}  "
        f"{format(ended.images_per_second, '8,.0f') if trained else ''}"
    ).rstrip() + ("" if ended.test_share == 1 else f"  (on {ended.test_share:.0%} of the test pictures)")


def _summary(run: Run, folder: Path) -> str:
    """Returns sentences on how the run ended, with the command to continue with."""
    if run.warning:
        return run.warning
    go_on = f"Go on with: python -m trainer resume {folder}"
    if run.status == "diverged":
        return f"The run diverged. {run.advice} Its last good epoch, {run.epoch}, is kept."
    if run.status == "stopped":
        return f"Stopped after epoch {run.epoch} of {run.config.epochs}. {go_on}"
    best = run.best
    assert best is not None, "a completed run has epochs"
    last = run.history[-1]
    sentences = (
        f"Done: {last.test_accuracy:.2%} of the test pictures right, best {best.test_accuracy:.2%} in epoch "
        f"{best.epoch}.",
        by_class(last),
        f"Try it: python -m trainer classify {folder} PICTURE",
    )
    return " ".join(filter(None, sentences))
