"""What a visitor sends: a file that they uploaded, and nothing by its address."""

from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils
from gradio.utils import get_upload_folder


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
