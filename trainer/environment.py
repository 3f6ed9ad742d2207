"""What libraries need of the environment when they are imported, where they would otherwise end in a traceback."""

import getpass
import os
import re
from collections.abc import Mapping

from trainer.errors import UserError, first_line

OF_THE_HUB = {"HF_HUB_ETAG_TIMEOUT": 10**6, "HF_HUB_DOWNLOAD_TIMEOUT": 10**6}
"""The variables that the Hub's client reads as whole numbers, each with the largest value that makes sense."""


def check_numbers(variables: Mapping[str, int]) -> None:
    """Raises UserError if one of the variables is set to anything but a whole number from 0 to its largest value."""
    for name, most in variables.items():
        text = os.environ.get(name, "0")
        if not re.fullmatch("[0-9]{1,10}", text) or int(text) > most:
            raise UserError(
                "{variable} must be a whole number from 0 to {most}, not {text}.",
                variable=name,
                most=most,
                text=f"{text[:40]!r}",
            )


def unusable_proxy(error: Exception) -> UserError:
    """Returns the error for proxies in the environment that an HTTP client refuses, as `error` says."""
    return UserError(
        "The proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used ({reason}): write it as http://HOST:PORT or "
        "socks5://HOST:PORT.",
        reason=first_line(error),
    )


def name_user() -> None:
    """Gives the user a name and a home if the system knows none, as in a container: torch and `spaces` need them."""
    try:
        getpass.getuser()
    except (ImportError, KeyError, OSError):
        os.environ["USER"] = "user"
    if os.path.expanduser("~") == "~":  # noqa: PTH111 - Path.home raises
        os.environ["HOME"] = os.sep
