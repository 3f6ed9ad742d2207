"""The worker: a process that runs work on one device and shares the device among all of it.

`python -m trainer.jobs.worker DEVICE` reads pickled commands from stdin and writes pickled turns to stdout. Only
`trainer.jobs.process`, which starts it, talks to it. It ends with the process that started it.
"""

import gc
import logging
import os
import pickle
import queue
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn

from trainer.errors import BROKEN, UserError
from trainer.jobs.schedule import Schedule, Turn
from trainer.jobs.work import Race, Work
from trainer.learning.device import set_up_process
from trainer.learning.optimizers import build_optimizer
from trainer.settings.config import TrainConfig

READY = "ready"  # the first message

_NICENESS = 4  # of 19

_logger = logging.getLogger(__name__)

# The key of some work, and the work to begin; None ends the one that was begun.
Command = tuple[int, Work | None]


def main() -> None:
    """Runs what stdin asks for until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the app, which closes stdin
    # A library that prints must not write between two messages, and none may read or inherit the commands: on Windows
    # it would wait for the next one.
    messages, stdin = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    _volunteer_for_oom_kill()
    _yield_processor()
    device = torch.device(sys.argv[1])
    set_up_process(device)
    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(stdin, commands), daemon=True).start()
    _send(messages, READY)
    # With the first optimizer torch imports a third of itself; done now, the first training need not wait for it.
    build_optimizer(TrainConfig(), [nn.Parameter(torch.zeros(1))])
    schedule = Schedule()
    while True:
        while not len(schedule) or not commands.empty():
            key, work = commands.get()
            if work is None:
                schedule.remove(key)
            else:
                schedule.add(key, work.run(device), work.served_before if isinstance(work, Race) else 0.0)
        turn = explained(schedule.turn())
        _send(messages, turn)
        if turn.error is not None:
            # The error's traceback holds the frames of the training, with its network and its batch.
            del turn
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()


def explained(turn: Turn) -> Turn:
    """Returns the turn; an error that is not for the user is logged and replaced with one that is."""
    if turn.error is None or isinstance(turn.error, UserError):
        return turn
    _logger.error("A training failed.", exc_info=turn.error)
    return replace(turn, error=UserError(BROKEN))


def _send(messages: BinaryIO, message: object) -> None:
    """Writes a message. Ends the process if the app has ended: stdin closes at the same time, but is read elsewhere."""
    try:
        pickle.dump(message, messages)
        messages.flush()
    except OSError:  # a broken pipe, which Windows calls an invalid argument
        os._exit(0)


def _read(stdin: BinaryIO, commands: "queue.SimpleQueue[Command]") -> None:
    try:
        while True:
            commands.put(pickle.load(stdin))  # noqa: S301 - from the process that started this one
    except EOFError:
        pass
    finally:
        # The app has ended or does not want this process any more: nobody will read what it still computes.
        os._exit(0)


def _volunteer_for_oom_kill() -> None:
    """Makes Linux end this process before the app when memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="utf-8")


def _yield_processor() -> None:
    """Lets the app go first where both want a processor, so that pages and classification stay quick."""
    if sys.platform != "win32":
        os.nice(_NICENESS)


if __name__ == "__main__":
    main()
