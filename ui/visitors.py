"""The keys that identify visitors, and what stands for them in the app's files."""

import hashlib
import secrets
from typing import Any

from trainer.errors import UserError
from ui.run_index import is_key


def new_visitor() -> str:
    """Returns a key for a browser without one: 128 random bits."""
    return secrets.token_hex(16)


def checked_visitor(value: Any) -> str:
    """Returns the visitor's key. Raises UserError if a request contains something else."""
    if not is_key(value):
        raise UserError("This browser is not known here; reload the page.")
    return value


def digest_of(visitor: str) -> str:
    """Returns what stands for a visitor in the app's files, which do not hold the key itself."""
    return hashlib.sha256(visitor.encode()).hexdigest()
