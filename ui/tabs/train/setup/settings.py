"""The settings: their widgets, a preview of their schedule, and a PyTorch script."""

import html
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.events import Dependency

from trainer.errors import UserError
from trainer.images.image_data import ImageData, facts
from trainer.jobs.pace import Pace
from trainer.learning.schedulers import MOST_BATCHES, planned_lrs
from trainer.learning.training_set import batches_per_epoch, training_split
from trainer.networks.architectures import num_parameters
from trainer.runs.comparison import differences, label
from trainer.runs.exports.script import as_code
from trainer.settings.config import TrainConfig
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.presets import FIRST, PRESETS
from trainer.settings.schedulers import SCHEDULERS
from ui.charts import run_charts
from ui.charts.live import live_chart
from ui.i18n.language import current_language
from ui.i18n.words import i18n, translate
from ui.lab import Lab
from ui.parts.form import fields, powers
from ui.parts.markup import advice, duration, english
from ui.parts.messages import Updates, with_page_errors
from ui.parts.run.run_view import NUM_CLASSES
from ui.parts.shared import AT_ONCE, code_panel, components
from ui.tabs.train.setup import lr_finder, permalink
from ui.tabs.train.setup.estimate import seconds_of
from ui.tabs.train.setup.lessons import Lessons
from ui.tabs.train.setup.race import Race, read_contenders

_PREVIEW_HEIGHT = 105


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What follows the settings: the chart of the schedule, a note on it, and the query of the page's link.

    `differs` names the folded settings that differ from their defaults, which `reset` brings back.
    """

    chart: gr.HTML
    note: gr.HTML
    query: gr.Textbox
    differs: gr.HTML
    reset: gr.Button

    def show(
        self,
        images: ImageData | None,
        config: TrainConfig,
        paces: Mapping[str, Pace],
        contenders: Sequence[TrainConfig] = (),
        num_seeds: int = 1,
    ) -> Updates:
        """Updates for a config on these images, and for the race in the link; a note explains a schedule that does not
        fit. `paces` are those of the machine, by optimizer. Images of None stand for CIFAR-10.
        """
        language = current_language()
        try:
            chart, note = _draw(images, config, paces, language)
        except UserError as error:
            return self.explain(error)
        own, _ = differences([config, _with_defaults(config)])
        return {
            self.chart: chart,
            self.note: note,
            self.query: permalink.write(config, contenders, num_seeds),
            self.differs: gr.update(value=_differs(own, language), visible=bool(own)),
            self.reset: gr.update(visible=bool(own)),
        }

    def explain(self, error: UserError) -> Updates:
        """Updates that explain why settings cannot be drawn; the link stays as it was."""
        language = current_language()
        return {
            self.chart: _chart([], FIRST.epochs, language),
            self.note: advice(translate(str(error), language)),
        }


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The buttons for presets by name, the widgets, the preview of their schedule, the learning-rate finder, and the
    events that show a chosen row."""

    presets: Mapping[str, gr.Button]
    panel: fields.Panel
    preview: Preview
    finder: lr_finder.Finder
    row_chosen: Sequence[Dependency]


def build(lab: Lab, query: gr.Textbox) -> Settings:
    """Adds all settings to the page being built; those of optimizers and schedulers not chosen are hidden.

    Those that beginners need are in sight, all others are folded.
    """
    paper = gr.Markdown(fields.source(FIRST.optimizer), elem_classes=["about", "paper"], render=False)
    panel = fields.Panel(widgets={}, powers={}, moved=[], abouts={}, paper=paper)
    with gr.Group(elem_id="main-settings"):
        _add(panel, ["optimizer"])
        _add_with_powers(panel, "lr")
        _add(panel, ["scheduler"])
        drawn, remark = _draw(None, FIRST, {}, "en")
        chart = live_chart(drawn, height=_PREVIEW_HEIGHT, label="Planned learning rate", elem_id="preview")
        note = gr.HTML(english(remark), elem_id="preview-word")
        _add(panel, ["epochs"])
    with gr.Row(elem_id="presets"):
        presets = {
            name: gr.Button(i18n(title), size="sm", min_width=80, elem_id=f"preset-{name}")
            for name, title in (("minute", "A minute"), ("thorough", "Thorough: ten epochs"))
        }
    with gr.Accordion(i18n("More settings"), open=False, elem_id="more"):
        for title, part, rows in (("Optimizer", "optimizer", OPTIMIZERS), ("Schedule", "scheduler", SCHEDULERS)):
            with _titled(title):
                _add_row(panel, part, rows)
                if part == "scheduler":
                    _add(panel, ["scheduler_unit", "num_warmup_steps"])
        for title, names in (
            ("Network", fields.NETWORK),
            ("Pictures and batches", fields.DATA),
            ("Loss and gradients", fields.LOSS),
        ):
            with _titled(title):
                _add(panel, names)
    with gr.Row(elem_id="differs-row"):
        differs = gr.HTML(visible=False, elem_id="differs")
        reset = gr.Button(i18n("Reset"), size="sm", scale=0, min_width=70, visible=False, elem_id="reset")
    finder = lr_finder.build()
    return Settings(
        presets=presets,
        panel=panel,
        preview=Preview(chart=chart, note=note, query=query, differs=differs, reset=reset),
        finder=finder,
        row_chosen=[fields.follow_row(part, panel) for part in panel.abouts],
    )


def show_preset_on_click(lessons: Lessons, settings: Settings) -> list[Dependency]:
    """Makes the buttons of presets show their settings, without a lesson; returns the events."""

    def show(config: TrainConfig) -> Updates:
        return {**lessons.show(None), **settings.panel.show(config)}

    return [
        button.click(
            partial(show, PRESETS[name]),
            None,
            components(lessons, settings.panel),
            api_name=f"_preset_{name}",
            **AT_ONCE,
        )
        for name, button in settings.presets.items()
    ]


def reset_on_click(settings: Settings) -> Dependency:
    """Makes a button bring back the defaults of the folded settings; returns the event."""

    @with_page_errors
    def reset(**values: Any) -> Updates:
        return settings.panel.show(_with_defaults(fields.read_config(values)))

    return settings.preview.reset.click(
        reset,
        inputs_kwargs={**settings.panel.widgets},
        outputs=components(settings.panel),
        api_name="_reset",
        **AT_ONCE,
    )


def draw_on_change(
    lab: Lab, settings: Settings, race: Race, visitor: gr.BrowserState, chosen: Sequence[Dependency]
) -> None:
    """Makes the preview and the page's link follow the settings and the race; `chosen` are events that set several."""
    panel = settings.panel
    # On input, not on change: when a link or a lesson sets all widgets, the first change comes before the last is set.
    # A chosen row is drawn later, when its own settings are in the widgets.
    edited = [widget.input for name, widget in panel.widgets.items() if name not in panel.abouts]
    drawing: dict[str, Any] = {
        "fn": partial(draw, lab, settings.preview),
        "inputs_kwargs": {
            "visitor": visitor,
            "contenders": race.contenders,
            "num_seeds": race.num_seeds,
            **panel.widgets,
        },
        "outputs": components(settings.preview),
        **AT_ONCE,
        # Drawing can compute for a second: many previews at once must not take all of the processor.
        "concurrency_id": "draw",
        "concurrency_limit": 2,
    }
    gr.on(
        [race.num_seeds.input, *edited],
        trigger_mode="always_last",
        api_name="_draw_preview",
        **drawing,
    )
    for number, event in enumerate([*settings.row_chosen, *panel.moved, *chosen], 1):
        event.then(api_name=f"_draw_preview_{number}", **drawing)


def build_code(lab: Lab, panel: fields.Panel, visitor: gr.BrowserState) -> None:
    """Adds the panel that writes the settings as a script."""
    button, script = code_panel("code")
    button.click(
        partial(write_code, lab),
        inputs_kwargs={"visitor": visitor, **panel.widgets},
        outputs=script,
        api_name="_code",
        **AT_ONCE,
    )


def draw(
    lab: Lab, preview: Preview, *, visitor: str | None, contenders: Any, num_seeds: Any, **settings: Any
) -> Updates:
    """Updates of the preview for the widgets' values and the visitor's pictures; a note explains invalid ones."""
    try:
        config, images = fields.read_config(settings), lab.shown_images(visitor)
        return preview.show(images, config, lab.paces, read_contenders(contenders), int(num_seeds or 1))
    except UserError as error:
        return preview.explain(error)


@with_page_errors
def write_code(lab: Lab, *, visitor: str | None, **settings: Any) -> str:
    """Returns a plain PyTorch script with the settings, which must be trainable on the visitor's pictures."""
    images, config = lab.chosen_images(visitor) or lab.ready_images(), fields.read_config(settings)
    training_split(config, images)
    return as_code(config, facts(images))


def _add(panel: fields.Panel, names: Sequence[str]) -> None:
    for name in names:
        panel.widgets[name] = fields.build(name)


def _add_with_powers(panel: fields.Panel, name: str, *, visible: bool = True) -> None:
    """Adds a number with a slider for powers of ten, which is a part of the same control."""
    widget = panel.widgets[name] = fields.build(name, visible=visible)
    if isinstance(widget, gr.Number):
        label = f"{name}, powers of ten"
        slider, moved = powers.build(name, widget, fields.POWERS[name], label=label, visible=visible)
        panel.powers[name] = slider
        panel.moved.append(moved)


def _add_row(panel: fields.Panel, part: str, rows: dict[str, Any]) -> None:
    """Adds the folded settings of all optimizers or all schedulers; those of the first one chosen are visible."""
    first = getattr(FIRST, part)
    panel.abouts[part] = gr.Markdown(i18n(rows[first].about), elem_classes=["about"])
    if part == "optimizer":
        panel.paper.render()
    for name in fields.row_settings(part):
        visible = name in rows[first].defaults
        if name in fields.POWERS and name not in panel.widgets:
            _add_with_powers(panel, name, visible=visible)
        elif name not in panel.widgets:
            panel.widgets[name] = fields.build(name, visible=visible)


@contextmanager
def _titled(title: str) -> Iterator[None]:
    """Adds a group of folded settings, with a title, for what the with block adds."""
    gr.HTML(f"<h3>{i18n(title)}</h3>", elem_classes=["group-title"])
    with gr.Group():
        yield


def _with_defaults(config: TrainConfig) -> TrainConfig:
    """The config with the page's defaults of all settings that are folded."""
    in_sight = {name: getattr(config, name) for name in ("optimizer", "lr", "scheduler", "epochs")}
    return FIRST.changed(in_sight)


def _differs(own: Mapping[str, Any], language: str) -> str:
    """The settings that differ from their defaults, as HTML."""
    title = translate("Differs from the default:", language)
    return f"<div class='note'>{html.escape(title)} <b>{html.escape(label(dict(own)))}</b></div>"


def _draw(
    images: ImageData | None, config: TrainConfig, paces: Mapping[str, Pace], language: str
) -> tuple[dict[str, Any], str]:
    """The chart of a config's schedule, and as HTML the size and duration of the training with a note on the chart."""
    planned = planned_lrs(config, images)
    note = ""
    if config.scheduler == "plateau":
        note = translate(
            "Only the initial lr is drawn: plateau lowers lr when the loss stalls, which only training shows.",
            language,
        )
    elif not planned:
        note = translate("Too long to draw: over {count} batches.", language, count=f"{MOST_BATCHES:,}")
    size = f"<div class='note'>{_size(images, config, paces, language)}</div>"
    return _chart(planned, config.epochs, language), size + (f"<div class='note'>{note}</div>" if note else "")


def _size(images: ImageData | None, config: TrainConfig, paces: Mapping[str, Pace], language: str) -> str:
    """The parameters of the network, the batches of a training, and how long it is likely to take."""
    classes = len(images.class_names) if images else NUM_CLASSES
    parameters = num_parameters(config.model, classes, images.train.images.shape[-1] if images else 32)
    batches = config.epochs * batches_per_epoch(config, images)
    words = [
        translate("{count} parameters", language, count=f"{parameters:,}"),
        translate("{count} batches", language, count=f"{batches:,}"),
        translate("about {duration}", language, duration=duration(seconds_of(config, paces, images), language)),
    ]
    return " · ".join(words)


def _chart(planned: list[tuple[float, float]], epochs: int, language: str) -> dict[str, Any]:
    return run_charts.lr_chart(planned, [], epochs=epochs, height=_PREVIEW_HEIGHT, language=language)
