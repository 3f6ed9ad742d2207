"""The webcam that takes pictures of a class for as long as its button is held, and pictures that are pasted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.events import Dependency

from ui.i18n.words import in_browser, script_with
from ui.parts.shared import AT_ONCE, Inputs

_ID = "class-webcam"
_HTML = """<div class="webcam">
  <video muted playsinline hidden></video>
  <div class="does"><button class="turn"></button><button class="hold" hidden></button></div>
  <div class="note" role="status"></div>
</div>"""
_ANSWERED = f"() => document.querySelector('#{_ID} .webcam')?.dispatchEvent(new Event('answered'))"


def build() -> gr.HTML:
    """Adds the webcam to the page being built."""
    return gr.HTML("", html_template=_HTML, js_on_load=_script(), elem_id=_ID)


def on_upload(
    webcam: gr.HTML, handler: Callable[..., Any], *, inputs: Inputs, outputs: list[Block], api_name: str
) -> Dependency:
    """Calls `handler` once pictures have been uploaded: its event's data has their paths as `files`."""
    # Gradio makes an event of each name that the script triggers.
    event: Dependency = webcam.uploaded(
        handler, inputs_kwargs=dict(inputs), outputs=outputs, api_name=api_name, **AT_ONCE
    )
    event.then(None, None, None, js=_ANSWERED, **AT_ONCE)
    return event


def _script() -> str:
    """Returns the script of the webcam, with its words in the language of the page."""
    words = {
        "TURN_ON": in_browser("Webcam"),
        "TURN_OFF": in_browser("Turn off"),
        "HOLD": in_browser("Hold to record"),
        "NO_NAME": in_browser("Name the class first."),
        "NO_WEBCAM": in_browser("The browser gives no access to a webcam."),
    }
    return script_with(words, Path(__file__).parent / "webcam.js")
