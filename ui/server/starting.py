"""The start of the app: what is checked first, and words for the terminal: on a slow disk imports can take minutes."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NoReturn

from trainer.environment import OF_THE_HUB
from trainer.errors import for_terminal
from trainer.progress import repeating

NUMBERS = {
    "GRADIO_SERVER_PORT": 65535,
    "GRADIO_NUM_PORTS": 65535,
    "GRADIO_NODE_NUM_PORTS": 65535,
    "GRADIO_NUM_WORKERS": 1000,
    "GRADIO_DEBUG": 1,
    "GRADIO_ANALYTICS_MAX_EVENTS": 10**9,
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": 10**9,
    "WEB_CONCURRENCY": 1000,
    **OF_THE_HUB,
}
"""The variables that the app's libraries read as whole numbers, each with the largest value that makes sense."""

_SECONDS_BETWEEN_WORDS = 4.0

_saying = ExitStack()


def refuse(reason: object) -> NoReturn:
    """Ends the app before it has started, with the reason as one line on stderr and the status of a user's error."""
    print(f"error: {for_terminal(str(reason))}", file=sys.stderr)
    sys.exit(2)


def check_arguments(arguments: Sequence[str]) -> None:
    """Ends the app if it was given arguments on its command line, which it would otherwise ignore."""
    if arguments:
        refuse(
            "app.py takes no arguments: set environment variables, such as OPTIMIZER_LAB_DATA. README.md lists them."
        )


def say_starting() -> None:
    """Prints on stderr that the app is starting, now and every few seconds until `end_starting` is called."""

    def say() -> None:
        print("Optimizer Lab is starting …", file=sys.stderr, flush=True)

    say()
    _saying.enter_context(repeating(say, _SECONDS_BETWEEN_WORDS))


def end_starting() -> None:
    """Ends the words of `say_starting`: from here on Gradio prints the address of the app."""
    _saying.close()
