"""A page that "trains" one at a time, each for as long as it is let, behind the app's own line."""

import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import gradio as gr
from gradio.context import LocalContext

from ui import queue

CONSTANTS = ("_MOST_SESSIONS", "_MOST_OF_A_SESSION", "_SECONDS_TO_LISTEN", "_SECONDS_AWAY")
USUAL = {name: getattr(queue, name) for name in CONSTANTS}
begun, ended, go_on = [], [], threading.Event()


async def start_test(constants):
    """Sets these constants of ui/queue.py, the others as usual, and forgets all that other sessions have done."""
    gradio_queue, own = page._queue, LocalContext.request.get().session_hash
    for session in [session for session in gradio_queue.pending_messages_per_session if session != own]:
        del gradio_queue.pending_messages_per_session[session]
        gradio_queue.pending_event_ids_session.pop(session, None)
    for name, value in {**USUAL, **constants}.items():
        setattr(queue, name, value)
    begun.clear()
    ended.clear()
    go_on.clear()


def train(name):
    """Begins and ends where the test can see it."""
    begun.append(name)
    try:
        while not go_on.is_set():
            time.sleep(0.05)
            yield "training"
        yield f"{name} is trained"
    finally:
        ended.append(name)


async def leave():
    """What Stop does."""
    queue.leave_queue(page, LocalContext.request.get().session_hash, lambda name: f"left {name}")


def state():
    """What the test looks at."""
    gradio_queue = page._queue
    waiting = [event.session_hash for event in gradio_queue.event_queue_per_concurrency_id[queue.TRAINING].queue]
    num_sessions = len(gradio_queue.pending_messages_per_session)
    return {"begun": begun, "ended": ended, "waiting": waiting, "sessions": num_sessions}


with gr.Blocks() as page:
    asked, told, seen = gr.Textbox(), gr.Textbox(), gr.JSON()
    trains = {"concurrency_id": queue.TRAINING, "concurrency_limit": 1}
    asked.submit(train, asked, told, api_name="api", **trains)
    asked.submit(train, asked, told, api_name="page", api_visibility="private", **trains)
    asked.submit(lambda text: text, asked, told, api_name="echo", concurrency_limit=None)
    asked.submit(leave, None, None, api_name="leave", concurrency_limit=None)
    asked.submit(start_test, seen, None, api_name="start_test", concurrency_limit=None)
    asked.submit(go_on.set, None, None, api_name="go_on", concurrency_limit=None)
    asked.submit(state, None, seen, api_name="state", concurrency_limit=None)
page.queue()
queue.limit_queue(page, 3, status_of_absent=lambda sentence, language: sentence)
page.launch(ssr_mode=False)
