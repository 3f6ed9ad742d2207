"""Whose token of the Hub is at hand: that of a visitor who signed in, or of whoever runs the app, for themselves."""

import ipaddress
import os
from typing import NamedTuple
from urllib.parse import urlsplit

import gradio as gr
import huggingface_hub
from gradio.context import LocalContext
from gradio.helpers import special_args
from gradio.utils import get_space

_THIS_COMPUTER = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104 - names in a browser's address
_ADDED_BY_PROXIES = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
# What Gradio's login asks for, where a Space's README says `hf_oauth: true`
# (https://huggingface.co/docs/hub/spaces-oauth).
_SETTINGS = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")


class Login(NamedTuple):
    """Who signed in on a Space."""

    token: str
    name: str


def has_login() -> bool:
    """Whether Gradio can let visitors sign in: only on a Space; elsewhere it plays a login with a token of no worth."""
    return get_space() is not None and all(os.environ.get(name) for name in _SETTINGS)


def current_login() -> Login | None:
    """Who signed in on the page whose event is being handled; None where nobody did, or it was too long ago."""
    if not has_login():
        return None
    # By Gradio's own rule, but for the parameters of a handler: it looks at those of no functools.partial.
    (token, profile), *_ = special_args(_takes, [], LocalContext.request.get(None))
    return Login(token.token, profile.username) if token and profile else None


def own_token() -> str | None:
    """The token of whoever sent the event that is being handled; None where there is none.

    On a Space that of the visitor who signed in; elsewhere that of whoever runs the app, in a browser beside it alone.
    """
    if os.environ.get("SPACE_ID"):
        login = current_login()
        return login.token if login else None
    return huggingface_hub.get_token() if is_beside() else None


def is_beside() -> bool:
    """Whether the page is open in a browser on the computer that runs the app.

    The name by which it was asked for, and what a proxy adds, tell a proxy or a tunnel that ends on this computer; one
    that passes on bytes, as ssh -R does, cannot be told from the browser beside the app.
    """
    request = LocalContext.request.get(None)
    if request is None or request.client is None or any(name in request.headers for name in _ADDED_BY_PROXIES):
        return False
    try:
        asked_for = urlsplit(f"//{request.headers.get('host', '')}").hostname
        return ipaddress.ip_address(request.client.host).is_loopback and asked_for in _THIS_COMPUTER
    except ValueError:
        return False


def _takes(token: gr.OAuthToken | None, profile: gr.OAuthProfile | None) -> None:
    """What a handler would have to look like for Gradio to hand it a login."""
