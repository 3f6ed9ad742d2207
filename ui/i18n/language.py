"""The language of a page: `?lang=` in its address, else the last choice in this browser, else the browser's own.

Gradio translates static text in the browser, by navigator.language. language.js overrides that, and writes the last
choice into the address, from which the server reads it in every event.
"""

from pathlib import Path
from typing import Any

from gradio.context import LocalContext
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SCRIPT = b"<script>" + (Path(__file__).parent / "language.js").read_bytes() + b"</script>"

# For the click of a button: loads the page in the other language, with the rest of its address.
SWITCH = """() => {
  const address = new URL(location.href);
  address.searchParams.set("lang", document.documentElement.lang.startsWith("zh") ? "en" : "zh");
  location.assign(address);
}"""


def current_language() -> str:
    """The language, "en" or "zh", of the page whose event is being handled; "en" outside of an event.

    It does not use a gr.Request parameter, because Gradio does not fill the parameters of a functools.partial.
    """
    request = LocalContext.request.get(None)
    return "en" if request is None else language_of(request)


def language_of(request: Any) -> str:
    """The language, "en" or "zh", of the page that a request (Gradio's or Starlette's) comes from."""
    requested = request.query_params.get("lang", "").lower()
    # Browsers send the preferred language first; it is the same as navigator.language.
    accepted = request.headers.get("accept-language", "").lower()
    language = requested if requested.startswith(("zh", "en")) else accepted
    return "zh" if language.startswith("zh") else "en"


class _ScriptFirst:
    """Inserts language.js at the start of <head>: scripts in Gradio's `head` option run too late for it."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        start: Message = {}
        page = b""

        async def send_with_script(message: Message) -> None:
            nonlocal start, page
            if message["type"] == "http.response.start":
                start = message
                return
            page += message.get("body", b"")
            if message.get("more_body"):
                return
            whole = page.replace(b"<head>", b"<head>" + _SCRIPT, 1)
            headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
            await send({**start, "headers": [*headers, (b"content-length", str(len(whole)).encode())]})
            await send({"type": "http.response.body", "body": whole})

        await self.app(scope, receive, send_with_script)


# For launch(app_kwargs={"middleware": MIDDLEWARE}).
MIDDLEWARE = [Middleware(_ScriptFirst)]
