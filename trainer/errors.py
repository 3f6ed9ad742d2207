"""Sentences for the user: each remembers the template it was made from, so that a page can translate it."""

import re
from collections.abc import Mapping
from typing import Any


class Message(str):
    """An English sentence, made from a template with named placeholders: Message("epoch {epoch}", epoch=3).

    It is an ordinary string wherever one is expected. A translator looks up `template` and fills it with `values`, of
    which those that are Messages themselves are translated in turn.
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
        return self  # str() keeps the template, also of an exception that holds a Message

    def __reduce__(self) -> tuple:
        return Message._of, (str.__str__(self), self.template, dict(self.values))

    def to_json(self) -> dict[str, Any]:
        """Returns the message as data for JSON, from which `from_json` makes it again."""
        values = {name: value.to_json() if isinstance(value, Message) else value for name, value in self.values.items()}
        return {"text": self, "template": self.template, "values": values}

    @classmethod
    def from_json(cls, data: Any, depth: int = 3) -> "Message":
        """Makes a message of what `to_json` returned. The data is not trusted: no template is filled in.

        Raises ValueError if it is anything else.
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
    """A mistake that the user can correct, told in one sentence: UserError("There is no run in {folder}.", folder=…).

    `str(error)` is a `Message`.
    """

    def __init__(self, template: str, /, **values: Any):
        super().__init__(Message(template, **values))


def first_line(error: object) -> str:
    """An error's message, as far as a sentence takes it; its type where it has none."""
    # strerror comes without the path, which is nobody's business on a public page.
    message = getattr(error, "strerror", None) or re.sub(r"^\[Errno -?\d+\] ", "", str(error).strip())
    return message.partition("\n")[0].rstrip(".")[:200] or type(error).__name__


def as_clause(sentence: object, *, capital: bool = False) -> str:
    """A whole sentence as part of a longer one: without its full stop and, unless it comes first, its `capital`."""
    text = str(sentence)
    clause = text.removesuffix(".")
    clause = clause if capital else clause[:1].lower() + clause[1:]
    return Message._of(clause, text.template, text.values) if isinstance(text, Message) else clause
