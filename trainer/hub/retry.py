"""What every call to the Hub goes through: patience, another try where that is right, and errors as sentences."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from json import JSONDecodeError
from typing import Any, Literal, TypeVar

# HTTPError is the HTTP library's own, which the Hub's errors derive from: a broken connection has no other type.
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HfUriError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session, hf_raise_for_status

from trainer.errors import Message, UserError, first_line
from trainer.progress import Report, ignore_progress, run_with_timeout

# Most calls of the Hub's client have no time limit of their own.
PATIENCE_SECONDS = 60.0
# Some calls are tried again by the client itself, for some 23 seconds; after those nothing is gained by more of them.
RETRY_SECONDS = 20.0
# A Hub that counts commits by the hour may ask for longer waits, or for more of them, than anyone wants to watch.
LONGEST_WAIT_SECONDS = 300.0
# What moves files says nothing of how far it is: so much a second is the least that is waited for.
_SLOWEST_BYTES = 50_000

# Whoever waits before a page would rather hear soon that the Hub is in trouble: after one more try.
HURRIED_SECONDS = 20.0
HURRIED_WAIT_SECONDS = 0.3
_hurried: ContextVar[bool] = ContextVar("hurried", default=False)
_within: ContextVar[bool] = ContextVar("within", default=False)

_TRANSIENT = (408, 429, 500, 502, 503, 504)
FIRST_WAIT_SECONDS = 1.0

T = TypeVar("T")


class AnswerError(OSError):
    """The Hub answered with what its client cannot read: whether it did what it was asked is not known."""


def sent(token: str | None) -> str | Literal[False]:
    """A token as the Hub's client is to be given it: False for nobody, where None would be whoever runs the process.

    Raises ValueError where it is nothing that an HTTP header can carry (RFC 6750, section 2.1).
    """
    # The HTTP library's own errors would show it.
    if token and not re.fullmatch(r"[\w.~+/-]+=*", token, re.ASCII):
        raise UserError("The token is malformed: it holds a space, a line break or a letter that no token has.")
    return token or False


@contextmanager
def hurried() -> Iterator[None]:
    """Within it the Hub is asked once more at most, soon, and may be silent for HURRIED_SECONDS only."""
    before = _hurried.set(True)
    try:
        yield
    finally:
        _hurried.reset(before)


def _patience() -> float:
    return HURRIED_SECONDS if _hurried.get() else PATIENCE_SECONDS


def ask(
    call: Callable[[], T],
    progress: Report = ignore_progress,
    fraction: float = 0.0,
    doing: str = "",
    *,
    num_bytes: int = 0,
) -> T:
    """What `call` returns, tried again with growing waits while the Hub is busy, in trouble or out of reach.

    `call` must be one that may be made twice. The Hub's Retry-After is kept to, up to LONGEST_WAIT_SECONDS in all.
    `progress` is called in this thread, about twice a second; what it raises ends the wait. Raises the Hub's own errors
    (`huggingface_hub.errors`), TimeoutError where it says nothing for PATIENCE_SECONDS, and for as much longer as
    `num_bytes` take.
    """
    began, is_hurried = time.monotonic(), _hurried.get()
    wait = HURRIED_WAIT_SECONDS if is_hurried else FIRST_WAIT_SECONDS
    while True:
        try:
            return ask_once(call, progress, fraction, doing, num_bytes=num_bytes)
        except (HTTPError, OSError) as error:
            asked = retry_after(error)
            # Not sooner than without it: some say 0 seconds, again and again.
            pause = max(asked or 0.0, wait)
            longest_pause = HURRIED_WAIT_SECONDS if is_hurried else LONGEST_WAIT_SECONDS
            longest = RETRY_SECONDS if asked is None else LONGEST_WAIT_SECONDS
            too_long = pause > longest_pause or time.monotonic() - began > longest
            if not is_transient(error) or too_long:
                raise
        sleep(pause, progress, fraction, doing)
        wait *= 2


def ask_once(
    call: Callable[[], T],
    progress: Report = ignore_progress,
    fraction: float = 0.0,
    doing: str = "",
    *,
    num_bytes: int = 0,
) -> T:
    """As `ask`, for a call that must not be made twice."""
    progress(fraction, doing)
    try:
        patience = _patience() + num_bytes / _SLOWEST_BYTES
        return run_with_timeout(lambda report: _within_ask(call), lambda *_: progress(fraction, doing), patience)
    except (JSONDecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, HfUriError) as error:
        raise AnswerError(type(error).__name__) from None
    except (RuntimeError, LocalEntryNotFoundError) as error:
        # The client wraps what happened to one file of several, and what kept it from the network.
        if isinstance(error.__cause__, HTTPError | OSError):
            raise error.__cause__ from None
        if "client has been closed" in str(error):  # by a failure in another thread: they share one
            raise AnswerError("closed") from None
        raise


def _within_ask(call: Callable[[], T]) -> T:
    session = get_session()  # of all threads: what is added does nothing for calls from elsewhere
    if _tell_the_wait not in session.event_hooks["response"]:
        session.event_hooks = {**session.event_hooks, "response": [*session.event_hooks["response"], _tell_the_wait]}
    _within.set(True)  # in this thread, which is this call's own
    return call()


def _tell_the_wait(response: Any) -> None:
    """Raises the Hub's refusal that says when to come again: its client would sleep until then, however long it is."""
    if _within.get() and response.status_code in (429, 503) and _seconds_told(response) is not None:
        response.read()
        hf_raise_for_status(response)


def readable(call: Callable[[], T]) -> Callable[[], T]:
    """A call whose ValueErrors are the client's own, about an answer that it cannot read: AnswerErrors instead."""

    def called() -> T:
        try:
            return call()
        except HfHubHTTPError:  # some of which are ValueErrors too
            raise
        except ValueError as error:
            raise AnswerError(type(error).__name__) from None

    return called


def sleep(seconds: float, progress: Report, fraction: float, doing: str) -> None:
    """Waits, saying how long still, about twice a second."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        progress(
            fraction,
            Message("The Hub is asked again in {number} s ({what})", number=f"{left:.0f}", what=Message(doing)),
        )
        time.sleep(min(0.5, left))


def is_transient(error: Exception) -> bool:
    """Whether the same request may well succeed a little later."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _TRANSIENT
    return isinstance(error, HTTPError | AnswerError)


def retry_after(error: Exception) -> float | None:
    """Seconds after which the Hub wants to be asked again; None where it does not say (RFC 9110, section 10.2.3)."""
    return _seconds_told(error.response) if status(error) in (429, 503) else None


def _seconds_told(response: Any) -> float | None:
    told = response.headers.get("Retry-After", "").strip()
    if told.isdecimal():
        return float(told)
    if limit := re.search(r"\br=0\b.*?\bt=(\d+)", response.headers.get("RateLimit", "")):
        return float(limit[1])
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    except ValueError:
        return None


def status(error: Exception) -> int | None:
    """The HTTP status of the Hub's refusal; None for an error of another kind."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


@contextmanager
def explained(repo: str) -> Iterator[None]:
    """Makes one sentence, a ValueError, of whatever keeps the Hub from answering about `repo`."""
    try:
        yield
    except HFValidationError:
        raise UserError(
            "{name} is no name of a repo on the Hub, which looks like owner/name.", name=f"{repo[:200]!r}"
        ) from None
    except (HTTPError, OSError) as error:
        raise UserError(_sentence(error, repo)) from None


def _sentence(error: Exception, repo: str) -> Message:
    match error:
        case HfHubHTTPError():
            return _refusal(error, repo)
        case OfflineModeIsEnabled():
            return Message("The Hub is not asked while HF_HUB_OFFLINE is set.")
        case TimeoutError():
            return Message("The Hub has said nothing for {number} seconds; try again later.", number=f"{_patience():g}")
        case LocalEntryNotFoundError() if isinstance(error.__cause__, HTTPError | OSError):
            return _sentence(error.__cause__, repo)
        case LocalEntryNotFoundError():
            return Message("{repo} has not been downloaded to here yet.", repo=repo)
        case AnswerError():
            return Message("What the Hub answered cannot be understood; try again later.")
        case OSError() if error.strerror:
            return Message(
                "The files of {repo} cannot be kept here: {reason}.", repo=repo, reason=error.strerror.lower()
            )
    return Message("The Hub cannot be reached; try again later.")


def _refusal(error: HfHubHTTPError, repo: str) -> Message:
    match error:
        case GatedRepoError():
            return Message(
                "{repo} is gated: its owner must let you in first, on its page on the Hub.",
                repo=repo,
            )
        case RevisionNotFoundError():
            return Message("{repo} has no such revision.", repo=repo)
        case RemoteEntryNotFoundError():
            return Message("{repo} holds no checkpoint of this app.", repo=repo)
        case DisabledRepoError():
            return Message("{repo} has been disabled on the Hub.", repo=repo)
    code = error.response.status_code
    if code == 401 and error.response.headers.get("X-Error-Code") != "RepoNotFound":
        return Message("The Hub does not accept the token, or {repo} needs one: log in again.", repo=repo)
    if isinstance(error, RepositoryNotFoundError) or code == 404:
        return Message("There is no {repo} on the Hub, or it is private and not open to you.", repo=repo)
    known = {
        403: Message("The token has no right to do this with {repo}.", repo=repo),
        409: Message("{repo} is being changed by someone else; try again in a moment.", repo=repo),
        412: Message("{repo} was changed by someone else meanwhile; try again.", repo=repo),
        429: Message("The Hub has been asked too much; try again {when}.", when=_later(retry_after(error))),
    }
    if code in known:
        return known[code]
    if code >= 500:
        return Message("The Hub is in trouble (status {status}); try again later.", status=code)
    if reason := _reason(error):
        return Message("The Hub refused (status {status}: {reason}).", status=code, reason=reason)
    return Message("The Hub refused (status {status}).", status=code)


def _later(seconds: float | None) -> Message:
    if seconds is None:
        return Message("later")
    return (
        Message("in {number} seconds", number=f"{seconds:.0f}")
        if seconds < 120
        else Message("in {number} minutes", number=f"{seconds / 60:.0f}")
    )


def _reason(error: HfHubHTTPError) -> str:
    if not error.server_message:
        return ""
    said = first_line(error.server_message)
    # A server may repeat what it was sent.
    token = error.response.request.headers.get("authorization", "").rpartition(" ")[2]
    return said.replace(token, "…") if token else said
