"""Which Hub token is used for which request."""

import pytest
from visitor import LOGIN, OWNER, VISITOR, request_from, signed_in

from ui.login import Login, current_login, own_token
from ui.tabs.train.publish import token_to_publish


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    for name in ("SPACE_ID", "SYSTEM", *LOGIN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", OWNER)


@pytest.fixture
def space(monkeypatch):
    for name, value in {"SPACE_ID": "owner/lab", "SYSTEM": "spaces", **LOGIN}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("client", "host", "is_local"),
    [
        ("127.0.0.1", "127.0.0.1:7860", True),
        ("::1", "[::1]:7860", True),
        ("127.0.0.1", "localhost", True),
        ("192.168.1.7", "192.168.1.2:7860", False),
        ("192.168.1.7", "localhost:7860", False),
        ("127.0.0.1", "0123456789.gradio.live", False),
        ("127.0.0.1", "[", False),
        ("x", "", False),
        ("", "localhost", False),
    ],
)
def test_the_owners_token_serves_local_browsers_only(client, host, is_local):
    """Browsers on the same network or at the end of a tunnel neither read nor publish with it."""
    with request_from(client, host):
        assert own_token() == (OWNER if is_local else None)
        if is_local:
            assert token_to_publish() == OWNER
        else:
            with pytest.raises(ValueError, match="Only a browser on the computer"):
                token_to_publish()


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "via"])
def test_a_proxy_on_this_computer_is_not_a_local_browser(header):
    """It may use the name of this computer for requests from anywhere."""
    with request_from(**{header: "192.0.2.1"}):
        assert own_token() is None


def test_code_outside_of_an_event_has_no_token():
    assert own_token() is None


def test_on_a_space_a_signed_in_visitor_has_their_own_token(space):
    with request_from(session=signed_in()):
        assert current_login() == Login(VISITOR, "visitor")
        assert own_token() == token_to_publish() == VISITOR


@pytest.mark.parametrize("session", [{}, signed_in(-1.0)])
def test_on_a_space_visitors_never_get_the_owners_token(space, session):
    """Before they sign in, and after their login has expired, they have none."""
    with request_from(session=session):
        assert own_token() is None
        with pytest.raises(ValueError, match="Sign in with Hugging Face first"):
            token_to_publish()


def test_a_space_without_a_login_refuses_to_publish(space, monkeypatch):
    """The error says so; a session is not accepted as a login, whatever it contains."""
    monkeypatch.delenv("OAUTH_CLIENT_SECRET")
    with request_from(session=signed_in()):
        assert own_token() is None
        with pytest.raises(ValueError, match="This Space has no login"):
            token_to_publish()
