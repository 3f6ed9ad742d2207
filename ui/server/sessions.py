"""What Gradio keeps of a session, made small: the only place that replaces a part of it.

Gradio keeps the configuration of every component for every session, 0.6 MB, and makes it while all other visitors wait.
Only its links to a session's state need that, and `uploads` refuses those. It also keeps a copy of every component that
an event has changed, another 0.5 MB; only the choices of a list are ever looked at again.
"""

from types import SimpleNamespace
from typing import Any

from gradio import state_holder
from gradio.blocks import Block, Blocks


class _SmallSession(state_holder.SessionState):
    """A session that keeps its own states and lists, but no other components and no configuration."""

    def __init__(self, blocks: Blocks):
        without_components: Any = SimpleNamespace(default_config=blocks.default_config, blocks={})
        super().__init__(without_components)
        # For a component that an event has changed.
        self.blocks_config.config_for_block = lambda *_: {}  # type: ignore[method-assign]
        # The last other component that an event has changed: Gradio reads what to send from it, before the next one.
        self._changed: tuple[int | None, Any] = (None, None)

    def __setitem__(self, key: int, value: Any) -> None:
        if isinstance(value, Block):
            value._id = key  # a copy has another one, under which Gradio would keep it once more at each event
            if not hasattr(value, "choices"):
                self._changed = key, value
                return
        super().__setitem__(key, value)

    def __getitem__(self, key: int) -> Any:
        changed, component = self._changed
        return component if key == changed else super().__getitem__(key)


def keep_small() -> None:
    """Has Gradio keep small sessions from now on."""
    state_holder.SessionState = _SmallSession  # type: ignore[misc]
