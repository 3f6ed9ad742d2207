"""The page's words in Chinese. An English sentence is its own key, as in gettext; zh.json holds what it becomes.

`static` words go to the browser, where Gradio puts them in place of what `i18n` marks; they have no placeholders.
`dynamic` words stay here, for what handlers say; their placeholders are named: "epoch {epoch} of {epochs}".
"""

import json
import re
from pathlib import Path

import gradio as gr

_CHINESE = json.loads((Path(__file__).parent / "zh.json").read_text(encoding="utf-8"))
STATIC: dict[str, str] = _CHINESE["static"]
DYNAMIC: dict[str, str] = _CHINESE["dynamic"]
_WORDS = STATIC | DYNAMIC

i18n = gr.I18n(zh=STATIC)

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_LONGEST_MATCHED = 600  # letters of a sentence: nothing that the app says is longer


def translate(sentence: str, language: str, **values: object) -> str:
    """The sentence in a language ("en" or "zh"), its placeholders filled with `values`; English where it has no other.

    Given no values, a finished English sentence is known by its form: "Choose one of these: a, b." by
    "Choose one of these: {names}.", and what stands in its placeholders is translated in turn.
    """
    if language != "zh":
        return sentence.format(**values) if values else sentence
    if sentence in _WORDS:
        return _WORDS[sentence].format(**values) if values else _WORDS[sentence]
    return sentence.format(**values) if values else _by_form(sentence)


def _by_form(sentence: str) -> str:
    if len(sentence) > _LONGEST_MATCHED:
        return sentence
    for form, chinese in _FORMS:
        if found := form.fullmatch(sentence):
            return chinese.format(**{name: translate(part, "zh") for name, part in found.groupdict().items()})
    return sentence


def _form(sentence: str) -> re.Pattern[str]:
    parts = _PLACEHOLDER.split(sentence)
    named = [re.escape(part) if at % 2 == 0 else f"(?P<{part}>.+?)" for at, part in enumerate(parts)]
    return re.compile("".join(named), re.DOTALL)


# The form that says most itself comes first: a sentence may have several.
_FORMS = [
    (_form(sentence), DYNAMIC[sentence])
    for sentence in sorted(DYNAMIC, key=lambda known: -len(_PLACEHOLDER.sub("", known)))
    if _PLACEHOLDER.search(sentence)
]
