"""Sliders that set a number to powers of ten, and follow it."""

import math
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.events import Dependency

from ui.parts.shared import AT_ONCE

_HIGHEST = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Powers:
    """The powers of ten of a slider, from `lowest` on; with `has_zero`, one more step at the left end stands for 0."""

    lowest: int
    has_zero: bool = False

    @property
    def left(self) -> int:
        """The position at the left end."""
        return self.lowest - self.has_zero

    def position(self, value: float) -> int:
        """The slider's position at a value of the number."""
        return min(_HIGHEST, max(self.left, round(math.log10(value)))) if value > 0 else self.left


def build(
    name: str, number: gr.Number, powers: Powers, *, label: Any, visible: bool = True
) -> tuple[gr.Slider, Dependency]:
    """Adds a slider that sets `number` and follows it to the page being built; both happen in the browser.

    Returns the slider, and the event that sets the number.
    """
    slider = gr.Slider(
        powers.left, _HIGHEST, value=powers.position(number.value), step=1, label=label, show_label=False,
        buttons=[], visible=visible, elem_id=f"power-{name}", elem_classes=["power"],
    )  # fmt: skip
    zero = f"power < {powers.lowest} ? 0 : "
    to_number = f"(power) => {zero}Number((10 ** power).toPrecision(1))"
    to_power = (
        f"(value) => value > 0 ? Math.min({_HIGHEST}, Math.max({powers.left}, Math.round(Math.log10(value)))) "
        f": {powers.left}"
    )
    moved = slider.input(None, slider, number, js=to_number, api_name=f"_power_{name}", **AT_ONCE)
    number.input(None, number, slider, js=to_power, api_name=f"_number_{name}", **AT_ONCE)
    return slider, moved
