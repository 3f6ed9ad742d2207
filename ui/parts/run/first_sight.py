"""The recorded race, which the page shows to a visitor without runs, and its result in one sentence."""

import logging
from dataclasses import replace
from functools import lru_cache

from trainer.errors import UserError
from trainer.networks.pretrained import BUNDLED
from trainer.runs.comparison import Contender, compare
from trainer.runs.recorded import read_race
from trainer.runs.run import Run
from ui.i18n.words import translate

_FILE = BUNDLED / "race.json"
_NAMES = {"sgd": "SGD", "adamw": "AdamW", "muon": "Muon"}

_logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def contenders() -> list[Contender]:
    """The optimizers of the recorded race, the most accurate first; [] if the file is missing or damaged."""
    try:
        compared = compare(read_race(_FILE))
    except UserError:
        _logger.exception("The recorded race cannot be read.")
        return []
    named = [replace(one, label=_name(one)) for one in compared if one.accuracy]
    return sorted(named, key=lambda one: -(one.accuracy.mean if one.accuracy else 0.0))


def runs_with_layers() -> list[Run]:
    """The runs of the recorded race if their layers were measured, else []."""
    return [run for one in contenders() for run in one.runs if run.layers]


def headline(language: str) -> str:
    """The result of the recorded race in one sentence."""
    winner, *others = [(_name(one), f"{one.accuracy.mean:.1%}") for one in contenders() if one.accuracy]
    return translate(
        "Same network, same pictures, same start: after {epochs} epochs {winner} gets {share} of the test pictures "
        "right, {others}.",
        language,
        epochs=contenders()[0].epoch,
        winner=winner[0],
        share=winner[1],
        others=("、" if language == "zh" else ", ").join(f"{name} {share}" for name, share in others),
    )


def _name(one: Contender) -> str:
    optimizer = one.runs[0].config.optimizer
    return _NAMES.get(optimizer, optimizer)
