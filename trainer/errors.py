"""Errors as parts of the sentences that people read."""

import re


def first_line(error: object) -> str:
    """An error's message, as far as a sentence takes it; its type where it has none."""
    # strerror comes without the path, which is nobody's business on a public page.
    message = getattr(error, "strerror", None) or re.sub(r"^\[Errno -?\d+\] ", "", str(error).strip())
    return message.partition("\n")[0].rstrip(".")[:200] or type(error).__name__


def as_clause(sentence: object) -> str:
    """A whole sentence, to go on with after a comma or a colon."""
    text = str(sentence).removesuffix(".")
    return text[:1].lower() + text[1:]
