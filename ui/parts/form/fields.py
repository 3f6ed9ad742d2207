"""The widgets of the settings, built from the declarations in trainer.settings, and the config of their values."""

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.events import Dependency

from trainer.errors import UserError
from trainer.settings.config import ROW_SETTINGS, SETTINGS, TrainConfig, parse
from trainer.settings.fields import Row, label_of
from trainer.settings.optimizers import OPTIMIZERS
from trainer.settings.presets import FIRST
from trainer.settings.schedulers import SCHEDULERS
from ui.i18n.words import i18n
from ui.parts.form.labels import LABELS
from ui.parts.form.powers import Powers
from ui.parts.messages import Updates, with_page_errors
from ui.parts.shared import AT_ONCE, components

ROWS: dict[str, dict[str, Row]] = {"optimizer": OPTIMIZERS, "scheduler": SCHEDULERS}

# The settings that belong to no optimizer or scheduler, in the page's order.
NETWORK = ("model", "activation", "softmax", "pretrained", "seed", "precision")
DATA = ("batch_size", "train_split", "num_images", "holdout", "shuffle", "drop_last", "flip", "shift", "normalize")
LOSS = ("label_smoothing", "zero_grad_every")

# The settings that have a slider for powers of ten.
POWERS = {name: Powers(lowest=-6, has_zero=not SETTINGS[name].open_low) for name in ("lr", "weight_decay")}

Widget = gr.Checkbox | gr.Dropdown | gr.Number | gr.Slider | gr.Textbox


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The components of the settings, by name.

    `widgets` has a widget for each setting, `powers` the sliders for powers of ten, `moved` the events with which these
    set their numbers, `abouts` the descriptions of the chosen optimizer and scheduler, and `paper` is the optimizer's
    source.
    """

    widgets: dict[str, Widget]
    powers: dict[str, gr.Slider]
    moved: list[Dependency]
    abouts: dict[str, gr.Markdown]
    paper: gr.Markdown

    def show(self, config: TrainConfig) -> Updates:
        """Updates that make the page show a config."""
        own = {name for part, rows in ROWS.items() for name in rows[getattr(config, part)].defaults}
        updates: Updates = {}
        for name, widget in self.widgets.items():
            value = value_of(name, config)
            if isinstance(widget, gr.Textbox) and not isinstance(value, str):
                value = "" if value is None else label_of(value)
            elif value is None:
                value = widget.value
            updates[widget] = gr.update(value=value, visible=name in own or name not in ROW_SETTINGS)
        for name, slider in self.powers.items():
            power = POWERS[name].position(getattr(config, name) or 0)
            updates[slider] = gr.update(value=power, visible=name in own)
        for part, about in self.abouts.items():
            updates[about] = i18n(ROWS[part][getattr(config, part)].about)
        updates[self.paper] = source(config.optimizer)
        return updates

    def choose(self, part: str, chosen: str) -> Updates:
        """Updates that show the settings of a row, with its defaults, in place of the others of its part.

        Raises UserError if there is no such row.
        """
        row, names = _row(part, chosen), row_settings(part)
        config = TrainConfig.from_settings({part: chosen})
        updates: Updates = {self.abouts[part]: i18n(row.about)}
        for name in names:
            updates[self.widgets[name]] = gr.update(visible=name in row.defaults, value=value_of(name, config))
        for name in set(names) & self.powers.keys():
            power = POWERS[name].position(row.defaults.get(name, 0))
            updates[self.powers[name]] = gr.update(visible=name in row.defaults, value=power)
        if part == "scheduler":
            return {**updates, self.widgets["scheduler"]: chosen, self.widgets["scheduler_unit"]: row.unit}
        updates[self.paper] = source(chosen)
        return updates | self.choose("scheduler", row.scheduler) if row.is_schedule_free else updates

    def check_fits(self, config: TrainConfig) -> None:
        """Raises UserError if a setting is valid but above the maximum of its slider."""
        for name, widget in self.widgets.items():
            if isinstance(widget, gr.Slider) and getattr(config, name) > widget.maximum:
                raise UserError(
                    "This link does not work here: on this page {name} is at most {maximum}.",
                    name=name,
                    maximum=f"{widget.maximum:g}",
                )


def build(name: str, *, visible: bool = True) -> Widget:
    """Adds the widget of a setting, with its help, to the page being built."""
    declared, value = SETTINGS[name], value_of(name, FIRST)
    about: dict[str, Any] = {
        "label": i18n(LABELS[name]),
        "info": i18n(declared.help),
        "visible": visible,
        "elem_id": f"setting-{name}",
    }
    if declared.kind is bool:
        return gr.Checkbox(value=bool(value), **about)
    if declared.kind is str:
        return gr.Dropdown(choices=list(declared.choices), value=value, **about)
    if declared.count != 1 or _may_be_unset(name):
        return gr.Textbox(value=value, placeholder=i18n("unset"), max_lines=1, **about)
    if name == "epochs":
        return gr.Slider(1, 100, value=value, step=1, **about)
    return gr.Number(value=value, precision=0 if declared.kind is int else None, **about)


def value_of(name: str, config: TrainConfig) -> Any:
    """The value of a setting's widget for a config; None if the config's rows do not have the setting."""
    value = getattr(config, name)
    return label_of(value) if isinstance(value, tuple) else value


def follow_row(part: str, panel: Panel) -> Dependency:
    """Makes the choice of an optimizer or a scheduler show only its own settings, with its own defaults.

    Returns the event, for handlers that run after it.
    """

    @with_page_errors
    def update(chosen: str) -> Updates:
        return panel.choose(part, chosen)

    return panel.widgets[part].input(
        update,
        inputs_kwargs={"chosen": panel.widgets[part]},
        outputs=components(panel),
        api_name=f"_choose_{part}",
        **AT_ONCE,
    )


def source(optimizer: str) -> str:
    """The paper of an optimizer as a link in Markdown."""
    row = OPTIMIZERS[optimizer]
    return f"[{row.paper}]({row.link})"


def row_settings(part: str) -> list[str]:
    """The settings that belong to optimizers, or to schedulers, in the order of TrainConfig."""
    own = {name for row in ROWS[part].values() for name in row.defaults}
    return [name for name in SETTINGS if name in own]


def read_config(values: dict[str, Any]) -> TrainConfig:
    """The config of the widgets' values by name, without the settings of rows that are not chosen.

    Raises UserError if a value is missing or invalid.
    """
    own = {name for part in ROWS for name in _row(part, values[part]).defaults}
    settings = {}
    for name, value in values.items():
        if name in ROW_SETTINGS and name not in own:
            continue
        if value is None or value == "":
            if _may_be_unset(name):
                continue
            raise UserError("{name} is empty: fill it in.", name=name)
        is_text = isinstance(value, str) and SETTINGS[name].kind is not str
        settings[name] = parse(name, value) if is_text else value
    return TrainConfig.from_settings(settings)


def row_changes(config: TrainConfig, *parts: str) -> dict[str, Any]:
    """The chosen rows of `parts` ("optimizer", "scheduler") with their settings: the changes for a resumed run."""
    names = {name for part in parts for name in (part, *row_settings(part))}
    if "scheduler" in parts:
        names |= {"scheduler_unit", "num_warmup_steps"}
    return {name: value for name, value in config.settings().items() if name in names}


def _row(part: str, chosen: Any) -> Row:
    rows = ROWS[part]
    if not isinstance(chosen, str) or chosen not in rows:
        raise UserError("Choose one of these: {names}.", names=", ".join(rows))
    return rows[chosen]


def _may_be_unset(name: str) -> bool:
    """Whether a row's default for the setting is None: its value then depends, for example, on the run's length."""
    return any(row.defaults.get(name, 0) is None for rows in ROWS.values() for row in rows.values())
