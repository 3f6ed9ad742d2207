"""The command line `python -m trainer COMMAND …`: dispatch and exit codes.

Exit status: 0 after success, 1 if a run could not be saved or another process ended, 2 after a user error, 130 after
Ctrl-C. Of several processes that torchrun started, only rank 0 prints and writes.
"""

import difflib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from trainer.cli.commands import (
    classify,
    export,
    hub,
    landscape,
    learning_rate,
    lessons,
    mistakes,
    sharpness,
    sweep,
    train,
)
from trainer.cli.options import Parser
from trainer.errors import UserError, for_terminal
from trainer.learning import distributed
from trainer.learning.distributed import ALONE, LostRankError, World


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line `arguments`, by default that of the process, and returns the exit status."""
    world = ALONE
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that the terminal cannot encode must not end a command
            stream.reconfigure(errors="backslashreplace")
    try:
        with distributed.join() as world, _silent_unless_first(world):
            return _run(sys.argv[1:] if arguments is None else arguments, world)
    except KeyboardInterrupt:
        if world.claim():
            print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of stdout, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except LostRankError as error:
        if world.claim():
            print(f"error: {error}", file=sys.stderr)
        return 1


@contextmanager
def _silent_unless_first(world: World) -> Iterator[None]:
    """Discards what ranks other than 0 print; an unexpected exception still ends in a traceback."""
    if world.rank == 0:
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as devnull, redirect_stdout(devnull), redirect_stderr(devnull):
        yield


def _run(arguments: list[str], world: World) -> int:
    try:
        if any(others != arguments for others in world.gather(arguments)):
            raise UserError("All processes must be started with the same command line.")
        _check_characters(arguments)
        options, unknown = _build_parser().parse_known_args(arguments)
        if unknown:
            name = unknown[0].partition("=")[0]
            close = difflib.get_close_matches(name, options.parser.flags, n=1)
            options.parser.error(f"there is no option {name}" + (f"; did you mean {close[0]}?" if close else ""))
        if options.is_distributed:
            return options.command(options, world)
        if world.size > 1:
            raise UserError("Only train and resume take several processes; start this command without torchrun.")
        return options.command(options)
    except UserError as error:
        print(f"error: {for_terminal(str(error))}", file=sys.stderr)
        return 2


def _check_characters(arguments: list[str]) -> None:
    """Raises UserError if an argument has a character that cannot be part of a file's name."""
    for argument in arguments:
        try:
            is_possible = b"\0" not in os.fsencode(argument)
        except UnicodeEncodeError:
            is_possible = False
        if not is_possible:
            raise UserError("An argument has a character that no file name can have: {text}.", text=ascii(argument))


def _build_parser() -> Parser:
    parser = Parser(prog="python -m trainer", description="Train on CIFAR-10, keep checkpoints, classify pictures.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    train.add_train(commands)
    train.add_resume(commands)
    sweep.add_sweep(commands)
    classify.add_classify(commands)
    mistakes.add_mistakes(commands)
    learning_rate.add_find_lr(commands)
    hub.add_publish(commands)
    hub.add_load(commands)
    export.add_export(commands)
    learning_rate.add_preview_lr(commands)
    landscape.add_landscape(commands)
    sharpness.add_sharpness(commands)
    lessons.add_lessons(commands)
    return parser
