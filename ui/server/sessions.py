"""What Gradio keeps of a session, made small: the only place that replaces a part of it.

Gradio keeps the configuration of every component for every session, 0.6 MB, and makes it while all other visitors wait.
Only its links to a session's state need that, and `uploads` refuses those.
"""

from types import SimpleNamespace
from typing import Any

from gradio import state_holder
from gradio.blocks import Blocks


class _SmallSession(state_holder.SessionState):
    """A session that keeps its own components and states, but no configuration of them."""

    def __init__(self, blocks: Blocks):
        without_components: Any = SimpleNamespace(default_config=blocks.default_config, blocks={})
        super().__init__(without_components)
        # For a component that an event has changed.
        self.blocks_config.config_for_block = lambda *_: {}  # type: ignore[method-assign]


def keep_small() -> None:
    """Has Gradio keep small sessions from now on."""
    state_holder.SessionState = _SmallSession  # type: ignore[misc]
