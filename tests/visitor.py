"""A visitor's request to a handler: the environment of a Space with a login, its tokens and the visitor's session."""

import time
from contextlib import contextmanager
from types import SimpleNamespace

from gradio.context import LocalContext

OWNER, VISITOR = "hf_owner", "hf_visitor"
LOGIN = {
    "OAUTH_CLIENT_ID": "the-app",
    "OAUTH_CLIENT_SECRET": "secret",
    "OAUTH_SCOPES": "openid profile contribute-repos",
    "OPENID_PROVIDER_URL": "http://127.0.0.1:9",
}


@contextmanager
def request_from(client="127.0.0.1", host="127.0.0.1:7860", session=None, **headers):
    """Sets Gradio's current request, as a handler sees it, until the with block ends."""
    request = SimpleNamespace(
        client=SimpleNamespace(host=client) if client else None,
        headers={"host": host, **headers},
        session=session or {},
    )
    reset = LocalContext.request.set(request)
    try:
        yield
    finally:
        LocalContext.request.reset(reset)


def signed_in(seconds=3600.0):
    """Returns the session, as Gradio stores it, of a visitor whose login expires after `seconds`."""
    user = {"name": "A Visitor", "preferred_username": "visitor", "profile": "", "picture": ""}
    expires_at = time.time() + seconds
    return {"oauth_info": {"access_token": VISITOR, "scope": "", "expires_at": expires_at, "userinfo": user}}
