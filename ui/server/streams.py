"""Streams whose earlier updates stay as they are when later ones follow."""

from typing import Any

import gradio as gr


class WholeValues(gr.Blocks):
    """A page to which an event sends each changed value as a whole.

    Gradio sends how a value differs from the one before, and the browser applies that to the value itself, also while
    the earlier update still waits in a busy page. The earlier update then shows the later value or, if the later
    update skips the component, nothing at all.
    """

    def handle_streaming_diffs(
        self,
        block_fn: Any,
        data: list[Any],
        session_hash: str | None,
        run: str | None,
        final: bool,
        simple_format: bool = False,
    ) -> list[Any]:
        """Returns what to send for the values `data` of a step of an event: the first are sent as they are."""
        values = list(data)
        edits = super().handle_streaming_diffs(block_fn, data, session_hash, run, final, simple_format)
        if final or all(edit is value for edit, value in zip(edits, values, strict=True)):
            return edits
        return [_whole(each, value) for each, value in zip(edits, values, strict=True)]


def _whole(edits: list[tuple[str, list[Any], Any]], value: Any) -> list[Any]:
    """Returns edits that replace a value instead of changing parts of it."""
    return [["replace", [], value]] if any(path for _, path, _ in edits) else edits
