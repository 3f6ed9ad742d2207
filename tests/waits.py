"""The lines on stderr that a slow start adds."""

import re


def without_waits(stderr: str) -> str:
    """Returns what a command wrote on stderr without the lines that it writes during a long wait."""
    return re.sub(r"^.*( …| \\u2026|: \d+%)\n", "", stderr, flags=re.MULTILINE)
