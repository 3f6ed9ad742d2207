"""The line of those who wait to train: so long and no longer; nobody else waits in it, nor does it wait for anybody."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.queueing import Event, Queue
from gradio.server_messages import EventMessage, ProcessCompletedMessage

TRAINING = "train"  # the concurrency id of whatever trains, one at a time

_MOST_SESSIONS = 2000
_SECONDS_TO_LISTEN = 30.0  # from a request to the reading of what becomes of it; Gradio's own reader looks every ten
_SECONDS_AWAY = 600.0  # that somebody may be who has listened: a telephone that sleeps, a line that is down


def limit_line(page: gr.Blocks, most: float) -> None:
    """Lets up to `most` requests wait to train; whoever comes then is refused at once. To be called after page.queue.

    Gradio's own limit counts those who wait for anything: a line as long would keep everybody else from classifying,
    from opening the page, and from leaving the line by Stop. Nor does Gradio see that nobody listens to what becomes of
    a request: no turn is spent on those, and what they have begun ends.
    """
    queue = page._queue
    push, lend, send = queue.push, queue.get_events, queue.send_message
    sessions = queue.pending_messages_per_session = _Sessions(queue)

    async def push_within(body: Any, request: Any, username: str | None) -> tuple:
        wanted, line = page.fns.get(body.fn_index), queue.event_queue_per_concurrency_id.get(TRAINING)
        if line and len(line.queue) >= most and wanted and wanted.concurrency_id == TRAINING:
            return False, "Too many people are waiting to train; try again in a moment.", "queue_full"
        return await push(body=body, request=request, username=username)

    def lend_to_listeners() -> tuple | None:
        line = queue.event_queue_per_concurrency_id.get(TRAINING)
        while line and line.queue and not sessions.is_listening(line.queue[0]):
            _leave(queue, line.queue[0], {"error": "Nobody waited for this any more."}, success=False)
        return lend()

    def send_to_listeners(event: Event, message: EventMessage) -> None:
        is_over = isinstance(message, ProcessCompletedMessage)
        if event.concurrency_id == TRAINING and not is_over and not sessions.is_listening(event):
            event.alive = False
        if event.session_hash in sessions:
            send(event, message)

    queue.push, queue.get_events, queue.send_message = push_within, lend_to_listeners, send_to_listeners


def leave_line(page: gr.Blocks, session: str, told: Callable[[str], str]) -> None:
    """Takes what a session's page waits to train out of the line, as if it were done.

    Its first output shows what `told` makes of the event's api_name, the others stay as they are. What came by the API
    is not the page's to end. To be called in the event loop.
    """
    queue = page._queue
    line = queue.event_queue_per_concurrency_id.get(TRAINING)
    if not line:
        return
    for event in list(line.queue):
        if event.session_hash == session and event.fn.api_visibility == "private":
            outputs = [gr.update(value=told(event.fn.api_name)), *[gr.skip()] * (len(event.fn.outputs) - 1)]
            _leave(queue, event, {"data": outputs}, success=True)
    queue.broadcast_estimations(TRAINING)


def _leave(queue: Queue, event: Event, output: dict, *, success: bool) -> None:
    queue.event_queue_per_concurrency_id[TRAINING].queue.remove(event)
    queue.event_ids_to_events.pop(event._id, None)
    queue.send_message(event, ProcessCompletedMessage(output=output, success=success))


class _Messages(asyncio.Queue):
    """What a session is told, and when it last listened, in seconds of `time.monotonic`."""

    def __init__(self):
        super().__init__()
        self.listened, self.num_listening = -math.inf, 0

    async def get(self) -> EventMessage:
        """The next message, once there is one."""
        self.num_listening += 1
        try:
            return await super().get()
        finally:
            self.num_listening -= 1
            self.listened = time.monotonic()


class _Sessions(OrderedDict):
    """Gradio's messages by session, of which it forgets the oldest when there are too many: here, of those at rest.

    Gradio's own also forgets one that waits or trains, and its line stops for ever where that one's turn comes.
    """

    def __init__(self, queue: Queue):
        super().__init__()
        self.queue = queue

    def __setitem__(self, session: str, messages: asyncio.Queue) -> None:
        if session not in self and len(self) >= _MOST_SESSIONS:
            lines = [line.queue for line in self.queue.event_queue_per_concurrency_id.values()]
            busy = {event.session_hash for events in (*lines, *self.queue.active_jobs) for event in events or ()}
            for oldest in [one for one in self if one not in busy][:1]:
                del self[oldest]
                self.queue.pending_event_ids_session.pop(oldest, None)
        super().__setitem__(session, _Messages())

    def is_listening(self, event: Event) -> bool:
        """Whether somebody listens to what becomes of an event, or is only away for a while."""
        messages = self.get(event.session_hash)
        if messages is None or messages.num_listening:
            return messages is not None
        has_listened = messages.listened > event.enqueue_time
        silence = time.monotonic() - max(messages.listened, event.enqueue_time)
        return silence < (_SECONDS_AWAY if has_listened else _SECONDS_TO_LISTEN)
