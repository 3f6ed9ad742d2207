"""What the app logs: unexpected errors without the visitor's token, and which records of which libraries."""

import subprocess
import sys
from pathlib import Path

import anyio
import gradio as gr
import pytest
from gradio.context import LocalContext
from visitor import LOGIN, VISITOR, request_from, signed_in

from trainer.errors import UserError
from ui.parts.messages import end_in_status, with_api_errors, with_page_errors


@pytest.fixture
def space(monkeypatch):
    for name, value in {"SPACE_ID": "owner/lab", "SYSTEM": "spaces", **LOGIN}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("session", [{}, signed_in()])
def test_an_unexpected_error_is_logged_without_the_visitors_token(space, session, caplog):
    """The log contains the traceback, with the token replaced if the error contains it."""
    status = gr.HTML()

    def handler():
        yield {status: "begun"}
        token = session["oauth_info"]["access_token"] if session else "none"
        try:
            raise KeyError(f"Authorization: Bearer {token}")
        except KeyError as error:
            raise RuntimeError(f"The request with {token} failed") from error

    with request_from(session=session):
        LocalContext.request.get().query_params = {}
        page = end_in_status(handler, status, title="Not trained", broken="Something in the app went wrong.")
        begun, ended = page()
    assert begun == {status: "begun"}
    assert "Something in the app went wrong." in ended[status]
    assert "RuntimeError: The request with" in caplog.text
    assert "KeyError: " in caplog.text
    assert VISITOR not in caplog.text
    assert ("Bearer …" in caplog.text) == bool(session)
    assert all(record.exc_info is None for record in caplog.records)


@pytest.mark.parametrize("wrap", [with_page_errors, with_api_errors])
@pytest.mark.parametrize("kind", ["function", "generator", "coroutine"])
@pytest.mark.parametrize("error", [ValueError, KeyError])
def test_the_text_of_an_unexpected_error_does_not_reach_the_visitor(wrap, kind, error, caplog):
    """It is logged; the visitor reads one general sentence. A bare ValueError, a library's, is unexpected too."""

    def function():
        raise error("secret")

    def generator():
        yield from function()

    async def coroutine():
        function()

    handlers = {
        "function": wrap(function),
        "generator": lambda: list(wrap(generator)()),
        "coroutine": lambda: anyio.run(wrap(coroutine)),
    }
    with pytest.raises(gr.Error, match="Something in the app went wrong") as refused:
        handlers[kind]()
    assert "secret" not in refused.value.message
    assert f"{error.__name__}: " in caplog.text


def test_a_bare_value_error_is_not_shown_in_the_status(caplog):
    """Only a UserError is."""
    status = gr.HTML()

    def handler(error):
        raise error("a secret.")
        yield

    page = end_in_status(handler, status, title="Not trained", broken="Something in the app went wrong.")
    ((_, broken),) = next(page(ValueError)).items()
    ((_, explained),) = next(page(UserError)).items()
    assert "secret" not in broken
    assert "a secret." in explained
    assert "ValueError: a secret." in caplog.text


@pytest.mark.slow
def test_the_app_logs_to_stderr():
    """Its own records from INFO, and those of other libraries from WARNING: httpx logs signed addresses at INFO."""
    code = (
        "import logging, app; app.log_to_stderr();"
        "[logging.getLogger(name).info('From %s', name) for name in ('ui.lab', 'trainer.images.image_data', 'httpx')];"
        "logging.getLogger('httpx').warning('Beware')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "INFO ui.lab: From ui.lab",
        "INFO trainer.images.image_data: From trainer.images.image_data",
        "WARNING httpx: Beware",
    ]
