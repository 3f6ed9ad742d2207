"""The line of those who wait to train: so long and no longer; nobody else waits in it, nor does it wait for anybody."""

import time
from collections import OrderedDict
from typing import Any

import gradio as gr
from gradio.queueing import Event, Queue
from gradio.server_messages import EventMessage, ProcessCompletedMessage

TRAINING = "train"  # the concurrency id of whatever trains, one at a time

_MOST_SESSIONS = 2000
_MOST_UNREAD = 600  # messages, one a second of a training: who has left more is not listening
_SECONDS_TO_LISTEN = 30.0  # from a request to the reading of what becomes of it


def limit_line(page: gr.Blocks, most: float) -> None:
    """Lets up to `most` requests wait to train; whoever comes then is refused at once. To be called after page.queue.

    Gradio's own limit counts those who wait for anything: a line as long would keep everybody else from classifying,
    from opening the page, and from leaving the line by Stop. Nor does Gradio see that somebody has never listened to
    what becomes of their request: no turn is spent on those, and what they have begun ends.
    """
    queue = page._queue
    push, lend, send = queue.push, queue.get_events, queue.send_message
    sessions = queue.pending_messages_per_session = _Sessions(queue)

    def unread(event: Event) -> int:
        return sessions[event.session_hash].qsize() if event.session_hash in sessions else _MOST_UNREAD

    async def push_within(body: Any, request: Any, username: str | None) -> tuple:
        wanted, line = page.fns.get(body.fn_index), queue.event_queue_per_concurrency_id.get(TRAINING)
        if line and len(line.queue) >= most and wanted and wanted.concurrency_id == TRAINING:
            return False, "Too many people are waiting to train; try again in a moment.", "queue_full"
        return await push(body=body, request=request, username=username)

    def lend_to_listeners() -> tuple | None:
        line = queue.event_queue_per_concurrency_id.get(TRAINING)
        # One message may have been sent this very moment.
        while line and line.queue and unread(line.queue[0]) > 1 and _has_had_time(line.queue[0]):
            _leave(queue, line.queue[0])
        return lend()

    def send_to_listeners(event: Event, message: EventMessage) -> None:
        if unread(event) >= _MOST_UNREAD:
            event.alive = False
        send(event, message)

    queue.push, queue.get_events, queue.send_message = push_within, lend_to_listeners, send_to_listeners


def leave_line(page: gr.Blocks, session: str, told: str) -> None:
    """Takes what a session's page waits to train out of the line; its first output shows `told`, the others stay.

    Of the page alone: what came by the API is not the page's to end. To be called in the event loop.
    """
    queue = page._queue
    line = queue.event_queue_per_concurrency_id.get(TRAINING)
    if not line:
        return
    for event in list(line.queue):
        if event.session_hash != session or event.fn.api_visibility != "private":
            continue
        _leave(queue, event)
        outputs = [gr.update(value=told), *[gr.skip()] * (len(event.fn.outputs) - 1)]
        queue.send_message(event, ProcessCompletedMessage(output={"data": outputs}, success=True))
    queue.broadcast_estimations(TRAINING)


def _has_had_time(event: Event) -> bool:
    return time.monotonic() - event.enqueue_time > _SECONDS_TO_LISTEN


def _leave(queue: Queue, event: Event) -> None:
    queue.event_queue_per_concurrency_id[TRAINING].queue.remove(event)
    queue.event_ids_to_events.pop(event._id, None)


class _Sessions(OrderedDict):
    """Gradio's messages by session, of which it forgets the oldest when there are too many: here, of those at rest.

    Gradio's own also forgets one that waits or trains, and its line stops for ever where that one's turn comes.
    """

    def __init__(self, queue: Queue):
        super().__init__()
        self.queue = queue

    def __setitem__(self, session: str, messages: Any) -> None:
        if session not in self and len(self) >= _MOST_SESSIONS:
            lines = [line.queue for line in self.queue.event_queue_per_concurrency_id.values()]
            busy = {event.session_hash for events in (*lines, *self.queue.active_jobs) for event in events or ()}
            for oldest in [one for one in self if one not in busy][:1]:
                del self[oldest]
                self.queue.pending_event_ids_session.pop(oldest, None)
        super().__setitem__(session, messages)
