"""A part of the page that a button opens and closes in the browser.

The content of a closed gr.Accordion is not on the page; that of a fold is, so that it is up to date when it opens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from ui.parts.shared import AT_ONCE

_OPEN_ON_CLICK = """() => {
  for (const button of document.querySelectorAll(".fold")) button.setAttribute("aria-expanded", "false");
  addEventListener("click", ({ target }) => {
    const button = target.closest(".fold");
    if (button) button.setAttribute("aria-expanded", button.getAttribute("aria-expanded") !== "true");
  });
}"""


@contextmanager
def fold(label: Any, elem_id: str) -> Iterator[None]:
    """Adds the button and a column for what the with block adds; `open_on_click` must be called for the page."""
    gr.Button(label, size="sm", elem_id=f"open-{elem_id}", elem_classes=["fold"])
    with gr.Column(elem_id=elem_id, elem_classes=["folded"]):
        yield


def open_on_click(page: gr.Blocks) -> None:
    """Makes the buttons of the page's folds open and close them."""
    page.load(None, None, None, js=_OPEN_ON_CLICK, api_name="_open_folds", **AT_ONCE)
