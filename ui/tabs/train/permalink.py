"""Permalinks: the whole setting, or a race, as the query of the page's address, and back."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from trainer.errors import UserError
from trainer.learning.race import MAX_SEEDS, MAX_SETTINGS
from trainer.settings.config import SETTINGS, TrainConfig, parse
from ui.i18n.words import in_browser

_LONGEST = 8000  # letters of a query: more than six settings take
_RACE, _SEEDS = "race", "seeds"
_OTHERS = {"lang", "logs", "ref", "source"}

# Keeps the address up to date while settings change, with what else is in it: the language, Gradio's own.
SHOW = """(query) => {
  const address = new URL(location.href);
  const others = [...address.searchParams].filter(([name]) => name === "lang" || name.startsWith("_"));
  address.search = query;
  for (const [name, value] of others) address.searchParams.append(name, value);
  history.replaceState(history.state, "", address);
}"""


def copy_script() -> str:
    """For the click of a button with the query as its input: copies the page's link, and says so on the button.

    A Space runs in a frame of the Hub's page, which is the one to link to: SPACE_ID names it.
    """
    space = os.environ.get("SPACE_ID")
    page = repr(f"https://huggingface.co/spaces/{space}") if space else "location.origin + location.pathname"
    return f"""async (query) => {{
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
class Opened:
    """What a link holds: the settings shown, those in the race, and over how many seeds."""

    config: TrainConfig
    race: tuple[TrainConfig, ...] = ()
    num_seeds: int = 1


def write(config: TrainConfig, race: Sequence[TrainConfig] = (), num_seeds: int = 1) -> str:
    """The query of a link, without its question mark: what differs from the defaults, under torch's own names."""
    told = list(config.as_text().items())
    if race:
        told.append((_RACE, ";".join(urlencode(one.as_text()) for one in race)))
    if num_seeds != 1:
        told.append((_SEEDS, str(num_seeds)))
    return urlencode(told)


def read(query: Mapping[str, str]) -> Opened | None:
    """What a link's query holds; None where it holds no setting.

    Raises ValueError with one sentence where it is not one that `write` writes in this version.
    """
    # What is in an address besides: Gradio's own, the language, and where a visitor came from.
    told = {name: text for name, text in query.items() if not name.startswith(("_", "utm_")) and name not in _OTHERS}
    if not told:
        return None
    if sum(map(len, told.values())) > _LONGEST:
        raise UserError("This link does not work: it is too long.")
    race, seeds = told.pop(_RACE, ""), told.pop(_SEEDS, "1")
    try:
        parts = race.split(";") if _RACE in query else []
        if len(parts) > MAX_SETTINGS:
            raise UserError("A race takes up to {most} settings.", most=MAX_SETTINGS)
        if seeds not in map(str, range(1, MAX_SEEDS + 1)):
            raise UserError("A race takes from 1 to {most} seeds.", most=MAX_SEEDS)
        return Opened(
            config=_config(told), race=tuple(_config(dict(parse_qsl(part))) for part in parts), num_seeds=int(seeds)
        )
    except ValueError as error:
        raise UserError("This link does not work here, and the settings are the usual ones: {why}", why=error) from None


def _config(told: Mapping[str, str]) -> TrainConfig:
    return TrainConfig.from_settings(
        {name: parse(name, text) if name in SETTINGS else text for name, text in told.items()}
    )
