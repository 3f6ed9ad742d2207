"""Uploads, and limits on requests: no oversized bodies, no files fetched from addresses, no unused endpoints."""

import hashlib
import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, cast

import gradio as gr
from anyio import to_thread
from gradio import processing_utils
from gradio.utils import get_upload_folder
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainer.cache import check_folder, writable_folder
from trainer.errors import UserError, first_line

# Paths at which Gradio would fetch any address, keep a recording or a session's components on the disk for ever, or
# create state for a made-up session.
_REFUSED = re.compile(r"/file[=/]https?:|/gradio_api/(process_recording|component_server|deep_link)", re.IGNORECASE)
_LARGEST_REQUEST = 4 << 20  # bytes
_MOST_FILES = 1000  # in one upload, as many as the page sends at once
_LARGEST_UPLOAD = 20  # times the largest file, because a visitor may drop many photographs at once
_LONGEST_NAME = 100  # characters
_SUFFIX = re.compile(r"\.[a-z0-9]{1,9}\Z", re.ASCII | re.IGNORECASE)  # of which browsers guess a file's type
# Part of the digest in an upload's path: someone else who has the same picture cannot find out that it was uploaded.
_SALT = secrets.token_bytes(16)


def prepare_folder() -> None:
    """Has Gradio store uploads in GRADIO_TEMP_DIR or, if it is not set, in the app's own cache.

    Call it before the page is built. Raises UserError if the folder cannot be written.
    """
    folder = os.environ.get("GRADIO_TEMP_DIR")
    try:
        os.environ["GRADIO_TEMP_DIR"] = str(check_folder(Path(folder)) if folder else writable_folder("uploads"))
    except OSError as error:
        raise UserError(
            "Uploads cannot be stored in {folder}: {reason}. Set GRADIO_TEMP_DIR to another folder.",
            folder=folder or "a temporary folder",
            reason=first_line(error),
        ) from None


def uploaded(value: Any) -> Path:
    """Returns the path of an uploaded file. Raises UserError for any other path: a handcrafted request may hold one."""
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str) or not path or "\0" in path:
        raise UserError("Send a picture file.")
    real = Path(path).resolve()
    if not real.is_relative_to(Path(get_upload_folder()).resolve()) or not real.is_file():
        raise UserError("Send a picture file.")
    return real


def name_of(value: Any) -> str:
    """Returns the name of an uploaded file as the visitor knows it."""
    name = value.get("orig_name") or value.get("path") if isinstance(value, dict) else value
    return Path(str(name)).name[:_LONGEST_NAME]


def refuse_addresses() -> None:
    """Stops Gradio from downloading a file whose address a request gives instead of an upload. Call it before launch.

    Gradio would read all of it into memory first, whatever its size.
    """

    async def refuse(url: str, cache_dir: str) -> NoReturn:
        raise gr.Error("Upload the picture as a file; addresses are not fetched.", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse


class _LimitedRequests:
    """Refuses requests larger than those of the page and the Python client, and paths that neither uses.

    Gradio reads a request into memory.
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
        left = _LARGEST_UPLOAD * self.largest_file if _is_upload(scope) else _LARGEST_REQUEST

        async def receive_within() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, "This request is too large.")
            return message

        await self.app(scope, receive_within, send)


class _Uploads:
    """Receives uploads in place of Gradio, which leaves the parts of an upload on the disk that fails or is aborted.

    Until an upload is complete, its parts are in memory or in temporary files without a name, which even a crash
    removes.
    """

    def __init__(self, app: ASGIApp, largest_file: int):
        self.app, self.largest_file = app, largest_file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not _is_upload(scope):
            await self.app(scope, receive, send)
            return
        with suppress(ClientDisconnect):
            response = await _receive_files(Request(scope, receive), self.largest_file)
            await response(scope, receive, send)


async def _receive_files(request: Request, largest_file: int) -> Response:
    """Stores the files of an upload, each of at most `largest_file` bytes; returns their paths, as Gradio does."""
    if is_from_another_site(request.headers):
        return PlainTextResponse("Another site may not upload files to this app.", 403)
    try:
        async with request.form(max_files=_MOST_FILES, max_fields=_MOST_FILES) as form:
            files = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
            if any((file.size or 0) > largest_file for file in files):
                raise HTTPException(413, "This file is too large.")
            return JSONResponse([str(await to_thread.run_sync(_store, file)) for file in files])
    except HTTPException as error:
        return PlainTextResponse(error.detail, error.status_code)
    except OSError:
        return PlainTextResponse("The file cannot be stored: the app's disk is full or cannot be written.", 507)


def is_from_another_site(headers: Headers) -> bool:
    """Whether a page of another site sent a request: a browser needs no permission to send a form to any address.

    A page in the frame of another site, as that of a Space, requests its own site. Clients other than browsers send
    none of these headers.
    """
    if (site := headers.get("sec-fetch-site")) is not None:
        return site not in ("same-origin", "none")
    # Old browsers, and all of them at an http address other than localhost.
    own = {headers.get("host"), *headers.get("x-forwarded-host", "").replace(" ", "").split(",")}
    return "origin" in headers and headers["origin"].rpartition("://")[2] not in own


def _store(file: UploadFile) -> Path:
    """Copies a file into Gradio's folder of uploads, in a folder named after its content; returns its path."""
    content = cast("Any", file.file)  # its type lacks `readinto`
    digest = hashlib.file_digest(content, lambda: hashlib.sha256(_SALT)).hexdigest()
    folder = Path(get_upload_folder(), digest)
    suffix = _SUFFIX.search(file.filename or "")
    path = folder / f"upload{suffix[0] if suffix else ''}"
    if path.exists():
        path.touch()  # old files are deleted
        return path
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{secrets.token_hex(8)}"
    try:
        content.seek(0)
        with unfinished.open("wb") as copy:
            shutil.copyfileobj(content, copy)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        with suppress(OSError):  # it has other files
            folder.rmdir()
        raise
    return path


def _is_upload(scope: Scope) -> bool:
    return scope["path"].rstrip("/").endswith("/gradio_api/upload")


def middleware(largest_file: int) -> list[Middleware]:
    """The middleware for launch(app_kwargs={"middleware": …}) that allows files of up to `largest_file` bytes."""
    return [Middleware(each, largest_file=largest_file) for each in (_LimitedRequests, _Uploads)]
