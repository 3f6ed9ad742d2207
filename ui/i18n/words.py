"""The page's words in Chinese. An English sentence is its own key, as in gettext; zh.json holds what it becomes.

`static` words go to the browser, where Gradio puts them in place of what `i18n` marks; they have no placeholders.
`dynamic` words stay here, for what handlers say; their placeholders are named: "epoch {epoch} of {epochs}".
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import gradio as gr

_CHINESE = json.loads((Path(__file__).parent / "zh.json").read_text(encoding="utf-8"))
STATIC: dict[str, str] = _CHINESE["static"]
DYNAMIC: dict[str, str] = _CHINESE["dynamic"]
_WORDS = STATIC | DYNAMIC

i18n = gr.I18n(zh=STATIC)

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
# These hold the app's own words.
_IN_TURN = {"cure", "hub", "own", "range", "reason", "torchvision", "what", "when", "where", "why"}
_LONGEST_MATCHED = 600  # letters of a sentence: nothing that the app says is longer


class _Form(NamedTuple):
    """A sentence with placeholders: its words, the names between them, and the Chinese."""

    words: list[str]
    names: list[str]
    chinese: str
    is_whole: bool


def translate(sentence: str, language: str, **values: object) -> str:
    """The sentence in a language ("en" or "zh"), its placeholders filled with `values`; English where it has no other.

    Given no values, a finished English sentence is known by its form: "Choose one of these: a, b." by
    "Choose one of these: {names}.". A {reason} and its like are sentences or clauses, and translated in turn.
    """
    if language != "zh":
        return sentence.format(**values) if values else sentence
    if not values:
        return _WORDS.get(sentence) or _by_form(sentence, [form for form in _FORMS if form.is_whole]) or sentence
    return _fill(_WORDS[sentence], values) if sentence in _WORDS else sentence.format(**values)


def in_browser(sentence: str) -> str:
    """A JavaScript expression for a script of the page: a static sentence in the language that the page is in."""
    return f"(document.documentElement.lang.startsWith('zh') ? {json.dumps(STATIC[sentence])} : {json.dumps(sentence)})"


def _fill(chinese: str, values: Mapping[str, object]) -> str:
    return chinese.format(**{name: _part(str(value)) if name in _IN_TURN else value for name, value in values.items()})


def _part(text: str) -> str:
    """What stands in a sentence: an entry, or a whole sentence that goes on as a clause."""
    as_whole = f"{text[:1].upper()}{text[1:]}."
    if chinese := _WORDS.get(text) or _by_form(text, _FORMS):
        return chinese
    return (_WORDS.get(as_whole) or _by_form(as_whole, _FORMS) or text).removesuffix("。")


def _by_form(sentence: str, forms: Iterable[_Form]) -> str | None:
    if len(sentence) > _LONGEST_MATCHED:
        return None
    for form in forms:
        if (values := _read(sentence, form)) is not None:
            return _fill(form.chinese, values)
    return None


def _read(sentence: str, form: _Form) -> dict[str, str] | None:
    """The values in the placeholders, each as short as can be and never empty; None where the form is another.

    Words looked for from the left, and the last ones at the end, need no way back. Regular expressions, which go
    back, take seconds over a stranger's text that almost fits.
    """
    first, *between, last = form.words
    if not (sentence.startswith(first) and sentence.endswith(last)):
        return None
    begin, end = len(first), len(sentence) - len(last)
    values = []
    for words in between:
        at = sentence.find(words, begin + 1, end)
        if at < 0:
            return None
        values.append(sentence[begin:at])
        begin = at + len(words)
    return dict(zip(form.names, [*values, sentence[begin:end]], strict=True)) if begin < end else None


def _form(english: str, chinese: str) -> _Form:
    parts = _PLACEHOLDER.split(english)
    # "{number} s" says too little to know a finished sentence by.
    return _Form(parts[::2], parts[1::2], chinese, is_whole=bool(parts[0]) or english.endswith("."))


# The form that says most itself comes first: a sentence may have several.
_FORMS = [
    _form(english, chinese)
    for english, chinese in sorted(DYNAMIC.items(), key=lambda entry: -len(_PLACEHOLDER.sub("", entry[0])))
    if _PLACEHOLDER.search(english)
]
