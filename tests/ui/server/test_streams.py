"""The steps of an event reach a busy browser whole."""

import anyio
import gradio as gr
import pytest
from gradio.state_holder import SessionState
from labs import in_event_loop

from ui.server.streams import WholeValues

STEPS = [{"frames": [1, 2], "more": True}, {"frames": [1, 2], "more": False}, gr.skip(), "text", "text and more"]


def steps():
    yield from STEPS


def build(blocks):
    with blocks() as page:
        button, output = gr.Button(), gr.HTML()
        button.click(steps, None, output)
    return page


async def call(page):
    """Returns what the page sends for each step, and at the end."""
    (event,), state, answers = page.fns.values(), SessionState(page), []
    while not answers or answers[-1]["is_generating"]:
        iterator = answers[-1]["iterator"] if answers else None
        options = {"state": state, "iterator": iterator, "session_hash": "visitor", "event_id": "event"}
        answers.append(await page.process_api(event, [], **options))
    return [answer["data"][0] for answer in answers]


@pytest.mark.parametrize("blocks", [WholeValues, gr.Blocks], ids=["whole", "gradio"])
def test_no_step_changes_a_part_of_an_earlier_one(blocks):
    """A step replaces the value before it, continues its text, or leaves it; Gradio alone changes parts of it."""
    page = in_event_loop(lambda: build(blocks))
    first, *later, last = anyio.run(call, page)
    assert first == STEPS[0]
    assert len(later) == len(STEPS) - 1
    paths = [path for edits in later for _, path, _ in edits]
    assert all(path == [] for path in paths) == (blocks is WholeValues)
    assert last == STEPS[-1]
