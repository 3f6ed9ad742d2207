"""A visitor whose request a handler serves: the settings of a login on a Space, its tokens and its session."""

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
def asked(client="127.0.0.1", host="127.0.0.1:7860", session=None, **headers):
    """As a handler finds the request that it serves."""
    facts = SimpleNamespace(
        client=SimpleNamespace(host=client) if client else None,
        headers={"host": host, **headers},
        session=session or {},
    )
    kept = LocalContext.request.set(facts)
    try:
        yield
    finally:
        LocalContext.request.reset(kept)


def signed_in(seconds=3600.0):
    """The session of a visitor whose login holds for some seconds, as Gradio keeps it."""
    user = {"name": "A Visitor", "preferred_username": "visitor", "profile": "", "picture": ""}
    expires_at = time.time() + seconds
    return {"oauth_info": {"access_token": VISITOR, "scope": "", "expires_at": expires_at, "userinfo": user}}
