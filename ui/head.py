"""What stands first in the page, before anything of Gradio's: scripts that choose its language and let it rest."""

from pathlib import Path

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FIRST = ("i18n/language.js", "frames.js")
_SCRIPTS = "".join(f"<script>{(Path(__file__).parent / name).read_text()}</script>" for name in _FIRST).encode()


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
