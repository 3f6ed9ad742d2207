"""The Hub token for an event: that of the signed-in visitor or, in a local browser, of the person who runs the app."""

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
# The environment variables of Gradio's login, set if a Space's README says `hf_oauth: true`
# (https://huggingface.co/docs/hub/spaces-oauth).
_SETTINGS = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")


class Login(NamedTuple):
    """A visitor who signed in on a Space."""

    token: str
    name: str


def has_login() -> bool:
    """Whether Gradio can let visitors sign in: only on a Space. Elsewhere its login is a mock with an invalid token."""
    return get_space() is not None and all(os.environ.get(name) for name in _SETTINGS)


def current_login() -> Login | None:
    """The login of the page whose event is being handled; None without one, or if it has expired."""
    if not has_login():
        return None
    # Gradio fills such parameters only of a handler that is a plain function, not of a functools.partial.
    (token, profile), *_ = special_args(_login_parameters, [], LocalContext.request.get(None))
    return Login(token.token, profile.username) if token and profile else None


def own_token() -> str | None:
    """The token for the event that is being handled; None if there is none.

    On a Space it is the token of the visitor who signed in; elsewhere that of the person who runs the app, but only for
    a browser on the same computer.
    """
    if os.environ.get("SPACE_ID"):
        login = current_login()
        return login.token if login else None
    return huggingface_hub.get_token() if is_local_browser() else None


def is_local_browser() -> bool:
    """Whether the page is open in a browser on the computer that runs the app.

    The requested host name and the headers that a proxy adds reveal a proxy or a tunnel that ends on this computer. One
    that forwards bytes, as ssh -R does, cannot be distinguished from a local browser.
    """
    request = LocalContext.request.get(None)
    if request is None or request.client is None or any(name in request.headers for name in _ADDED_BY_PROXIES):
        return False
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname
        return ipaddress.ip_address(request.client.host).is_loopback and host in _THIS_COMPUTER
    except ValueError:
        return False


def _login_parameters(token: gr.OAuthToken | None, profile: gr.OAuthProfile | None) -> None:
    """Has the signature to which Gradio passes a login."""
