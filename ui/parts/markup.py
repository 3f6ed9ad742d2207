"""Small pieces of HTML: notes, advice, progress bars and status lines."""

import html

from ui.i18n.words import translate


def status_line(title: str, text: str, share: float, language: str, *sentences: str) -> str:
    """The status of a job as HTML: its state, details, a progress bar filled to `share` (0–1), and advice."""
    advised = "".join(advice(translate(sentence, language)) for sentence in sentences if sentence)
    title, text = html.escape(translate(title, language)), html.escape(translate(text, language))
    return f"<div class='status'><b>{title}</b> {text}{bar(share)}{advised}</div>"


def note(sentence: str) -> str:
    """A quiet sentence, as HTML."""
    return f"<div class='note'>{html.escape(sentence)}</div>"


def advice(sentence: str) -> str:
    """A highlighted sentence, as HTML."""
    return f"<div class='advice'>{html.escape(sentence)}</div>"


def bar(share: float) -> str:
    """A progress bar filled to `share` (0–1), as HTML."""
    percent = 100 * min(1.0, max(0.0, share))
    return (
        f"<div class='track' role='progressbar' aria-valuemin='0' aria-valuemax='100' aria-valuenow='{percent:.0f}'>"
        f"<div class='fill' style='width:{percent:.2f}%'></div></div>"
    )


def duration(seconds: float, language: str) -> str:
    """A duration in seconds, minutes or hours, for people to read."""
    if seconds < 90:
        return translate("{number} s", language, number=max(1, round(seconds)))
    if seconds < 5400:
        return translate("{number} min", language, number=f"{seconds / 60:.0f}")
    return translate("{number} h", language, number=f"{seconds / 3600:.1f}")
