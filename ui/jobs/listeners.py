"""Whether the client of an event still reads its results: the only place that looks into Gradio's queue.

Gradio ends an event whose client has gone only when the event yields, and an event that waits for a change does not.
"""

from collections.abc import Callable

from gradio.context import LocalContext

# Messages. A page that is asleep is sent no more, and is up to date again when it wakes up.
MOST_UNREAD_BY_PAGE, MOST_UNREAD_BY_CLIENT = 20, 5000


def listener(most_unread: int) -> Callable[[], bool]:
    """Returns a function that says whether the client of the event being handled still reads its results.

    It does not if it has gone, or if its session has more than `most_unread` messages to read.
    """
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    event = blocks._queue.event_ids_to_events.get(event_id) if blocks and event_id else None
    if blocks is None or event is None:  # called outside of the queue
        return lambda: True
    sessions = blocks._queue.pending_messages_per_session

    def is_listening() -> bool:
        messages = sessions.get(event.session_hash)
        return event.alive and messages is not None and messages.qsize() <= most_unread

    return is_listening
