"""What a visitor should know before anything is lost: a Space's limits, and what becomes of their runs."""

import math

from ui.i18n.language import current_language
from ui.i18n.words import translate
from ui.lab import Lab
from ui.parts.markup import advice, duration, note


def notice(lab: Lab, visitor: str | None, had_runs: bool) -> str:
    """The sentences that hold here for this visitor, as HTML; none on one's own machine, where nothing is limited.

    `had_runs` is what their browser remembers.
    """
    language = current_language()
    sentences = []
    if had_runs and not lab.runs_of(visitor):
        sentences.append(
            advice(
                translate(
                    "Your earlier runs are gone: the disk of this app was emptied, or they were cleared for their age. "
                    "What you published on the Hub can be loaded from there.",
                    language,
                )
            )
        )
    if lab.forgets:
        forgetful = "This Space forgets its runs when it restarts: publish or download what you want to keep."
        sentences.append(advice(translate(forgetful, language)))
    if rules := _rules(lab, language):
        sentences.append(note(translate("On this Space: {rules}.", language, rules=", ".join(rules))))
    return "".join(sentences)


def remember(key: str | None) -> bool:
    """What the browser is to remember once the list of the visitor's runs has changed: whether they have any."""
    return bool(key)


def _rules(lab: Lab, language: str) -> list[str]:
    limits = lab.limits
    told = (
        ("up to {number} epochs a run", limits.epochs, "{:g}".format),
        ("{number} of training at a time", limits.seconds, lambda seconds: duration(seconds, language)),
        ("{number} runs for each visitor", limits.runs, "{:g}".format),
        ("kept for {number} days", limits.days, "{:g}".format),
    )
    return [translate(rule, language, number=say(limit)) for rule, limit, say in told if math.isfinite(limit)]
