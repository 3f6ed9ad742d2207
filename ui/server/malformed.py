"""Requests that neither the page nor the Python client sends: each gets a sentence and affects no other visitor."""

import html
import json
import logging
import re
import traceback
from typing import Any

import gradio as gr
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.i18n.language import language_of
from ui.i18n.words import translate
from ui.server.streams import WholeValues

_logger = logging.getLogger(__name__)

_UNREADABLE = "The app could not read this request; reload the page and try again."
_LONGEST = 200  # characters of an error in the log, and in an answer
_OUT_OF_RANGE = re.compile(r"Value (?P<number>\S+) is \w+ than (?P<end>minimum|maximum) value (?P<limit>\S+)\.")
_SURROGATE = re.compile(rb"\\u[dD][89abAB]|\\u[dD][c-fC-F]")


class Page(WholeValues):
    """A page whose events end with a sentence, also when Gradio cannot read their inputs.

    Gradio would answer with no words, and write the error to the log with the whole value.
    """

    async def process_api(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Returns the results of an event. Raises gr.Error, with a sentence, if it fails."""
        try:
            return await super().process_api(*args, **options)
        except gr.Error as error:
            if error.print_exception:  # it is Gradio's own
                error.print_exception = False
                _logger.warning("An event was refused: %s", _shortened(error.message))
                error.message = html.escape(_in_words(error.message, _language(options)), quote=False)
            raise
        except Exception as error:
            _logger.warning("An event failed: %s", brief(error))
            language = _language(options)
            title = translate("That did not work", language)
            raise gr.Error(translate(_UNREADABLE, language), title=title, print_exception=False) from None


class _Answered:
    """Answers with a sentence where Gradio fails, as for an event that does not exist, or ends the stream it has begun.

    It would answer with status 500 and write a traceback to the log.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def send_on(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_on)
        except Exception as error:
            if scope["type"] != "http":
                raise
            _logger.warning("A request failed: %s", brief(error))
            if has_begun:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            detail = translate(_UNREADABLE, language_of(Request(scope)))
            await JSONResponse({"detail": detail}, 400)(scope, receive, send)


class _ValidText:
    """Refuses JSON with half a character (a lone surrogate), which no answer could quote: it would end the stream."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body, has_more = b"", True
        while has_more:
            try:
                message = await receive()
            except HTTPException as error:  # it is too large
                await JSONResponse({"detail": error.detail}, error.status_code)(scope, receive, send)
                return
            if message["type"] == "http.disconnect":
                return
            body, has_more = body + message.get("body", b""), message.get("more_body", False)
        if _SURROGATE.search(body) and not _is_valid(body):
            await JSONResponse({"detail": "This request contains text that is not Unicode."}, 400)(scope, receive, send)
            return
        is_read = False

        async def receive_again() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, receive_again, send)


def brief(error: BaseException) -> str:
    """Returns an error's type, its place and the start of its message, for the log: the message may quote a request."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {_shortened(str(error))}{place}"


def _language(options: dict[str, Any]) -> str:
    request = options.get("request")
    if isinstance(request, list):  # of a call that says it is one of a batch
        request = request[0]
    return "en" if request is None else language_of(request)


def _in_words(message: str, language: str) -> str:
    """Returns Gradio's own sentence, in the words of the page if a number was out of range."""
    found = _OUT_OF_RANGE.fullmatch(message)
    if found is None:
        return _shortened(message)
    sentence = "{number} is too large here: choose at most {limit}."
    if found["end"] == "minimum":
        sentence = "{number} is too small here: choose at least {limit}."
    return translate(sentence, language, number=_shortened(found["number"]), limit=found["limit"])


def _shortened(text: str) -> str:
    # The reason is often at the end, after the value.
    whole = text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    return " ".join(whole.split())


def _is_valid(body: bytes) -> bool:
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    except (ValueError, RecursionError):
        pass  # Gradio refuses it
    return True


# For launch(app_kwargs={"middleware": …}), after the limits on requests.
MIDDLEWARE = [Middleware(_Answered), Middleware(_ValidText)]
