"""Limits on requests: no files fetched from addresses, no oversized bodies, no endpoints that the page does not use."""

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

from trainer.errors import UserError

# Paths at which Gradio would fetch any address, keep a recording for ever, or create state for a made-up session.
_REFUSED = re.compile(r"/file[=/]https?:|/gradio_api/(process_recording|component_server)", re.IGNORECASE)
_LARGEST_REQUEST = 4 << 20  # bytes
_UPLOAD_OVERHEAD = 1 << 16  # bytes of an upload besides the file


def uploaded(value: Any) -> Path:
    """Returns the path of an uploaded file. Raises UserError for any other path: a handcrafted request may hold one."""
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str) or not path or "\0" in path:
        raise UserError("Send a picture file.")
    real = Path(path).resolve()
    if not real.is_relative_to(Path(get_upload_folder()).resolve()) or not real.is_file():
        raise UserError("Send a picture file.")
    return real


def refuse_addresses() -> None:
    """Stops Gradio from downloading a file whose address a request gives instead of an upload. Call it before launch.

    Gradio would read all of it into memory first, whatever its size.
    """

    async def refuse(url: str, cache_dir: str) -> NoReturn:
        raise gr.Error("Upload the picture as a file; addresses are not fetched.", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse


class _LimitedRequests:
    """Refuses requests larger than those of the page and the Python client, and paths that neither uses.

    Gradio reads a request into memory: all of it, or of an upload all but the file. Page and client send one file per
    request.
    """

    def __init__(self, app: ASGIApp, largest_file: int):
        self.app, self.largest_file = app, largest_file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if _REFUSED.search(scope["path"]):
            await PlainTextResponse("This app does not offer this.", 403)(scope, receive, send)
            return
        is_upload = scope["path"].rstrip("/").endswith("/gradio_api/upload")
        left = self.largest_file + _UPLOAD_OVERHEAD if is_upload else _LARGEST_REQUEST

        async def receive_within() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, "This request is too large.")
            return message

        await self.app(scope, receive_within, send)


def middleware(largest_file: int) -> list[Middleware]:
    """The middleware for launch(app_kwargs={"middleware": …}) that allows uploads of up to `largest_file` bytes."""
    return [Middleware(_LimitedRequests, largest_file=largest_file)]
