"""The page's HTML and configuration, which are the same for all visitors at an address: made and compressed once."""

import asyncio
import gzip
from collections import OrderedDict
from typing import NamedTuple

from anyio import to_thread
from starlette.datastructures import Headers, QueryParams
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PATHS = ("/", "/config")  # the second is what a Python client reads first
_MOST_ANSWERS = 16  # a visitor may make up an address
# What an answer depends on: Gradio writes its own address into it.
_HEADERS = ("host", "x-forwarded-host", "x-forwarded-proto", "x-gradio-server")
_PARAMETERS = ("page", "deep_link", "all_endpoints")


class _Answer(NamedTuple):
    """A body, plain and compressed by gzip, and its content type."""

    plain: bytes
    zipped: bytes
    media_type: str


class _RenderedOnce:
    """Sends what was sent at the first visit."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self.answers: OrderedDict[tuple[str, ...], _Answer] = OrderedDict()
        self.rendering = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_kept = scope["type"] == "http" and scope["method"] == "GET" and scope["path"] in _PATHS
        if not is_kept or QueryParams(scope["query_string"]).keys() & set(_PARAMETERS):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        key = (
            scope["path"],
            scope["scheme"],
            scope.get("root_path", ""),
            *(headers.get(name, "") for name in _HEADERS),
        )
        async with self.rendering:
            if key not in self.answers:
                messages = await self._render(scope, receive)
                if messages[0]["status"] != 200:
                    for message in messages:
                        await send(message)
                    return
                plain = b"".join(message.get("body", b"") for message in messages)
                media_type = Headers(raw=messages[0]["headers"])["content-type"]
                zipped = await to_thread.run_sync(gzip.compress, plain, 6)
                self.answers[key] = _Answer(plain, zipped, media_type)
                while len(self.answers) > _MOST_ANSWERS:
                    self.answers.popitem(last=False)
            answer = self.answers[key]
            self.answers.move_to_end(key)
        is_zipped = "gzip" in headers.get("accept-encoding", "")
        response = Response(answer.zipped if is_zipped else answer.plain, media_type=answer.media_type)
        response.headers["vary"] = "Accept-Encoding"
        if is_zipped:
            response.headers["content-encoding"] = "gzip"
        await response(scope, receive, send)

    async def _render(self, scope: Scope, receive: Receive) -> list[Message]:
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        await self.app(scope, receive, collect)
        return messages


# For launch(app_kwargs={"middleware": …}), before all others.
MIDDLEWARE = [Middleware(_RenderedOnce)]
