"""The notice for a visitor: a Space's limits, and whether their runs are kept."""

import math

from ui.i18n.language import current_language
from ui.i18n.words import translate
from ui.lab import Lab
from ui.parts.markup import advice, duration, note


def notice(lab: Lab, visitor: str | None, had_runs: bool) -> str:
    """The sentences for this visitor, as HTML; none on one's own machine, which limits nothing.

    `had_runs`: whether their browser remembers any runs.
    """
    language = current_language()
    sentences = []
    if had_runs and not lab.runs_of(visitor):
        sentences.append(
            advice(
                translate(
                    "Your earlier runs are gone: this app's disk was cleared, or the runs were removed as too old. "
                    "You can load what you published from the Hub.",
                    language,
                )
            )
        )
    if lab.forgets:
        forgetful = "This Space loses its runs when it restarts: publish or download what you want to keep."
        sentences.append(advice(translate(forgetful, language)))
    if rules := _rules(lab, language):
        sentences.append(note(translate("On this Space: {rules}.", language, rules=", ".join(rules))))
    return "".join(sentences)


def _rules(lab: Lab, language: str) -> list[str]:
    limits = lab.limits
    rules = (
        ("up to {number} epochs a run", limits.epochs, "{:g}".format),
        ("{number} of training at a time", limits.seconds, lambda seconds: duration(seconds, language)),
        ("{number} runs for each visitor", limits.runs, "{:g}".format),
        ("kept for {number} days", limits.days, "{:g}".format),
    )
    return [translate(rule, language, number=text(limit)) for rule, limit, text in rules if math.isfinite(limit)]
