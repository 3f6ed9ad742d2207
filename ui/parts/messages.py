"""What a visitor is told when something goes wrong."""

import functools
import html
import inspect
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio.blocks import Block

from ui.i18n.language import current_language
from ui.i18n.words import translate
from ui.login import own_token
from ui.parts.markup import status_line

Updates = dict[Block, Any]  # what a handler returns: new values of components

_logger = logging.getLogger(__name__)


def said(handler: Callable) -> Callable:
    """The handler with a user's mistake (ValueError) told as a message, in its one sentence."""

    def mistake(sentence: str) -> gr.Error:
        language = current_language()
        words = html.escape(translate(sentence, language), quote=False)
        return gr.Error(words, title=translate("Not done", language), print_exception=False)

    return _telling(handler, mistake)


def said_plainly(handler: Callable) -> Callable:
    """What `said` does, for whoever asks by the API: in English, and not as HTML."""
    return _telling(handler, lambda sentence: gr.Error(sentence, print_exception=False))


def _telling(handler: Callable, mistake: Callable[[str], gr.Error]) -> Callable:
    @contextmanager
    def told() -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise mistake(str(error)) from None

    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def telling(*args, **kwargs):
            with told():
                return await handler(*args, **kwargs)

    elif inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def telling(*args, **kwargs):
            with told():
                yield from handler(*args, **kwargs)

    else:

        @functools.wraps(handler)
        def telling(*args, **kwargs):
            with told():
                return handler(*args, **kwargs)

    return telling


def waiting() -> str:
    """The status of whatever was asked for, while the queue shows the visitor's place in it."""
    return status_line("Waiting for its turn", "", 0, current_language())


def turned_away(title: str, sentence: str = "Too many people are waiting; try again in a moment.") -> str:
    """The status of what had no turn, because the queue was full or for another reason; `title` says what it is."""
    return status_line(title, "", 0, current_language(), sentence)


def end_in_status(handler: Callable[..., Iterator[Updates]], status: gr.HTML, *, title: str, broken: str) -> Callable:
    """The generator `handler`, which never raises: what ends it early is explained in `status`, under `title`.

    `broken` is the sentence for an error that is no user's mistake. The handlers that reset the buttons come after it,
    and Gradio runs nothing after an error.
    """

    @functools.wraps(handler)
    def explaining(*args, **kwargs):
        try:
            yield from handler(*args, **kwargs)
            return
        except ValueError as error:
            sentence = str(error)
        except Exception:
            # No library's error should hold the visitor's token; none is printed that does.
            # Not logger.exception, which would write the traceback as it is.
            _logger.error(traceback.format_exc().replace(own_token() or "\0", "…"))
            sentence = broken
        yield {status: status_line(title, "", 0, current_language(), sentence)}

    return explaining
