"""The language of a page: `?lang=` in its address, else what was chosen before in this browser, else the browser's own.

Gradio translates static text in the browser, by navigator.language. language.js overrides it, and puts a remembered
choice into the address, where the server finds it in every event.
"""

from pathlib import Path
from typing import Any

from gradio.context import LocalContext
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.i18n.words import in_browser

_SCRIPT = f"<script>{(Path(__file__).parent / 'language.js').read_text()}</script>".encode()

# For the click of a button: the page again, in the other language, with the rest of its address. It ends what the page
# trains, and asks before it does.
SWITCH = f"""() => {{
  const ends = {in_browser("The training here ends, and Resume goes on from its last epoch. Change the language?")};
  if (document.querySelector("#stop:enabled") && !confirm(ends)) return;
  const address = new URL(location.href);
  address.searchParams.set("lang", document.documentElement.lang.startsWith("zh") ? "en" : "zh");
  location.assign(address);
}}"""


def current_language() -> str:
    """The language, "en" or "zh", of the page whose event is being handled; English outside of any.

    Not by a gr.Request among the handler's parameters: Gradio fills none in a functools.partial.
    """
    request = LocalContext.request.get(None)
    return "en" if request is None else language_of(request)


def language_of(request: Any) -> str:
    """The language, "en" or "zh", of the page that a request (Gradio's or Starlette's) comes from."""
    requested = request.query_params.get("lang", "").lower()
    # Browsers send the language they prefer first; navigator.language is the same one.
    accepted = request.headers.get("accept-language", "").lower()
    language = requested if requested.startswith(("zh", "en")) else accepted
    return "zh" if language.startswith("zh") else "en"


class _ScriptFirst:
    """Puts language.js at the head of the page: what Gradio's own `head` takes runs after the language is chosen."""

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
