"""Messages to a visitor when something goes wrong, and the status of a request that waits."""

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


def with_page_errors(handler: Callable) -> Callable:
    """The handler of a page's event, which shows a user's mistake (ValueError) as a message in the page's language."""

    def as_message(sentence: str) -> gr.Error:
        language = current_language()
        words = html.escape(translate(sentence, language), quote=False)
        return gr.Error(words, title=translate("Not done", language), print_exception=False)

    return _with_errors(handler, as_message)


def with_api_errors(handler: Callable) -> Callable:
    """The handler of a public endpoint, which returns a user's mistake (ValueError) in English, and not as HTML."""
    return _with_errors(handler, lambda sentence: gr.Error(sentence, print_exception=False))


def _with_errors(handler: Callable, as_error: Callable[[str], gr.Error]) -> Callable:
    @contextmanager
    def errors() -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise as_error(str(error)) from None

    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def wrapped(*args, **kwargs):
            with errors():
                return await handler(*args, **kwargs)

    elif inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def wrapped(*args, **kwargs):
            with errors():
                yield from handler(*args, **kwargs)

    else:

        @functools.wraps(handler)
        def wrapped(*args, **kwargs):
            with errors():
                return handler(*args, **kwargs)

    return wrapped


def waiting() -> str:
    """The status of a request that waits in the queue, as HTML; Gradio shows the visitor's place in it."""
    return status_line("Waiting for its turn", "", 0, current_language())


def not_started(title: str, sentence: str = "Too many people are waiting; try again in a moment.") -> str:
    """The status of a request that never ran, as HTML: `title` says what did not happen, `sentence` why."""
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
