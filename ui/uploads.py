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

from trainer.errors import UserError

# For which Gradio would fetch an address for anybody, keep a recording for ever, or make a new session's state.
_REFUSED = re.compile(r"/file[=/]https?:|/gradio_api/(process_recording|component_server)", re.IGNORECASE)
_LARGEST_REQUEST = 4 << 20  # bytes
_AROUND_A_FILE = 1 << 16  # bytes of an upload that are not the file's


def uploaded(value: Any) -> Path:
    """The file a visitor uploaded; ValueError for any other path, which a hand-made request can hold."""
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str) or not path or "\0" in path:
        raise UserError("Send a picture file.")
    real = Path(path).resolve()
    if not real.is_relative_to(Path(get_upload_folder()).resolve()) or not real.is_file():
        raise UserError("Send a picture file.")
    return real


def refuse_addresses() -> None:
    """Lets Gradio fetch no file from an address that a request names in place of one.

    It would hold all of it in memory first, whatever its size. To be called before the launch.
    """

    async def refuse(url: str, cache_dir: str) -> NoReturn:
        raise gr.Error("Send a picture file: what stands at an address is not fetched.", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse


class _LimitedRequests:
    """Reads no more of a request than a page or a client would send, and takes none that neither sends.

    Gradio holds in memory what is sent, and of an upload all that is no file. Page and client send one file at a time.
    """

    def __init__(self, app: ASGIApp, largest_file: int):
        self.app, self.largest_file = app, largest_file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if _REFUSED.search(scope["path"]):
            await PlainTextResponse("This app does nothing of the kind.", 403)(scope, receive, send)
            return
        is_upload = scope["path"].rstrip("/").endswith("/gradio_api/upload")
        left = self.largest_file + _AROUND_A_FILE if is_upload else _LARGEST_REQUEST

        async def receive_within() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, "This request is too large.")
            return message

        await self.app(scope, receive_within, send)


def middleware(largest_file: int) -> list[Middleware]:
    """For launch(app_kwargs={"middleware": …}), where files of up to `largest_file` bytes may be uploaded."""
    return [Middleware(_LimitedRequests, largest_file=largest_file)]
