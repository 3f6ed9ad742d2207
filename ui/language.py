"""The language of a page: `?lang=` in its address, else what was chosen before in this browser, else the browser's own.

Gradio translates static text in the browser, by navigator.language. A script that stands first in the page overrides
it and puts a remembered choice into the address, where the server finds it in every event.
"""

from pathlib import Path

from gradio.context import LocalContext
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FIRST = ("language.js", "frames.js")
_SCRIPTS = "".join(f"<script>{(Path(__file__).parent / name).read_text()}</script>" for name in _FIRST).encode()

# For the click of a button: the page again, in the other language, with the rest of its address.
SWITCH = """() => {
  const address = new URL(location.href);
  address.searchParams.set("lang", document.documentElement.lang.startsWith("zh") ? "en" : "zh");
  location.assign(address);
}"""


def current_language() -> str:
    """The language, "en" or "zh", of the page whose event is being handled; English outside of any.

    Not by a gr.Request among the handler's parameters: Gradio fills none in a functools.partial.
    """
    request = LocalContext.request.get(None)
    if request is None:
        return "en"
    asked = request.query_params.get("lang", "").lower()
    # Browsers send the language they prefer first; navigator.language is the same one.
    accepted = request.headers.get("accept-language", "").lower()
    language = asked if asked.startswith(("zh", "en")) else accepted
    return "zh" if language.startswith("zh") else "en"


class _ScriptsFirst:
    """Puts the scripts at the head of the page: what Gradio's own `head` takes runs after the language is chosen."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        start: Message = {}
        page = b""

        async def send_with_scripts(message: Message) -> None:
            nonlocal start, page
            if message["type"] == "http.response.start":
                start = message
                return
            page += message.get("body", b"")
            if message.get("more_body"):
                return
            whole = page.replace(b"<head>", b"<head>" + _SCRIPTS, 1)
            headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
            await send({**start, "headers": [*headers, (b"content-length", str(len(whole)).encode())]})
            await send({"type": "http.response.body", "body": whole})

        await self.app(scope, receive, send_with_scripts)


# For launch(app_kwargs={"middleware": MIDDLEWARE}).
MIDDLEWARE = [Middleware(_ScriptsFirst)]
