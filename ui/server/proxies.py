"""The proxies that the environment names: the Hub is reached through them, the app itself is not."""

import os
from contextlib import suppress
from ipaddress import ip_address

import httpx

from trainer.environment import unusable_proxy


def reach_itself() -> None:
    """Excludes the app's own address from the proxies: Gradio requests it at the start, and a proxy cannot reach it.

    Leaves out of NO_PROXY what Gradio's HTTP client would refuse with a traceback, as it does any network of IPv6. Call
    it before Gradio is imported, which creates a client. Raises UserError if a proxy cannot be used.
    """
    excluded = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    own = ("localhost", "127.0.0.1", "::1", os.environ.get("GRADIO_SERVER_NAME", ""))
    hosts = filter(_can_be_excluded, (host.strip(" []") for host in (*excluded.split(","), *own)))
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(hosts)
    try:
        httpx.Client(verify=False).close()  # noqa: S501 - it sends nothing, and loading certificates takes long
    except (httpx.InvalidURL, ValueError) as error:
        raise unusable_proxy(error) from None


def _can_be_excluded(host: str) -> bool:
    with suppress(ValueError):
        ip_address(host)
        return True
    try:
        httpx.URL(f"all://*{host}")
    except (httpx.InvalidURL, UnicodeError):
        return False
    return host != ""
