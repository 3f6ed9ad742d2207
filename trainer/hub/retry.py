"""Calls the Hugging Face Hub with timeouts and retries, and explains its errors to the user."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from json import JSONDecodeError
from typing import Any, Literal, TypeVar

# HTTPError is the base class of the Hub's errors and belongs to the HTTP library. It also covers broken connections.
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

from trainer.environment import unusable_proxy
from trainer.errors import Message, UserError, first_line
from trainer.progress import Report, ignore_progress, run_with_timeout

# Most calls of the Hub's client have no timeout of their own.
TIMEOUT_SECONDS = 60.0
# The client itself retries some calls, for about 23 seconds. No retry starts here once that much time has passed.
RETRY_SECONDS = 20.0
# The Hub limits commits per hour, and its Retry-After may be longer than a user wants to wait.
MAX_WAIT_SECONDS = 300.0
FIRST_WAIT_SECONDS = 1.0
# The client does not report the progress of a transfer, so its timeout assumes at least this speed.
_MIN_BYTES_PER_SECOND = 50_000

SHORT_TIMEOUT_SECONDS = 20.0
SHORT_WAIT_SECONDS = 0.3
_has_short_timeouts: ContextVar[bool] = ContextVar("has_short_timeouts", default=False)
_is_call: ContextVar[bool] = ContextVar("is_call", default=False)

_TRANSIENT = (408, 429, 500, 502, 503, 504)

T = TypeVar("T")


class AnswerError(OSError):
    """The Hub's answer cannot be read, so it is unknown whether the request was carried out."""


def checked_token(token: str | None) -> str | Literal[False]:
    """Returns the token for the Hub's client; for None it returns False, which means anonymous.

    For None the client would use the account that is logged in on this machine. Raises UserError if an HTTP
    header cannot carry the token (RFC 6750, section 2.1).
    """
    # Check here: the errors of the HTTP library would contain the token.
    if token and not re.fullmatch(r"[\w.~+/-]+=*", token, re.ASCII):
        raise UserError("The token is malformed: it contains a space, a line break or a character that no token has.")
    return token or False


def open_session() -> Any:
    """Returns the HTTP client of the Hub's client. Raises UserError if it refuses the environment's proxies."""
    try:
        return get_session()
    except Exception as error:
        raise unusable_proxy(error) from None


@contextmanager
def short_timeouts() -> Iterator[None]:
    """Limits calls inside to SHORT_TIMEOUT_SECONDS and one retry, for a visitor who waits for the page."""
    reset = _has_short_timeouts.set(True)
    try:
        yield
    finally:
        _has_short_timeouts.reset(reset)


def _timeout() -> float:
    return SHORT_TIMEOUT_SECONDS if _has_short_timeouts.get() else TIMEOUT_SECONDS


def call(
    function: Callable[[], T],
    progress: Report = ignore_progress,
    fraction: float = 0.0,
    doing: str = "",
    *,
    num_bytes: int = 0,
) -> T:
    """Does the same as `call_once`, but retries transient errors; the function must be safe to call twice.

    The wait before a retry doubles each time, and is at least the Hub's Retry-After. There is no retry after
    RETRY_SECONDS (MAX_WAIT_SECONDS if the Hub sent Retry-After), and none that needs a longer wait than
    MAX_WAIT_SECONDS. `short_timeouts` lowers these limits.
    """
    started_at, is_short = time.monotonic(), _has_short_timeouts.get()
    next_wait = SHORT_WAIT_SECONDS if is_short else FIRST_WAIT_SECONDS
    while True:
        try:
            return call_once(function, progress, fraction, doing, num_bytes=num_bytes)
        except (HTTPError, OSError) as error:
            requested = retry_after(error)
            # Some servers send Retry-After: 0 again and again, so the doubled wait is the minimum.
            seconds = max(requested or 0.0, next_wait)
            max_wait = SHORT_WAIT_SECONDS if is_short else MAX_WAIT_SECONDS
            max_elapsed = RETRY_SECONDS if requested is None else MAX_WAIT_SECONDS
            is_too_long = seconds > max_wait or time.monotonic() - started_at > max_elapsed
            if not is_transient(error) or is_too_long:
                raise
        wait(seconds, progress, fraction, doing)
        next_wait *= 2


def call_once(
    function: Callable[[], T],
    progress: Report = ignore_progress,
    fraction: float = 0.0,
    doing: str = "",
    *,
    num_bytes: int = 0,
) -> T:
    """Calls a function that makes requests to the Hub, in another thread, and returns its result.

    Args:
        function: The function.
        progress: Called in this thread with `fraction` and `doing`, about twice a second. An exception that it raises
            ends the call.
        num_bytes: The size of the transfer, which extends the timeout.

    Raises:
        HTTPError, OSError: The error of the Hub's client (see `huggingface_hub.errors`).
        TimeoutError: The Hub did not answer within the timeout: TIMEOUT_SECONDS, and more for a transfer.
    """
    progress(fraction, doing)
    try:
        timeout = _timeout() + num_bytes / _MIN_BYTES_PER_SECOND
        return run_with_timeout(lambda report: _in_thread(function), lambda *_: progress(fraction, doing), timeout)
    except (JSONDecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, HfUriError) as error:
        raise AnswerError(type(error).__name__) from None
    except (RuntimeError, LocalEntryNotFoundError) as error:
        # The client wraps the error of one file among several, and the reason why the network was not reached.
        if isinstance(error.__cause__, HTTPError | OSError):
            raise error.__cause__ from None
        if "client has been closed" in str(error):  # by an error in another thread, which shares the HTTP client
            raise AnswerError("closed") from None
        raise


def _in_thread(function: Callable[[], T]) -> T:
    """Calls the function; answers with Retry-After become errors. This thread must run this call alone."""
    # All threads share the session. The hook checks `_is_call`, so that other callers' requests stay as they are.
    session = open_session()
    if _raise_retry_after not in session.event_hooks["response"]:
        session.event_hooks = {
            **session.event_hooks,
            "response": [*session.event_hooks["response"], _raise_retry_after],
        }
    _is_call.set(True)  # this thread runs a single call
    return function()


def _raise_retry_after(response: Any) -> None:
    """Raises the error of an answer with Retry-After at once; the client itself would sleep for the whole time."""
    if _is_call.get() and response.status_code in (429, 503) and _retry_after_seconds(response) is not None:
        response.read()
        hf_raise_for_status(response)


def with_answer_errors(function: Callable[[], T]) -> Callable[[], T]:
    """Returns a function whose ValueErrors, raised by the client about an unreadable answer, become AnswerErrors."""

    def wrapper() -> T:
        try:
            return function()
        except HfHubHTTPError:  # some of them are ValueErrors too
            raise
        except ValueError as error:
            raise AnswerError(type(error).__name__) from None

    return wrapper


def wait(seconds: float, progress: Report, fraction: float, doing: str) -> None:
    """Sleeps for `seconds`, and reports the remaining time about twice a second."""
    end = time.monotonic() + seconds
    while (remaining := end - time.monotonic()) > 0:
        progress(
            fraction,
            Message("Retrying in {number} s ({what})", number=f"{remaining:.0f}", what=Message(doing)),
        )
        time.sleep(min(0.5, remaining))


def is_transient(error: Exception) -> bool:
    """Returns whether the same request may succeed a little later."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _TRANSIENT
    return isinstance(error, HTTPError | AnswerError)


def retry_after(error: Exception) -> float | None:
    """Returns the seconds that the Hub asks the client to wait, or None (RFC 9110, section 10.2.3)."""
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (429, 503):
        return _retry_after_seconds(error.response)
    return None


def _retry_after_seconds(response: Any) -> float | None:
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    if limit := re.search(r"\br=0\b.*?\bt=(\d+)", response.headers.get("RateLimit", "")):
        return float(limit[1])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def status(error: Exception) -> int | None:
    """Returns the HTTP status of the Hub's answer, or None for any other error."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


@contextmanager
def explain_errors(repo: str) -> Iterator[None]:
    """Turns the errors of the Hub's client, HTTPError and OSError, into UserErrors; their sentences may name `repo`."""
    try:
        yield
    except HFValidationError:
        raise UserError(
            "{name} is not the name of a repo on the Hub, such as owner/name.", name=f"{repo[:200]!r}"
        ) from None
    except (HTTPError, OSError) as error:
        raise UserError(_sentence(error, repo)) from None


def _sentence(error: Exception, repo: str) -> Message:
    match error:
        case HfHubHTTPError():
            return _refusal(error, repo)
        case OfflineModeIsEnabled():
            return Message("The Hub is not used while HF_HUB_OFFLINE is set.")
        case TimeoutError():
            return Message("The Hub has not answered for {number} seconds; try again later.", number=f"{_timeout():g}")
        case LocalEntryNotFoundError() if isinstance(error.__cause__, HTTPError | OSError):
            return _sentence(error.__cause__, repo)
        case LocalEntryNotFoundError():
            return Message("{repo} has not been downloaded yet.", repo=repo)
        case AnswerError():
            return Message("The Hub's answer cannot be read; try again later.")
        case OSError() if error.strerror:
            return Message(
                "The files of {repo} cannot be stored here: {reason}.", repo=repo, reason=error.strerror.lower()
            )
    return Message("The Hub cannot be reached; try again later.")


def _refusal(error: HfHubHTTPError, repo: str) -> Message:
    match error:
        case GatedRepoError():
            return Message(
                "{repo} is gated: ask its owner for access, on its page on the Hub.",
                repo=repo,
            )
        case RevisionNotFoundError():
            return Message("{repo} has no such revision.", repo=repo)
        case RemoteEntryNotFoundError():
            return Message("{repo} contains no checkpoint of this app.", repo=repo)
        case DisabledRepoError():
            return Message("{repo} has been disabled on the Hub.", repo=repo)
    code = error.response.status_code
    if code == 401 and error.response.headers.get("X-Error-Code") != "RepoNotFound":
        return Message("The Hub does not accept the token, or {repo} needs one: log in again.", repo=repo)
    if isinstance(error, RepositoryNotFoundError) or code == 404:
        return Message("There is no {repo} on the Hub, or it is private and you have no access to it.", repo=repo)
    known = {
        403: Message("The token has no permission to do this with {repo}.", repo=repo),
        409: Message("{repo} is being changed by someone else; try again in a moment.", repo=repo),
        412: Message("{repo} was changed by someone else meanwhile; try again.", repo=repo),
        429: Message("The Hub has received too many requests; try again {when}.", when=_when(retry_after(error))),
    }
    if code in known:
        return known[code]
    if code >= 500:
        return Message("The Hub has a problem (status {status}); try again later.", status=code)
    if reason := _reason(error):
        return Message("The Hub refused (status {status}: {reason}).", status=code, reason=reason)
    return Message("The Hub refused (status {status}).", status=code)


def _when(seconds: float | None) -> Message:
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
    message = first_line(error.server_message)
    # A server may repeat the request, with its token.
    token = error.response.request.headers.get("authorization", "").rpartition(" ")[2]
    return message.replace(token, "…") if token else message
