"""Permalinks: writes all settings and the race as the query of the page's address, and reads them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from trainer.errors import UserError
from trainer.learning.race import MAX_SEEDS, MAX_SETTINGS
from trainer.settings.config import AUGMENT, SETTINGS, TrainConfig, parse
from trainer.settings.lessons import LESSONS
from trainer.settings.presets import FIRST
from ui import address
from ui.i18n.words import in_browser

_MAX_LENGTH = 8000  # of a query: that of a full race is shorter
_RACE, _SEEDS, _LESSON = "race", "seeds", "lesson"
_OTHERS = {"lang", "logs", "ref", "source", *address.PARAMETERS}


def copy_script() -> str:
    """A script for the click of a button, with the query and the sweep's plan as inputs: copies the page's link.

    A Space runs in a frame of its page on the Hub, so the link leads to that page, which SPACE_ID names. It leaves out
    the chosen run: whoever has its key can classify with it.
    """
    space = os.environ.get("SPACE_ID")
    page = repr(f"https://huggingface.co/spaces/{space}") if space else "location.origin + location.pathname"
    return f"""async (query, plan) => {{
  const tab = window.selectedTab === "sweep" ? "tab=sweep" : "";
  const language = new URL(location.href).searchParams.get("lang") === "zh" ? "lang=zh" : "";
  query = [query, plan && "plan=" + encodeURIComponent(plan), tab, language].filter(Boolean).join("&");
  const link = {page} + (query ? "?" + query : "");
  const button = document.querySelector("#copy-link"), label = button.dataset.label ??= button.textContent;
  try {{
    await navigator.clipboard.writeText(link);
    button.textContent = {in_browser("Copied ✓")};
    setTimeout(() => {{ button.textContent = label; }}, 2000);
  }} catch {{
    window.prompt({in_browser("Copy this link:")}, link);
  }}
}}"""


@dataclass(frozen=True, kw_only=True)
class Link:
    """The content of a link: the page's settings, those in the race, and the number of seeds."""

    config: TrainConfig
    race: tuple[TrainConfig, ...] = ()
    num_seeds: int = 1


def write(config: TrainConfig, race: Sequence[TrainConfig] = (), num_seeds: int = 1) -> str:
    """The query of a link, without its question mark: the settings that differ from TrainConfig's defaults.

    A query without settings stands for those that the page opens with.
    """
    settings = {} if config == FIRST else config.as_text() or {"epochs": str(config.epochs)}
    query = list(settings.items())
    if race:
        query.append((_RACE, ";".join(urlencode(contender.as_text()) for contender in race)))
    if num_seeds != 1:
        query.append((_SEEDS, str(num_seeds)))
    return urlencode(query)


def read(query: Mapping[str, str]) -> Link | None:
    """The content of a link's query; None if it contains no setting. `lesson` stands for the settings of a lesson.

    Raises UserError if a setting, the lesson, the race or the number of seeds is unknown or invalid.
    """
    # The other parameters of an address are Gradio's own, the language, those of address.py, and those that name the
    # referring site.
    settings = {
        name: text for name, text in query.items() if not name.startswith(("_", "utm_")) and name not in _OTHERS
    }
    if not settings:
        return None
    if sum(map(len, settings.values())) > _MAX_LENGTH:
        raise UserError("This link does not work: it is too long.")
    race, seeds = settings.pop(_RACE, ""), settings.pop(_SEEDS, "1")
    try:
        parts = race.split(";") if _RACE in query else []
        if len(parts) > MAX_SETTINGS:
            raise UserError("A race can have up to {most} settings.", most=MAX_SETTINGS)
        if seeds not in map(str, range(1, MAX_SEEDS + 1)):
            raise UserError("A race can have from 1 to {most} seeds per setting.", most=MAX_SEEDS)
        if _LESSON in settings:
            config = _lesson(settings.pop(_LESSON)).changed(_parsed(settings))
        else:
            config = _config(settings) if settings else FIRST
        return Link(
            config=config,
            race=tuple(_config(dict(parse_qsl(part))) for part in parts),
            num_seeds=int(seeds),
        )
    except UserError as error:
        raise UserError(
            "This link does not work here, so the page has its default settings: {why}", why=error
        ) from None


def _lesson(name: str) -> TrainConfig:
    trained = {lesson.name: lesson for lesson in LESSONS.values() if not lesson.vary}
    if name not in trained:
        raise UserError("There is no lesson {name}; the lessons are: {names}.", name=name, names=", ".join(trained))
    return trained[name].config


def _config(settings: Mapping[str, str]) -> TrainConfig:
    return TrainConfig.from_settings(_parsed(settings))


def _parsed(settings: Mapping[str, str]) -> dict[str, Any]:
    return {name: parse(name, text) if name in SETTINGS or name == AUGMENT else text for name, text in settings.items()}
