"""Tells the terminal that the app is starting: on a slow disk the imports alone can take minutes."""

import sys
from contextlib import ExitStack

from trainer.progress import repeating

_SECONDS_BETWEEN_WORDS = 5.0

_saying = ExitStack()


def say_starting() -> None:
    """Prints on stderr that the app is starting, now and every five seconds until `end_starting` is called."""

    def say() -> None:
        print("Optimizer Lab is starting …", file=sys.stderr, flush=True)

    say()
    _saying.enter_context(repeating(say, _SECONDS_BETWEEN_WORDS))


def end_starting() -> None:
    """Ends the words of `say_starting`: from here on Gradio prints the address of the app."""
    _saying.close()
