"""Small pieces of HTML: notes, advice, progress bars and status lines."""

import html
from collections.abc import Iterable

from ui.i18n.words import translate


def status_line(
    title: str,
    text: str,
    share: float,
    language: str,
    *sentences: str,
    verdict: str = "",
    more: str = "",
    spoken: str = "",
) -> str:
    """The status of a job as HTML: its state, details, a progress bar filled to `share` (0–1), and advice.

    Once there is a `verdict`, which is HTML, it takes the place of the bar, with a quiet line of `more` below. `spoken`
    is the part of the details that a screen reader reads whenever it changes.
    """
    advised = "".join(advice(translate(sentence, language)) for sentence in sentences if sentence)
    title, text = html.escape(translate(title, language)), html.escape(translate(text, language))
    result = f"<h2>{verdict}</h2>{note(more) if more else ''}" if verdict else bar(share, title)
    said = f" data-spoken='{html.escape(spoken, quote=True)}'" if spoken else ""
    return f"<div class='status'{said}><b>{title}</b> {text}{result}{advised}</div>"


def english(content: str) -> str:
    """HTML that a page begins with; in another language it is invisible until the server has sent its words."""
    return f"<div lang='en'>{content}</div>" if content else ""


def note(sentence: str) -> str:
    """A quiet sentence, as HTML."""
    return f"<div class='note'>{html.escape(sentence)}</div>"


def advice(sentence: str) -> str:
    """A highlighted sentence, as HTML."""
    return f"<div class='advice'>{html.escape(sentence)}</div>"


def bar(share: float, name: str) -> str:
    """A progress bar filled to `share` (0–1), as HTML; `name` says what progresses, and is HTML already."""
    percent = 100 * min(1.0, max(0.0, share))
    return (
        f"<div class='track' role='progressbar' aria-label='{name}' aria-valuemin='0' aria-valuemax='100' "
        f"aria-valuenow='{percent:.0f}'><div class='fill' style='width:{percent:.2f}%'></div></div>"
    )


def duration(seconds: float, language: str) -> str:
    """A duration in seconds, minutes or hours, for people to read."""
    if seconds < 90:
        return translate("{number} s", language, number=max(1, round(seconds)))
    if seconds < 5400:
        return translate("{number} min", language, number=f"{seconds / 60:.0f}")
    return translate("{number} h", language, number=f"{seconds / 3600:.1f}")


def table(
    heads: Iterable[str], rows: Iterable[Iterable[object]], language: str, *, highlighted: int | None = None
) -> str:
    """An HTML table in a box of its own; the heads are translated, the cells are HTML."""
    head = "".join(f"<th>{html.escape(translate(name, language))}</th>" for name in heads)
    body = "".join(
        f"<tr{' class=best' if number == highlighted else ''}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for number, row in enumerate(rows)
    )
    content = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class='epochs race' tabindex='0'>{content}</div>"


def keys(named: Iterable[tuple[str, str]], *, winner: int | None = None) -> str:
    """The keys of a legend as HTML, given as (color, name); the name of the `winner` is bold."""
    names = [(color, html.escape(name)) for color, name in named]
    return "".join(
        f"<span class='key'>{swatch(color)}{f'<b>{name}</b>' if index == winner else name}</span>"
        for index, (color, name) in enumerate(names)
    )


def swatch(color: str) -> str:
    """A short line in a color, as HTML; `color` is any CSS background."""
    return f"<i style='background:{color}'></i>"
