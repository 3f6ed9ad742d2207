"""The line of those who wait to train: so long and no longer; nobody else waits in it, nor does it wait for anybody."""

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
from ui.parts.run_view import status_line

TRAINING = "train"  # the concurrency id of whatever trains, one at a time

_MOST_SESSIONS = 2000
_SECONDS_TO_LISTEN = 30.0  # from a request to the reading of what becomes of it; Gradio's own reader looks every ten
_SECONDS_AWAY = 600.0  # that somebody may be who has listened, as a telephone that sleeps
_MOST_OF_A_SESSION = 4  # requests to train that wait
_MOST_UNHEARD = 1000  # messages of a session that does not listen, before it may ask for more
_ABSENT = "Nobody was there for too long: others had the turn. A run that had begun is kept, and goes on with Resume."


def limit_line(page: gr.Blocks, most: float) -> None:
    """Lets up to `most` requests wait to train; whoever comes then is refused at once. To be called after page.queue.

    Gradio's own limit counts those who wait for anything: a line as long would keep everybody else from classifying,
    from opening the page, and from leaving the line by Stop. Nor does Gradio see that nobody listens to what becomes of
    a request: no turn is spent on those, and what they have begun ends.
    """
    queue = page._queue
    push, lend, send = queue.push, queue.get_events, queue.send_message
    sessions = queue.pending_messages_per_session = _Sessions(queue)

    def waiting() -> list[Event]:
        line = queue.event_queue_per_concurrency_id.get(TRAINING)
        return line.queue if line else []

    async def push_within(body: Any, request: Any, username: str | None) -> tuple:
        wanted = page.fns.get(body.fn_index)
        if wanted and wanted.concurrency_id == TRAINING:
            if sum(event.session_hash == body.session_hash for event in waiting()) >= _MOST_OF_A_SESSION:
                return False, f"{_MOST_OF_A_SESSION} of your trainings wait already; let one begin first.", "queue_full"
            if len(waiting()) >= most:
                for event in [event for event in waiting() if not sessions.is_listening(event)]:
                    _leave(queue, event, _of_the_absent(event))
            if len(waiting()) >= most:
                return False, "Too many people are waiting to train; try again in a moment.", "queue_full"
        if sessions.num_unheard(body.session_hash) > _MOST_UNHEARD:
            return False, "Read the answers to what was asked before, and ask again then.", "queue_full"
        return await push(body=body, request=request, username=username)

    def lend_to_listeners() -> tuple | None:
        while waiting() and not sessions.is_listening(waiting()[0]):
            _leave(queue, waiting()[0], _of_the_absent(waiting()[0]))
        return lend()

    def send_to_listeners(event: Event, message: EventMessage) -> None:
        if event.session_hash not in sessions:
            event.alive = False
            return
        send(event, message)
        is_going_on = event.concurrency_id == TRAINING and isinstance(message, ProcessGeneratingMessage)
        if is_going_on and not sessions.is_listening(event):
            send(event, _of_the_absent(event))
            event.alive = False

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
            _leave(queue, event, _showing(event, told(event.fn.api_name)))
    queue.broadcast_estimations(TRAINING)


def _leave(queue: Queue, event: Event, message: ProcessCompletedMessage) -> None:
    queue.event_queue_per_concurrency_id[TRAINING].queue.remove(event)
    queue.event_ids_to_events.pop(event._id, None)
    queue.send_message(event, message)


def _of_the_absent(event: Event) -> ProcessCompletedMessage:
    """The end of what nobody has listened to, for whoever comes back."""
    if event.fn.api_visibility != "private":
        return ProcessCompletedMessage(output={"error": _ABSENT}, success=False)
    return _showing(event, status_line("Interrupted", "", 0, language_of(event.request), _ABSENT))


def _showing(event: Event, told: str) -> ProcessCompletedMessage:
    """The end of a page's event: its first output shows `told`, the others stay as they are."""
    outputs = [gr.update(value=told), *[gr.skip()] * (len(event.fn.outputs) - 1)]
    return ProcessCompletedMessage(output={"data": outputs}, success=True)


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
            at_rest = [one for one in self if one not in busy]
            pending = self.queue.pending_event_ids_session
            # At last also one that has not read its answers.
            for oldest in sorted(at_rest, key=lambda one: bool(pending.get(one)))[:1]:
                del self[oldest]
                pending.pop(oldest, None)
        super().__setitem__(session, _Messages())

    def num_unheard(self, session: str | None) -> int:
        """How many messages wait for a session that does not listen."""
        messages = self.get(session)
        return 0 if messages is None or messages.num_listening else messages.qsize()

    def is_listening(self, event: Event) -> bool:
        """Whether somebody listens to what becomes of an event, or is only away for a while."""
        messages = self.get(event.session_hash)
        if messages is None or messages.num_listening:
            return messages is not None
        has_listened = messages.listened > event.enqueue_time
        silence = time.monotonic() - max(messages.listened, event.enqueue_time)
        return silence < (_SECONDS_AWAY if has_listened else _SECONDS_TO_LISTEN)
