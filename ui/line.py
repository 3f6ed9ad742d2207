"""The line of those who wait to train: so long and no longer; nobody else waits in it."""

from typing import Any

import gradio as gr

TRAINING = "train"  # the concurrency id of whatever trains, one at a time


def limit_line(page: gr.Blocks, most: float) -> None:
    """Lets up to `most` requests wait to train; whoever comes then is refused at once. To be called after page.queue.

    Gradio's own limit counts those who wait for anything: a line as long would keep everybody else from classifying,
    from opening the page, and from leaving the line by Stop.
    """
    queue = page._queue
    push = queue.push

    async def push_within(body: Any, request: Any, username: str | None) -> tuple:
        wanted, line = page.fns.get(body.fn_index), queue.event_queue_per_concurrency_id.get(TRAINING)
        if line and len(line.queue) >= most and wanted and wanted.concurrency_id == TRAINING:
            return False, "Too many people are waiting to train; try again in a moment.", "queue_full"
        return await push(body=body, request=request, username=username)

    queue.push = push_within
