"""Python source as ruff formats it."""

from collections.abc import Mapping
from typing import Any

WIDTH = 110
"""The longest line of a script, unless one name in it is longer."""


def literal(value: Any) -> str:
    """Returns a value as Python source, text in the quotes that ruff prefers."""
    source = repr(value)
    has_no_quotes = isinstance(value, str) and "'" not in value and '"' not in value
    return f'"{source[1:-1]}"' if has_no_quotes else source


def keywords(arguments: Mapping[str, str]) -> list[str]:
    """Returns keyword arguments for `call` from names and their values as source."""
    return [f"{name}={source}" for name, source in arguments.items()]


def call(target: str, arguments: list[str]) -> list[str]:
    """Returns the lines of a call, broken where ruff breaks them."""
    inner = ", ".join(arguments)
    if len(f"{target}({inner})") <= WIDTH:
        return [f"{target}({inner})"]
    if len(inner) + 4 <= WIDTH:
        return [f"{target}(", f"    {inner}", ")"]
    return [f"{target}(", *(f"    {argument}," for argument in arguments), ")"]


def indented(lines: list[str]) -> list[str]:
    """Returns the lines indented by one level."""
    return [f"    {line}" for line in lines]
