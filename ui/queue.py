"""The queue for training: its length, who may wait in it, and how a waiting request leaves it."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.queueing import Event, Queue
from gradio.server_messages import EventMessage, ProcessCompletedMessage, ProcessGeneratingMessage

from ui.i18n.language import language_of

TRAINING = "train"  # the concurrency id of all handlers that train, one at a time

_MOST_SESSIONS = 2000
_SECONDS_TO_LISTEN = 30.0  # from a request to the first reading of its messages; Gradio's own reader polls every ten
_SECONDS_AWAY = 600.0  # for which a session that has listened may be silent, such as a phone asleep
_MOST_OF_A_SESSION = 4  # requests to train that wait
_MOST_UNREAD = 1000  # messages of a session that does not listen; above that, its requests are refused
_ABSENT = "Nobody was there for too long: others had the turn. A run that had begun is kept, and goes on with Resume."


def limit_queue(page: gr.Blocks, most: float, *, status_of_absent: Callable[[str, str], str]) -> None:
    """Lets up to `most` requests wait to train, and refuses further ones at once. Call it after page.queue.

    Gradio's own limit counts the requests that wait for any handler: a queue that long would keep everybody else from
    classifying, from opening the page, and from leaving the queue by Stop. Nor does Gradio notice that a session no
    longer reads its messages: here its waiting requests lose their turn, and its running ones end. A page then shows
    `status_of_absent(sentence, language)`, as HTML.
    """
    queue = page._queue
    push, get_events, send = queue.push, queue.get_events, queue.send_message
    sessions = queue.pending_messages_per_session = _Sessions(queue)

    def waiting() -> list[Event]:
        training = queue.event_queue_per_concurrency_id.get(TRAINING)
        return training.queue if training else []

    def end_of_absent(event: Event) -> ProcessCompletedMessage:
        if event.fn.api_visibility != "private":
            return ProcessCompletedMessage(output={"error": _ABSENT}, success=False)
        return _end_with(event, status_of_absent(_ABSENT, language_of(event.request)))

    async def push_within(body: Any, request: Any, username: str | None) -> tuple:
        handler = page.fns.get(body.fn_index)
        if handler and handler.concurrency_id == TRAINING:
            if sum(event.session_hash == body.session_hash for event in waiting()) >= _MOST_OF_A_SESSION:
                return False, f"{_MOST_OF_A_SESSION} of your trainings wait already; let one begin first.", "queue_full"
            if len(waiting()) >= most:
                for event in [event for event in waiting() if not sessions.is_listening(event)]:
                    _leave(queue, event, end_of_absent(event))
            if len(waiting()) >= most:
                return False, "Too many people are waiting to train; try again in a moment.", "queue_full"
        if sessions.num_unread(body.session_hash) > _MOST_UNREAD:
            return False, "Read the answers to what was asked before, and ask again then.", "queue_full"
        return await push(body=body, request=request, username=username)

    def get_events_of_listeners() -> tuple | None:
        while waiting() and not sessions.is_listening(waiting()[0]):
            _leave(queue, waiting()[0], end_of_absent(waiting()[0]))
        return get_events()

    def send_to_listeners(event: Event, message: EventMessage) -> None:
        if event.session_hash not in sessions:
            event.alive = False
            return
        send(event, message)
        is_running = event.concurrency_id == TRAINING and isinstance(message, ProcessGeneratingMessage)
        if is_running and not sessions.is_listening(event):
            send(event, end_of_absent(event))
            event.alive = False

    queue.push, queue.get_events, queue.send_message = push_within, get_events_of_listeners, send_to_listeners


def leave_queue(page: gr.Blocks, session: str, status: Callable[[str], str]) -> None:
    """Removes the requests to train of a session's page from the queue, as if they had ended.

    The first output of each shows `status(api_name)`, the others stay as they are. Requests by the API stay. Call it in
    the event loop.
    """
    queue = page._queue
    training = queue.event_queue_per_concurrency_id.get(TRAINING)
    if not training:
        return
    for event in list(training.queue):
        if event.session_hash == session and event.fn.api_visibility == "private":
            _leave(queue, event, _end_with(event, status(event.fn.api_name)))
    queue.broadcast_estimations(TRAINING)


def _leave(queue: Queue, event: Event, message: ProcessCompletedMessage) -> None:
    queue.event_queue_per_concurrency_id[TRAINING].queue.remove(event)
    queue.event_ids_to_events.pop(event._id, None)
    queue.send_message(event, message)


def _end_with(event: Event, status: str) -> ProcessCompletedMessage:
    """The end of a page's event: its first output shows `status`, the others stay as they are."""
    outputs = [gr.update(value=status), *(gr.skip() for _ in event.fn.outputs[1:])]
    return ProcessCompletedMessage(output={"data": outputs}, success=True)


class _Messages(asyncio.Queue):
    """The messages for a session, and when it last listened, in seconds of `time.monotonic`."""

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
    """Gradio's messages by session. When there are too many, it forgets the oldest session that has nothing running.

    Gradio's own also forgets sessions that wait or train; its queue then stops for ever when that session's turn comes.
    """

    def __init__(self, queue: Queue):
        super().__init__()
        self.queue = queue

    def __setitem__(self, session: str, messages: asyncio.Queue) -> None:
        if session not in self and len(self) >= _MOST_SESSIONS:
            waiting = [queue.queue for queue in self.queue.event_queue_per_concurrency_id.values()]
            busy = {event.session_hash for events in (*waiting, *self.queue.active_jobs) for event in events or ()}
            idle = [session for session in self if session not in busy]
            pending = self.queue.pending_event_ids_session
            # A session that has not read its answers goes last.
            for oldest in sorted(idle, key=lambda session: bool(pending.get(session)))[:1]:
                del self[oldest]
                pending.pop(oldest, None)
        super().__setitem__(session, _Messages())

    def num_unread(self, session: str | None) -> int:
        """The number of messages that wait for a session that does not listen."""
        messages = self.get(session)
        return 0 if messages is None or messages.num_listening else messages.qsize()

    def is_listening(self, event: Event) -> bool:
        """Whether the session of an event reads its messages, or has stopped only a short while ago."""
        messages = self.get(event.session_hash)
        if messages is None or messages.num_listening:
            return messages is not None
        has_listened = messages.listened > event.enqueue_time
        silence = time.monotonic() - max(messages.listened, event.enqueue_time)
        return silence < (_SECONDS_AWAY if has_listened else _SECONDS_TO_LISTEN)
