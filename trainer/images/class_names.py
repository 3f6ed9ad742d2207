"""The class names that an image set and a network may have."""

import re
import unicodedata
from collections.abc import Sequence

from trainer.errors import UserError

_MOST_CLASSES, _LONGEST_NAME = 1000, 100


def check_class_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the class names as a tuple.

    Raises UserError unless they are 2 to 1,000 different printable strings of 1 to 100 characters.
    """
    if isinstance(names, str) or not isinstance(names, Sequence) or not 2 <= len(names) <= _MOST_CLASSES:
        raise UserError("There must be from 2 to {most} class names.", most=f"{_MOST_CLASSES:,}")
    for name in names:
        check_class_name(name)
    if len(set(names)) < len(names):
        raise UserError("Two classes have the same name.")
    return tuple(names)


def check_class_name(name: str) -> None:
    """Raises UserError unless the name is a printable string of 1 to 100 characters."""
    printable = isinstance(name, str) and not any(unicodedata.category(letter)[0] == "C" for letter in name)
    if not printable or not name.strip() or len(name) > _LONGEST_NAME:
        raise UserError("A class name must be printable and have from 1 to {most} letters.", most=_LONGEST_NAME)


_DIGITS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
_SIDES = ({"left", "right"}, {"左", "右"}, {"forward", "backward"}, {"clockwise", "counterclockwise"})


def have_sides(names: Sequence[str]) -> bool:
    """Returns whether pictures of these classes change their class in a mirror, as far as the names tell.

    That is so for left and right, and for letters and digits.
    """
    words = [re.findall(r"[^\W\d_]+|\d+", name.lower()) for name in names]
    found = {part for name in words for part in name} | {letter for letter in "左右" if letter in "".join(names)}
    if any(pair <= found for pair in _SIDES):
        return True
    return all(any((len(part) == 1 and part.isascii()) or part in _DIGITS for part in name) for name in words)
