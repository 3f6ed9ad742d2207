"""The widgets of the plan, and the line that says what it costs before anything runs."""

import asyncio
import html
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from trainer.errors import UserError
from trainer.images.image_data import ImageData
from trainer.learning.race import MAX_SEEDS
from trainer.learning.training_set import images_per_epoch
from trainer.settings.config import SETTINGS
from trainer.settings.optimizers import OPTIMIZERS
from trainer.sweeps.axes import Cell, Grid
from trainer.sweeps.runner import sweep_settings
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts.form import powers
from ui.parts.form.powers import Powers
from ui.parts.markup import advice, duration
from ui.parts.messages import Updates
from ui.parts.run.checkpoints import in_thread
from ui.tabs.sweep.plan import MOST_EPOCHS, MOST_VALUES, RANGES, Plan, Range, write

_SECONDS_BETWEEN_LOOKS = 0.5
_POWERS = Powers(lowest=-6)
_HAS_POWERS = ("lr", "weight_decay")
_MOST_REASONS = 3


@dataclass(frozen=True, kw_only=True)
class RangeFields:
    """The widgets of a setting that varies, with sliders that set `low` and `high` to powers of ten."""

    name: gr.Dropdown
    low: gr.Number
    high: gr.Number
    low_power: gr.Slider
    high_power: gr.Slider
    count: gr.Slider

    def show(self, one: Range | None) -> Updates:
        """Updates that show a range, or hide the widgets if there is none."""
        if one is None:
            hidden = (self.low, self.high, self.low_power, self.high_power, self.count)
            return {self.name: "", **{widget: gr.update(visible=False) for widget in hidden}}
        has_powers = one.name in _HAS_POWERS
        return {
            self.name: one.name,
            self.low: gr.update(value=one.low, visible=True),
            self.high: gr.update(value=one.high, visible=True),
            self.low_power: gr.update(value=_POWERS.position(one.low), visible=has_powers),
            self.high_power: gr.update(value=_POWERS.position(one.high), visible=has_powers),
            self.count: gr.update(value=one.count, visible=True),
        }

    def choose(self, name: str | None) -> Updates:
        """Updates that show the range from which a setting starts."""
        return self.show(RANGES.get(name or ""))


@dataclass(frozen=True, kw_only=True)
class PlanPanel:
    """The widgets of the plan, the line on what it costs, and its text for the page's address."""

    across: RangeFields
    down: RangeFields
    optimizers: gr.CheckboxGroup
    num_seeds: gr.Slider
    epochs: gr.Slider
    num_images: gr.Number
    line: gr.HTML
    link: gr.Textbox

    @property
    def inputs(self) -> dict[str, Any]:
        """The widgets by the names of `read_plan`'s parameters."""
        own = {name: getattr(self, name) for name in ("optimizers", "num_seeds", "epochs", "num_images")}
        for prefix, part in (("across", self.across), ("down", self.down)):
            own |= {f"{prefix}_{name}": getattr(part, name) for name in ("name", "low", "high", "count")}
        return own

    def show(self, plan: Plan) -> Updates:
        """Updates that show a plan."""
        return {
            **self.across.show(plan.across),
            **self.down.show(plan.down),
            self.optimizers: list(plan.optimizers),
            self.num_seeds: plan.num_seeds,
            self.epochs: plan.epochs,
            self.num_images: plan.num_images,
            self.link: write(plan),
        }


def build(line: gr.HTML, link: gr.Textbox) -> PlanPanel:
    """Adds the widgets to the page being built. `line` and `link` are elsewhere on the page."""
    plan = Plan()
    with gr.Group():
        across = _build_range("across", list(RANGES), plan.across, i18n("What varies"), is_used=True)
    with gr.Group():
        optimizers = gr.CheckboxGroup(
            list(OPTIMIZERS), value=list(plan.optimizers), label=i18n("Optimizers"), elem_id="sweep-optimizers"
        )
    with gr.Group():
        num_seeds = gr.Slider(
            1,
            MAX_SEEDS,
            value=plan.num_seeds,
            step=1,
            label=i18n("Seeds"),
            info=i18n("Runs of the same settings that differ by luck alone."),
            elem_id="sweep-seeds",
        )
        epochs = gr.Slider(
            1, MOST_EPOCHS, value=plan.epochs, step=1, label=i18n("Epochs of each run"), elem_id="sweep-epochs"
        )
        num_images = gr.Number(
            value=plan.num_images,
            precision=0,
            label=i18n("Pictures of each run"),
            info=i18n("0: all. A tenth of them is kept aside, to choose the best settings by."),
            elem_id="sweep-images",
        )
    with gr.Accordion(i18n("More settings"), open=False, elem_id="sweep-more"):
        choices = [(i18n("Nothing else"), ""), *((name, name) for name in RANGES)]
        down = _build_range("down", choices, RANGES["weight_decay"], i18n("What else varies"), is_used=False)
    return PlanPanel(
        across=across,
        down=down,
        optimizers=optimizers,
        num_seeds=num_seeds,
        epochs=epochs,
        num_images=num_images,
        line=line,
        link=link,
    )


def _build_range(prefix: str, choices: list[Any], one: Range, label: I18nData, *, is_used: bool) -> RangeFields:
    name = gr.Dropdown(choices, value=one.name if is_used else "", label=label, elem_id=f"sweep-{prefix}-name")
    low = gr.Number(one.low, label=i18n("From"), visible=is_used, elem_id=f"sweep-{prefix}-low")
    high = gr.Number(one.high, label=i18n("To"), visible=is_used, elem_id=f"sweep-{prefix}-high")
    low_power, _ = powers.build(f"sweep-{prefix}-low", low, _POWERS, label=i18n("From, powers of ten"), visible=is_used)
    high_power, _ = powers.build(
        f"sweep-{prefix}-high", high, _POWERS, label=i18n("To, powers of ten"), visible=is_used
    )
    return RangeFields(
        name=name,
        low=low,
        high=high,
        low_power=low_power,
        high_power=high_power,
        count=gr.Slider(
            2,
            MOST_VALUES,
            value=one.count,
            step=1,
            label=i18n("Number of values"),
            visible=is_used,
            elem_id=f"sweep-{prefix}-count",
        ),
    )


def read_plan(*, optimizers: Any, num_seeds: Any, epochs: Any, num_images: Any, **ranges: Any) -> Plan:
    """Returns the plan of the widgets' values, which may be anything. Raises UserError if one is missing or invalid."""
    across = _read_range("across", ranges)
    if across is None:
        raise UserError("Choose one or two settings to vary.")
    chosen = optimizers if isinstance(optimizers, list) else []
    return Plan(
        across=across,
        down=_read_range("down", ranges),
        optimizers=tuple(name for name in OPTIMIZERS if name in chosen),
        num_seeds=_whole("seed", num_seeds),
        epochs=_whole("epochs", epochs),
        num_images=_whole("num_images", num_images),
    )


def _read_range(prefix: str, ranges: dict[str, Any]) -> Range | None:
    name, low, high, count = (ranges[f"{prefix}_{part}"] for part in ("name", "low", "high", "count"))
    if not isinstance(name, str) or name not in RANGES:
        return None
    if not all(isinstance(value, int | float) for value in (low, high, count)) or not 2 <= count <= MOST_VALUES:
        raise UserError("The range of {name} is empty: fill it in.", name=name)
    return Range(name=name, low=low, high=high, count=int(count))


def _whole(name: str, value: Any) -> int:
    if value is None:
        raise UserError("{name} is empty: fill it in.", name=name)
    checked: int = SETTINGS[name].check(name, value)
    return checked


async def price(
    lab: Lab, panel: PlanPanel, *, visitor: str | None, turn: list[int], **values: Any
) -> AsyncIterator[Updates]:
    """Yields the line on what the plan of the widgets' values costs on the visitor's pictures, and its text for a link.

    The time is added once the pace of its optimizers has been measured. `turn` counts the calls of a page: an earlier
    one, which may still be measuring, ends without another update.
    """
    turn[0] += 1
    own_turn = turn[0]
    async for updates in _price(lab, panel, visitor, values):
        if turn[0] != own_turn:
            yield gr.skip()  # Gradio sends the last update again at the end
            return
        yield updates


async def _price(lab: Lab, panel: PlanPanel, visitor: str | None, values: dict[str, Any]) -> AsyncIterator[Updates]:
    language = current_language()
    try:
        plan = read_plan(**values)
        axes = plan.axes()
        while (images := lab.chosen_images(visitor) or lab.loaded()) is None:
            yield {panel.line: _line(translate("The pictures are still being loaded.", language))}
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        settings, reason = sweep_settings(plan.settings(images), axes, images)
        grid = await in_thread(lab.sweep_grid, settings, axes, images)
    except UserError as error:
        yield {panel.line: advice(translate(str(error), language))}
        return
    shown: Updates = {panel.link: write(plan)}
    unknown = [name for name in plan.optimizers if name not in lab.paces]
    if unknown:
        yield {**shown, panel.line: words(lab, grid, None, language, reason, is_measuring=True)}
        for name in unknown:
            await in_thread(lab.measure_pace, name)
    seconds = await in_thread(estimate, lab, grid.cells, images)
    yield {**shown, panel.line: words(lab, grid, seconds, language, reason)}


def estimate(lab: Lab, cells: Sequence[Cell], images: ImageData) -> float | None:
    """The seconds that runs take on the lab's machine, from the paces of their optimizers; None if one is unknown."""
    seconds = 0.0
    for cell in cells:
        config = cell.config
        pace = lab.paces.get(config.optimizer)
        if pace is None:
            return None
        batches = images_per_epoch(config, images) / SETTINGS["batch_size"].default  # of the size that was measured
        seconds += config.epochs * batches * pace.batch_seconds + pace.testing_seconds(config, images)
    return seconds / lab.parallel


def words(
    lab: Lab, grid: Grid, seconds: float | None, language: str, remark: str = "", *, is_measuring: bool = False
) -> str:
    """The number of runs, the time that they take, a remark and what is left out, as HTML."""
    said = [translate("Plan: {count} runs", language, count=f"{len(grid.cells):,}")]
    if is_measuring:
        said.append(translate("measuring how long they take …", language))
    elif seconds is not None and lab.shares_machine:
        said.append(translate("about {duration}", language, duration=duration(seconds, language)))
    elif seconds is not None:
        said.append(translate("about {duration} of your GPU time", language, duration=duration(seconds, language)))
    elif not lab.shares_machine:
        said.append(translate("their GPU time is known once one run has been trained", language))
    reasons = Counter(reason for _, reason in grid.refused).most_common(_MOST_REASONS)
    left_out = [
        translate("{count} left out: {reason}", language, count=count, reason=reason) for reason, count in reasons
    ]
    return _line(" · ".join(said), *filter(None, [translate(remark, language)]), *left_out)


def _line(sentence: str, *others: str) -> str:
    quiet = "".join(f"<div class='note'>{html.escape(other)}</div>" for other in others)
    return f"<div class='cost'>{html.escape(sentence)}{quiet}</div>"
