"""Sentences for the user: each keeps the template that it was made from, so that the page can translate it."""

import re
from collections.abc import Mapping
from typing import Any

_LONGEST = 500


class Message(str):
    """An English sentence, made from a template with named placeholders: Message("epoch {epoch}", epoch=3).

    It is an ordinary string. A translator looks up `template` and fills it with `values`; values that are Messages are
    translated too.
    """

    template: str
    values: Mapping[str, Any]

    def __new__(cls, template: str, /, **values: Any) -> "Message":
        if isinstance(template, Message):
            return template
        return cls._of(template.format(**values) if values else template, template, values)

    @classmethod
    def _of(cls, text: str, template: str, values: Mapping[str, Any]) -> "Message":
        message = super().__new__(cls, text)
        message.template, message.values = template, values
        return message

    def __str__(self) -> str:
        return self  # so that str() keeps the template, also for an exception with a Message

    def __reduce__(self) -> tuple[Any, ...]:
        return Message._of, (str.__str__(self), self.template, dict(self.values))

    def to_json(self) -> dict[str, Any]:
        """Returns the message as JSON data, which `from_json` reads."""
        values = {name: value.to_json() if isinstance(value, Message) else value for name, value in self.values.items()}
        return {"text": self, "template": self.template, "values": values}

    @classmethod
    def from_json(cls, data: Any, depth: int = 3) -> "Message":
        """Returns the message of the data that `to_json` returned. Raises ValueError for any other data.

        The data is not trusted: no template is filled in, and messages are nested at most `depth` deep.
        """
        match data:
            case {"text": str(text), "template": str(template), "values": dict(values)} if depth:
                known = {
                    name: cls.from_json(value, depth - 1) if isinstance(value, dict) else value
                    for name, value in values.items()
                }
                if all(isinstance(value, (str, int, float)) for value in known.values()):
                    return cls._of(text, template, known)
        raise ValueError("This is no message.")


class UserError(ValueError):
    """A mistake that the user can correct, as one sentence: UserError("There is no run in {folder}.", folder=…).

    `str(error)` is a `Message`.
    """

    def __init__(self, template: str, /, **values: Any) -> None:
        super().__init__(Message(template, **values))


BROKEN = Message("Something in the app went wrong; its log says what.")
"""What the user reads in place of any other error, which is logged."""


def first_line(error: object) -> str:
    """Returns the first line of an error's message without a full stop, at most 200 characters, or its type's name."""
    # strerror omits the path, which a public page must not reveal.
    message = getattr(error, "strerror", None) or re.sub(r"^\[Errno -?\d+\] ", "", str(error).strip())
    return message.partition("\n")[0].rstrip(".")[:200] or type(error).__name__


def for_terminal(text: str) -> str:
    """Returns a text, which may quote what a user gave, as one line; without its middle if it is long."""
    short = text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in short)


def as_clause(sentence: object, *, capital: bool = False) -> str:
    """Returns a sentence as a part of a longer one: without its full stop and, unless `capital`, in lower case."""
    text = str(sentence)
    clause = text.removesuffix(".")
    clause = clause if capital else clause[:1].lower() + clause[1:]
    return Message._of(clause, text.template, text.values) if isinstance(text, Message) else clause
