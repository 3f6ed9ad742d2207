"""The training queue: limits its length, drops requests of absent pages, and lets a page leave it."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import gradio as gr
from fastapi import Request
from gradio.data_classes import PredictBodyInternal
from gradio.queueing import Event, Queue
from gradio.server_messages import EventMessage, ProcessCompletedMessage, ProcessGeneratingMessage

from ui.i18n.language import language_of

TRAINING = "train"  # the concurrency id of all handlers that train; they run one at a time

_MOST_SESSIONS = 2000
_SECONDS_TO_LISTEN = 30.0  # from a request until its session must read its messages; Gradio's client polls every 10 s
_SECONDS_AWAY = 600.0  # that a session which has read messages may be silent: a phone may be asleep
_MOST_WAITING_PER_SESSION = 4  # training requests
_MOST_UNREAD = 1000  # messages; a session with more that does not read them gets its requests refused
_ABSENT = "This page was closed or away for too long, and its turn has passed. A started run is saved; press Resume."


def limit_queue(page: gr.Blocks, most: float, *, status_of_absent: Callable[[str, str], str]) -> None:
    """Limits the queue for training to `most` requests; further ones are refused at once. Call it after page.queue.

    Gradio's own limit counts the requests waiting for any handler: a full training queue would stop other visitors from
    classifying, opening the page and leaving the queue by Stop. Gradio also does not notice that a session has stopped
    reading its messages. Here the waiting requests of such a session lose their turn, and its running ones end; its
    page then shows `status_of_absent(sentence, language)`, which is HTML.
    """
    queue = page._queue
    push, get_events, send = queue.push, queue.get_events, queue.send_message
    sessions = _Sessions(queue)
    queue.pending_messages_per_session = sessions  # type: ignore[assignment]  # Gradio wants its own LRUCache

    def waiting() -> list[Event]:
        training = queue.event_queue_per_concurrency_id.get(TRAINING)
        return training.queue if training else []

    def absent_message(event: Event) -> ProcessCompletedMessage:
        if event.fn.api_visibility != "private":
            return ProcessCompletedMessage(output={"error": _ABSENT}, success=False)
        return _end_with(event, status_of_absent(_ABSENT, language_of(event.request)))

    async def push_within(
        body: PredictBodyInternal, request: Request, username: str | None
    ) -> tuple[bool, str | list[dict[str, Any]], str]:
        handler = page.fns.get(body.fn_index) if body.fn_index is not None else None
        if handler and handler.concurrency_id == TRAINING:
            most_own = _MOST_WAITING_PER_SESSION
            if sum(event.session_hash == body.session_hash for event in waiting()) >= most_own:
                return False, f"{most_own} of your trainings are waiting already; let one start first.", "queue_full"
            if len(waiting()) >= most:
                for event in [event for event in waiting() if not sessions.is_listening(event)]:
                    _leave(queue, event, absent_message(event))
            if len(waiting()) >= most:
                return False, "Too many people are waiting to train; try again in a moment.", "queue_full"
        if sessions.num_unread(body.session_hash) > _MOST_UNREAD:
            return False, "Read the results of your earlier requests first.", "queue_full"
        return await push(body=body, request=request, username=username)

    def get_events_of_listeners() -> tuple[list[Event], bool, str] | None:
        while waiting() and not sessions.is_listening(waiting()[0]):
            _leave(queue, waiting()[0], absent_message(waiting()[0]))
        return get_events()

    def send_to_listeners(event: Event, message: EventMessage) -> None:
        if event.session_hash not in sessions:
            event.alive = False
            return
        send(event, message)
        is_running = event.concurrency_id == TRAINING and isinstance(message, ProcessGeneratingMessage)
        if is_running and not sessions.is_listening(event):
            send(event, absent_message(event))
            event.alive = False

    # Gradio's Queue has no hooks for these.
    queue.push = push_within  # type: ignore[method-assign,assignment]
    queue.get_events = get_events_of_listeners  # type: ignore[method-assign]
    queue.send_message = send_to_listeners  # type: ignore[method-assign,assignment]


def leave_queue(page: gr.Blocks, session: str, status: Callable[[str], str]) -> None:
    """Removes a page's training requests from the queue, as if they had ended.

    The first output of each then shows `status(api_name)`; the others are unchanged. Requests of the public API stay in
    the queue. Call it in the event loop.
    """
    queue = page._queue
    training = queue.event_queue_per_concurrency_id.get(TRAINING)
    if not training:
        return
    for event in list(training.queue):
        if event.session_hash == session and event.fn.api_visibility == "private":
            _leave(queue, event, _end_with(event, status(str(event.fn.api_name))))
    queue.broadcast_estimations(TRAINING)


def _leave(queue: Queue, event: Event, message: ProcessCompletedMessage) -> None:
    queue.event_queue_per_concurrency_id[TRAINING].queue.remove(event)
    queue.event_ids_to_events.pop(event._id, None)
    queue.send_message(event, message)


def _end_with(event: Event, status: str) -> ProcessCompletedMessage:
    """The message that ends a page's event: its first output shows `status`, the others are unchanged."""
    outputs = [gr.update(value=status), *(gr.skip() for _ in event.fn.outputs[1:])]
    return ProcessCompletedMessage(output={"data": outputs}, success=True)


class _Messages(asyncio.Queue[EventMessage]):
    """The messages for a session, and when it last read them, in seconds of `time.monotonic`."""

    def __init__(self) -> None:
        super().__init__()
        self.listened, self.num_listening = -math.inf, 0

    async def get(self) -> EventMessage:
        """Waits for the next message and returns it."""
        self.num_listening += 1
        try:
            return await super().get()
        finally:
            self.num_listening -= 1
            self.listened = time.monotonic()


class _Sessions(OrderedDict[str, _Messages]):
    """Messages by session. At the limit, a new session replaces the oldest one that neither waits nor runs.

    Gradio's own dict also drops sessions that wait or train; its queue then hangs when that session's turn comes.
    """

    def __init__(self, queue: Queue):
        super().__init__()
        self.queue = queue

    def __setitem__(self, session: str, messages: asyncio.Queue[EventMessage]) -> None:
        if session not in self and len(self) >= _MOST_SESSIONS:
            waiting = [queue.queue for queue in self.queue.event_queue_per_concurrency_id.values()]
            busy = {event.session_hash for events in (*waiting, *self.queue.active_jobs) for event in events or ()}
            idle = [session for session in self if session not in busy]
            pending = self.queue.pending_event_ids_session
            # Sessions with unread results go last.
            for oldest in sorted(idle, key=lambda session: bool(pending.get(session)))[:1]:
                del self[oldest]
                pending.pop(oldest, None)
        super().__setitem__(session, _Messages())

    def num_unread(self, session: str | None) -> int:
        """The number of unread messages of a session; 0 while it is reading them."""
        messages = self.get(session) if session else None
        return 0 if messages is None or messages.num_listening else messages.qsize()

    def is_listening(self, event: Event) -> bool:
        """Whether the session of an event reads its messages, or did so a short while ago."""
        messages = self.get(event.session_hash) if event.session_hash else None
        if messages is None or messages.num_listening:
            return messages is not None
        has_listened = messages.listened > event.enqueue_time
        silence = time.monotonic() - max(messages.listened, event.enqueue_time)
        return silence < (_SECONDS_AWAY if has_listened else _SECONDS_TO_LISTEN)
