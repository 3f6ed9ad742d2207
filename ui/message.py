"""What a visitor is told when something goes wrong."""

import functools
import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradio as gr

from ui.language import current_language
from ui.view import status_line
from ui.words import translate


def said(handler: Callable) -> Callable:
    """The handler, a coroutine or not, with a user's mistake (ValueError) told as a message, in its one sentence."""
    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def telling(*args, **kwargs):
            with _told():
                return await handler(*args, **kwargs)

    else:

        @functools.wraps(handler)
        def telling(*args, **kwargs):
            with _told():
                return handler(*args, **kwargs)

    return telling


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise gr.Error(translate(str(error), current_language()), print_exception=False) from None


def shown(num_outputs: int) -> Callable:
    """For a generator that fills a status first: whatever ends it early is told there, to stay.

    It never raises: what resets the buttons comes after it, and Gradio runs nothing after an error.
    """

    def telling_status(handler: Callable) -> Callable:
        @functools.wraps(handler)
        def telling(*args, **kwargs):
            try:
                yield from handler(*args, **kwargs)
                return
            except ValueError as error:
                sentence = str(error)
            except Exception:
                traceback.print_exc()
                sentence = "Something in the app went wrong. The run is kept up to its last whole epoch."
            told = status_line("Not trained", "", 0, current_language(), sentence)
            yield [told, *[gr.skip()] * (num_outputs - 1)]

        return telling

    return telling_status
