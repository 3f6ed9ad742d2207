"""A page that "trains" one at a time, each for as long as it is let, behind the app's own line."""

import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import gradio as gr
from gradio.context import LocalContext

from ui import queue

for name in ("_MOST_SESSIONS", "_MOST_OF_A_SESSION", "_SECONDS_TO_LISTEN", "_SECONDS_AWAY"):
    if name in os.environ:
        setattr(queue, name, type(getattr(queue, name))(os.environ[name]))

begun, ended, go_on = [], [], threading.Event()


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
    queue = page._queue
    waiting = [event.session_hash for event in queue.event_queue_per_concurrency_id[queue.TRAINING].queue]
    return {"begun": begun, "ended": ended, "waiting": waiting, "sessions": len(queue.pending_messages_per_session)}


with gr.Blocks() as page:
    asked, told, seen = gr.Textbox(), gr.Textbox(), gr.JSON()
    trains = {"concurrency_id": queue.TRAINING, "concurrency_limit": 1}
    asked.submit(train, asked, told, api_name="api", **trains)
    asked.submit(train, asked, told, api_name="page", api_visibility="private", **trains)
    asked.submit(lambda text: text, asked, told, api_name="echo", concurrency_limit=None)
    asked.submit(leave, None, None, api_name="leave", concurrency_limit=None)
    asked.submit(go_on.set, None, None, api_name="go_on", concurrency_limit=None)
    asked.submit(state, None, seen, api_name="state", concurrency_limit=None)
page.queue()
queue.limit_queue(page, 3, status_of_absent=lambda sentence, language: sentence)
page.launch(ssr_mode=False)
