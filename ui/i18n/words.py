"""The page's translations. As in gettext, the English sentence is the key; zh.json has the Chinese.

`static` sentences go to the browser, where Gradio replaces what `i18n` has marked; they have no placeholders.
`dynamic` sentences stay on the server for handlers; their placeholders are named: "epoch {epoch} of {epochs}".
"""

import json
from collections.abc import Mapping
from pathlib import Path

import gradio as gr

from trainer.errors import Message

_CHINESE = json.loads((Path(__file__).parent / "zh.json").read_text(encoding="utf-8"))
STATIC: dict[str, str] = _CHINESE["static"]
DYNAMIC: dict[str, str] = _CHINESE["dynamic"]
_ALL = STATIC | DYNAMIC

i18n = gr.I18n(zh=STATIC)


def translate(sentence: str, language: str, **values: object) -> str:
    """Returns the sentence in a language, "en" or "zh", with its placeholders filled by `values`.

    A `Message` has its own template and values. Values that are Messages are translated too; others are not, as they
    may be text of strangers. A sentence without a translation stays English.
    """
    if isinstance(sentence, Message):
        return sentence if language != "zh" else _in_chinese(sentence)
    if language == "zh":
        return _fill(_ALL.get(sentence, sentence), values)
    return _fill(sentence, values, "en")


def in_browser(sentence: str) -> str:
    """A JavaScript expression for a static sentence in the language of the page."""
    return f"(document.documentElement.lang.startsWith('zh') ? {json.dumps(STATIC[sentence])} : {json.dumps(sentence)})"


def script_with(words: Mapping[str, str], path: Path) -> str:
    """Returns the script in a file after a constant for each of the words, which are expressions of `in_browser`."""
    return "".join(f"const {name} = {word};\n" for name, word in words.items()) + path.read_text(encoding="utf-8")


def _in_chinese(message: Message) -> str:
    chinese = _ALL.get(message.template)
    if chinese is None:
        return message
    try:
        filled = _fill(chinese, message.values)
    except LookupError:  # it was read from a file without some of its values
        return message
    # `as_clause` has removed the full stop.
    is_clause = message.template.endswith(".") and not message.endswith(".")
    return filled.removesuffix("。") if is_clause else filled


def _fill(template: str, values: Mapping[str, object], language: str = "zh") -> str:
    if not values:
        return template
    return template.format(
        **{name: translate(value, language) if isinstance(value, Message) else value for name, value in values.items()}
    )
