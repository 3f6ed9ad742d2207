"""The page's words in Chinese. An English sentence is its own key, as in gettext; zh.json holds what it becomes.

`static` words go to the browser, where Gradio puts them in place of what `i18n` marks; they have no placeholders.
`dynamic` words stay here, for what handlers say; their placeholders are named: "epoch {epoch} of {epochs}".
"""

import json
from collections.abc import Mapping
from pathlib import Path

import gradio as gr

from trainer.errors import Message

_CHINESE = json.loads((Path(__file__).parent / "zh.json").read_text(encoding="utf-8"))
STATIC: dict[str, str] = _CHINESE["static"]
DYNAMIC: dict[str, str] = _CHINESE["dynamic"]
_WORDS = STATIC | DYNAMIC

i18n = gr.I18n(zh=STATIC)


def translate(sentence: str, language: str, **values: object) -> str:
    """Returns the sentence in a language, "en" or "zh", its placeholders filled with `values`.

    A `Message` brings its own template and values. Values that are Messages are translated in turn; all others, which
    may be a stranger's words, stay as they are. A sentence that has no Chinese stays English.
    """
    if isinstance(sentence, Message):
        return sentence if language != "zh" else _in_chinese(sentence)
    if language == "zh":
        return _fill(_WORDS.get(sentence, sentence), values)
    return _fill(sentence, values, "en")


def in_browser(sentence: str) -> str:
    """A JavaScript expression for a script of the page: a static sentence in the language that the page is in."""
    return f"(document.documentElement.lang.startsWith('zh') ? {json.dumps(STATIC[sentence])} : {json.dumps(sentence)})"


def _in_chinese(message: Message) -> str:
    chinese = _WORDS.get(message.template)
    if chinese is None:
        return message
    try:
        filled = _fill(chinese, message.values)
    except LookupError:  # read from a file that lacks some of its values
        return message
    is_clause = message.template.endswith(".") and not message.endswith(".")
    return filled.removesuffix("。") if is_clause else filled


def _fill(template: str, values: Mapping[str, object], language: str = "zh") -> str:
    if not values:
        return template
    return template.format(
        **{name: translate(value, language) if isinstance(value, Message) else value for name, value in values.items()}
    )
