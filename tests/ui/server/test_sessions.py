"""Gradio's sessions without the configurations of their components: a contract with Gradio's StateHolder."""

import functools

import anyio
import gradio as gr
import pytest
from gradio import state_holder
from labs import in_event_loop

from ui.server import sessions


def build_page():
    """Builds a page whose only event adds a choice and counts its calls."""
    with gr.Blocks() as page:
        choice, count, text, button = gr.Dropdown(["old"]), gr.State(0), gr.Textbox(), gr.Button()
        button.click(
            lambda chosen, count: (
                gr.update(choices=["old", "new"]),
                count + 1,
                f"{chosen} {count}",
                gr.update(visible=False),
            ),
            [choice, count],
            [choice, count, text, button],
        )
    return page


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setattr(state_holder, "SessionState", state_holder.SessionState)  # to restore it
    sessions.keep_small()
    return in_event_loop(build_page)


@pytest.fixture
def holder(page):
    held = state_holder.StateHolder()
    held.set_blocks(page)
    return held


def press(page, session, chosen):
    """Returns the text after a click."""
    result = anyio.run(functools.partial(page.process_api, 0, [chosen, None], state=session))
    return result["data"][2]


def test_each_session_has_its_own_choices_and_states(page, holder):
    assert press(page, holder["one"], "old") == "old 0"
    assert press(page, holder["one"], "new") == "new 1"
    with pytest.raises(gr.Error, match="not in the list of choices"):
        press(page, holder["two"], "new")
    assert press(page, holder["two"], "old") == "old 0"


def test_a_session_keeps_only_its_lists(page, holder):
    """An event has changed the button as well, which is sent, and Gradio would keep a copy of it."""
    session = holder["one"]
    for _ in range(2):
        result = anyio.run(functools.partial(page.process_api, 0, ["old", None], state=session))
        assert result["data"][3] == {"visible": False, "__type__": "update"}
    own = [part for key, part in session.blocks_config.blocks.items() if part is not page.blocks[key]]
    assert [type(part).__name__ for part in own] == ["Dropdown"]


def test_no_session_keeps_configurations(page, holder):
    """Gradio's own sessions do, which is why they are replaced."""
    press(page, holder["one"], "old")
    assert not any(holder["one"].config_values.values())
    assert list(holder["one"].components) == []
    _, original = type(holder["one"]).__mro__[:2]
    assert all(original(page).config_values.values())
