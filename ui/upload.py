"""What a visitor sends: files that they upload, nothing by its address, and no more than a page has to say."""

import re
from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils
from gradio.utils import get_upload_folder
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# For which Gradio would fetch an address for anybody.
_ADDRESS = re.compile(r"/file[=/]https?:", re.IGNORECASE)
_LARGEST_REQUEST = 4 << 20  # bytes, but for an upload, which Gradio itself limits


def uploaded(value: Any) -> Path:
    """The file a visitor uploaded; ValueError for any other path, which a hand-made request can hold."""
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError("Send a picture file.")
    real = Path(path).resolve()
    if not real.is_relative_to(Path(get_upload_folder()).resolve()) or not real.is_file():
        raise ValueError("Send a picture file.")
    return real


def refuse_addresses() -> None:
    """Lets Gradio fetch no file from an address that a request names in place of one.

    It would hold all of it in memory first, whatever its size. To be called before the launch.
    """

    async def refuse(url: str, cache_dir: str) -> NoReturn:
        raise gr.Error("Send a picture file: what stands at an address is not fetched.", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse


class _LimitedRequests:
    """Reads no more of a request than a page or a client would send, which Gradio holds in memory; opens no address."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = _LARGEST_REQUEST

        async def receive_within() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, "This request is too large.")
            return message

        is_http = scope["type"] == "http"
        if is_http and _ADDRESS.search(scope["path"]):
            await PlainTextResponse("What stands at an address is not fetched.", 403)(scope, receive, send)
            return
        is_limited = is_http and not scope["path"].endswith("/gradio_api/upload")
        await self.app(scope, receive_within if is_limited else receive, send)


# For launch(app_kwargs={"middleware": …}).
MIDDLEWARE = [Middleware(_LimitedRequests)]
