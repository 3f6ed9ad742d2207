"""Messages to a visitor when something goes wrong, and the status of a request that waits."""

import functools
import html
import inspect
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, ParamSpec, TypeVar, cast

import gradio as gr
from gradio.blocks import Block

from trainer.errors import BROKEN, UserError
from ui.i18n.language import current_language
from ui.i18n.words import translate
from ui.login import own_token
from ui.parts.markup import status_line

Updates = dict[Block, Any]  # what a handler returns: new values of components

P = ParamSpec("P")
R = TypeVar("R")

_logger = logging.getLogger(__name__)

_LONGEST_LINE, _MOST_LINES = 200, 100  # of an error in the log


def with_page_errors(handler: Callable[P, R]) -> Callable[P, R]:
    """Wraps the handler of a page's event so that an error becomes a message in the page's language.

    The message is that of a UserError; any other error is logged, and the message is BROKEN.
    """

    def as_message(sentence: str) -> gr.Error:
        language = current_language()
        words = html.escape(translate(sentence, language), quote=False)
        return gr.Error(words, title=translate("That did not work", language), print_exception=False)

    return _with_errors(handler, as_message)


def with_api_errors(handler: Callable[P, R]) -> Callable[P, R]:
    """Wraps the handler of a public endpoint as `with_page_errors` does, but in English and without HTML."""
    return _with_errors(handler, lambda sentence: gr.Error(sentence, print_exception=False))


def _with_errors(handler: Callable[P, R], as_error: Callable[[str], gr.Error]) -> Callable[P, R]:
    @contextmanager
    def errors() -> Iterator[None]:
        try:
            yield
        except UserError as error:
            raise as_error(str(error)) from None
        except gr.Error:
            raise
        except Exception:
            _log_bug()
            raise as_error(BROKEN) from None

    # Gradio distinguishes plain functions, coroutines and generators, so each is wrapped as its own kind.
    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
            with errors():
                return await handler(*args, **kwargs)

        return cast("Callable[P, R]", coroutine)

    if inspect.isasyncgenfunction(handler):

        @functools.wraps(handler)
        async def stream(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Any]:
            with errors():
                async with aclosing(handler(*args, **kwargs)) as results:
                    async for result in results:
                        yield result

        return cast("Callable[P, R]", stream)

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def generator(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
            with errors():
                yield from handler(*args, **kwargs)

        return cast("Callable[P, R]", generator)

    @functools.wraps(handler)
    def function(*args: P.args, **kwargs: P.kwargs) -> R:
        with errors():
            return handler(*args, **kwargs)

    return function


def waiting() -> str:
    """The status of a request that waits in the queue, as HTML; Gradio shows the visitor's place in it."""
    return status_line("Waiting for its turn", "", 0, current_language())


def not_started(title: str, sentence: str = "Too many people are waiting; try again in a moment.") -> str:
    """The status of a request that never ran, as HTML: `title` says what did not happen, `sentence` why."""
    return status_line(title, "", 0, current_language(), sentence)


def end_in_status(
    handler: Callable[P, Iterator[Updates]], status: gr.HTML, *, title: str, broken: str
) -> Callable[P, Iterator[Updates]]:
    """Wraps the generator `handler` so that it never raises: `status` explains an error, under `title`.

    `broken` is the sentence for an error in the app itself. The handlers that reset the buttons run afterwards, and
    Gradio runs none after an error.
    """

    @functools.wraps(handler)
    def explaining(*args: P.args, **kwargs: P.kwargs) -> Iterator[Updates]:
        try:
            yield from handler(*args, **kwargs)
            return
        except UserError as error:
            sentence = str(error)
        except Exception:
            _log_bug()
            sentence = broken
        yield {status: status_line(title, "", 0, current_language(), sentence)}

    return explaining


def _log_bug() -> None:
    """Logs the error that is being handled, without the visitor's token, which a library's error may contain."""
    text = traceback.format_exc().replace(own_token() or "\0", "…")
    # Not whole: an error may quote all of a request.
    _logger.error("\n".join(line[:_LONGEST_LINE] for line in text.splitlines()[-_MOST_LINES:]))
