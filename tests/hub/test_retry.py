"""Calls to the Hub: retries, timeouts, and the sentence for each error."""

import json
import re
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from trainer.hub import retry


def refusal(status, headers=None, message=None):
    request = httpx2.Request("GET", "http://hub/x", headers={"authorization": "Bearer hf_secret"})
    response = httpx2.Response(status, headers=headers or {}, request=request)
    return HfHubHTTPError("x", response=response, server_message=message)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)


def failing(*errors):
    """Returns a function that raises these errors, one at each call, and then returns the number of calls."""
    calls_made = []

    def call():
        calls_made.append(None)
        if len(calls_made) <= len(errors):
            raise errors[len(calls_made) - 1]
        return len(calls_made)

    return call


@pytest.mark.parametrize(
    "error",
    [*(refusal(status) for status in (408, 429, 500, 502, 503, 504)), httpx2.ReadError("x"), retry.AnswerError("x")],
)
def test_transient_errors_are_retried(error, monkeypatch):
    """Server errors and lost answers are retried, for a limited time."""
    assert retry.call(failing(error, error)) == 3
    monkeypatch.setattr(retry, "RETRY_SECONDS", 0.2)
    with pytest.raises(type(error)):
        retry.call(failing(*[error] * 1000))


@pytest.mark.parametrize("error", [*(refusal(status) for status in (400, 401, 403, 404, 409, 412)), OSError("x")])
def test_other_errors_are_not_retried(error):
    """A refusal is raised at the first call."""
    with pytest.raises(type(error)):
        retry.call(failing(error))


def test_checked_token():
    """None is anonymous; a token that no header can carry is refused, without repeating it."""
    assert retry.checked_token(None) is False
    assert retry.checked_token("hf_aZ09") == "hf_aZ09"
    for malformed in ("hf_née", "hf_a b", "hf_a\n", "hf_a\r\nHost: x", "\u202ehf_a"):
        with pytest.raises(ValueError, match="is malformed") as error:
            retry.checked_token(malformed)
        assert "hf_" not in str(error.value)


def test_an_unreadable_answer():
    """Invalid or incomplete JSON becomes an AnswerError; errors that the client has wrapped are unwrapped."""
    for error in (KeyError("commitOid"), TypeError("x")):
        with pytest.raises(retry.AnswerError):
            retry.call_once(failing(error))
    wrapped = RuntimeError("Error while uploading")
    wrapped.__cause__ = refusal(403)
    with pytest.raises(HfHubHTTPError):
        retry.call_once(failing(wrapped))


def test_retry_after():
    """Reads seconds, a date, or the Hub's RateLimit header, but only for status 429 and 503."""
    soon = datetime.now(timezone.utc) + timedelta(seconds=100)
    assert retry.retry_after(refusal(429, {"Retry-After": "7"})) == 7
    assert 90 < retry.retry_after(refusal(503, {"Retry-After": format_datetime(soon)})) <= 100
    assert retry.retry_after(refusal(429, {"RateLimit": '"api";r=0;t=55'})) == 55
    for headers in ({}, {"Retry-After": "soon"}, {"RateLimit": '"api";r=9;t=55'}):
        assert retry.retry_after(refusal(429, headers)) is None
    assert retry.retry_after(refusal(500, {"Retry-After": "7"})) is None


@pytest.mark.slow
def test_waits_as_long_as_retry_after():
    """The Hub's wait is the minimum; an hour is not waited."""
    began = time.monotonic()
    assert retry.call(failing(refusal(429, {"Retry-After": "1"}))) == 2
    assert time.monotonic() - began >= 1
    with pytest.raises(HfHubHTTPError):
        retry.call(failing(refusal(429, {"Retry-After": "3600"})))


@pytest.mark.slow
def test_retries_end(monkeypatch):
    """The waits grow and end, even if the Hub asks each time for a retry at once."""
    monkeypatch.setattr(retry, "MAX_WAIT_SECONDS", 0.5)
    for value in ("0", "Thu, 01 Jan 1970 00:00:00 GMT"):
        call = failing(*[refusal(429, {"Retry-After": value})] * 20)
        with pytest.raises(HfHubHTTPError):
            retry.call(call)


def test_value_errors_of_the_client_are_answer_errors():
    """A ValueError about one file of a batch, for example, is retried and not displayed."""
    again = retry.with_answer_errors(failing(ValueError("LFS batch API returned errors:\nEncountered error")))
    assert retry.call(again) == 2
    with pytest.raises(HfHubHTTPError):
        retry.with_answer_errors(failing(refusal(400)))()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (refusal(401), "The Hub does not accept the token, or a/b needs one: log in again."),
        (refusal(403), "The token has no permission to do this with a/b."),
        (refusal(404), "There is no a/b on the Hub, or it is private and you have no access to it."),
        (refusal(409), "a/b is being changed by someone else; try again in a moment."),
        (refusal(412), "a/b was changed by someone else meanwhile; try again."),
        (refusal(429), "The Hub has received too many requests; try again later."),
        (refusal(429, {"Retry-After": "90"}), "The Hub has received too many requests; try again in 90 seconds."),
        (refusal(503), "The Hub has a problem (status 503); try again later."),
        (refusal(413, message="Too big\nby far"), "The Hub refused (status 413: Too big)."),
        (refusal(418, message="no hf_secret"), "The Hub refused (status 418: no …)."),
        (httpx2.ConnectError("x"), "The Hub cannot be reached; try again later."),
        (OfflineModeIsEnabled("x"), "The Hub is not used while HF_HUB_OFFLINE is set."),
        (TimeoutError(), "The Hub has not answered for 60 seconds; try again later."),
        (retry.AnswerError("x"), "The Hub's answer cannot be read; try again later."),
        (OSError(28, "No space left on device"), "The files of a/b cannot be stored here: no space left on device."),
    ],
)
def test_sentences(error, sentence):
    """Each kind of error has one sentence, without an address or the token."""
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"), retry.explain_errors("a/b"):
        raise error


def test_short_timeouts(monkeypatch):
    """Allows one retry, none if the Hub asks for a longer wait, and a shorter silence; afterwards all is as before."""
    monkeypatch.setattr(retry, "SHORT_TIMEOUT_SECONDS", 0.2)
    with retry.short_timeouts():
        assert retry.call(failing(refusal(503))) == 2
        calls = failing(refusal(503), refusal(500), refusal(429, {"Retry-After": "2"}), refusal(503))
        for status in (500, 429):
            with pytest.raises(HfHubHTTPError) as error:
                retry.call(calls)
            assert retry.status(error.value) == status
        began = time.monotonic()
        with pytest.raises(ValueError, match=r"not answered for 0\.2 seconds"), retry.explain_errors("x"):
            retry.call(lambda: time.sleep(1))
        assert time.monotonic() - began < 0.8
    assert retry.call(calls) == 5


@pytest.mark.parametrize("answer", [b"<html>", b"\xa2", b"[" * 100_000, b"{}", b"3"])
def test_any_unreadable_answer_is_one_sentence(answer):
    """For example the login page of a network in between."""
    with retry.short_timeouts(), pytest.raises(ValueError, match="cannot be read"), retry.explain_errors("x"):
        retry.call(lambda: json.loads(answer)[0])
