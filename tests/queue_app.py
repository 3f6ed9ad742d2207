"""A page with the app's own queue, whose "training" runs until the test lets it end."""

import math
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import gradio as gr
from gradio.context import LocalContext

from ui import queue

CONSTANTS = ("_MOST_SESSIONS", "_MOST_WAITING_PER_SESSION", "_SECONDS_TO_LISTEN", "_SECONDS_AWAY")
DEFAULTS = {name: getattr(queue, name) for name in CONSTANTS}
started, ended, go_on = [], [], threading.Event()


async def start_test(constants):
    """Resets the app for a new test: these constants of ui/queue.py, defaults for the others, and no other session."""
    gradio_queue, own = page._queue, LocalContext.request.get().session_hash
    for session in [session for session in gradio_queue.pending_messages_per_session if session != own]:
        del gradio_queue.pending_messages_per_session[session]
        gradio_queue.pending_event_ids_session.pop(session, None)
    set_constants({**DEFAULTS, **constants})
    started.clear()
    ended.clear()
    go_on.clear()


def set_constants(constants):
    """Sets these constants of ui/queue.py."""
    for name, value in constants.items():
        setattr(queue, name, value)


def train(name):
    """Yields until `go_on` is set; records in `started` and `ended` what the test waits for."""
    started.append(name)
    try:
        while not go_on.is_set():
            time.sleep(0.05)
            yield "training"
        yield f"{name} is trained"
    finally:
        ended.append(name)


async def leave():
    """Does what the page's Stop does."""
    queue.leave_queue(page, LocalContext.request.get().session_hash, lambda name: f"left {name}")


def state():
    """Returns what the tests wait for and check."""
    gradio_queue = page._queue
    sessions = gradio_queue.pending_messages_per_session
    waiting = [event.session_hash for event in gradio_queue.event_queue_per_concurrency_id[queue.TRAINING].queue]
    listeners = [name for name, messages in sessions.items() if messages.num_listening or messages.listened > -math.inf]
    return {
        "started": started,
        "ended": ended,
        "waiting": waiting,
        "listeners": listeners,
        "num_sessions": len(sessions),
    }


with gr.Blocks() as page:
    text, result, data = gr.Textbox(), gr.Textbox(), gr.JSON()
    trains = {"concurrency_id": queue.TRAINING, "concurrency_limit": 1}
    text.submit(train, text, result, api_name="api", **trains)
    text.submit(train, text, result, api_name="page", api_visibility="private", **trains)
    text.submit(lambda text: text, text, result, api_name="echo", concurrency_limit=None)
    text.submit(leave, None, None, api_name="leave", concurrency_limit=None)
    text.submit(start_test, data, None, api_name="start_test", concurrency_limit=None)
    text.submit(set_constants, data, None, api_name="set_constants", concurrency_limit=None)
    text.submit(go_on.set, None, None, api_name="go_on", concurrency_limit=None)
    text.submit(state, None, data, api_name="state", concurrency_limit=None)
page.queue()
queue.limit_queue(page, 3, status_of_absent=lambda sentence, language: sentence)
page.launch(ssr_mode=False)
