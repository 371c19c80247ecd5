"""What went wrong at a target, as the runtime's errors. Messages never quote a server, which may quote the prompt."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

from penstock.contracts.errors import (
    BackendTimeout,
    BackendUnavailable,
    ConnectionFailed,
    InvalidRequest,
    LimitExceeded,
    Overloaded,
    PenstockError,
    RateLimited,
    StageError,
)

_AT_FAULT = frozenset({400, 413, 422})
"""The request is; the same one fails at any server."""
_BUSY = frozenset({503, 529})
_CONTEXT = "context_length_exceeded"
_OF_THE_MODEL = frozenset({_CONTEXT, "unsupported_json_schema"})
"""Requests that another model may take."""


def error_of(error: Exception, target: str) -> PenstockError:
    """The error of a call, by what the client raised."""
    match error:
        case PenstockError():
            return error
        case APITimeoutError() | TimeoutError():
            return BackendTimeout(f"target {target} did not answer in time")
        case APIConnectionError():
            return ConnectionFailed(f"target {target} cannot be reached, or broke off")
        case APIStatusError():
            return _of_status(error, target)
        case APIError():
            return BackendUnavailable(f"target {target} reported an error in the middle of its answer")
        case _:
            return BackendUnavailable(f"target {target} sent what is no chat completion ({type(error).__name__})")


def is_known(error: Exception) -> bool:
    """Whether the client or this service raised it on purpose; any other tells of an odd answer, or of a bug here."""
    return isinstance(error, PenstockError | APIError | TimeoutError)


def _of_status(error: APIStatusError, target: str) -> PenstockError:
    status = error.status_code
    said = f"target {target} answered HTTP {status}"
    wait_s = retry_after_s(error.response.headers, time.time())
    if status == 429:
        return RateLimited(said, retry_after_s=wait_s)
    if status in _BUSY:
        return Overloaded(said, retry_after_s=wait_s)
    if status in (408, 504):
        return BackendTimeout(said, retry_after_s=wait_s)
    if status in _AT_FAULT and error.code == _CONTEXT:
        return LimitExceeded(
            f"{said}: prompt and answer do not fit its context; shorten the prompt",
            code="context_length_exceeded",
            field="messages",
        )
    if status in _AT_FAULT:
        return InvalidRequest(f"{said}: it does not take this request")
    # 401, 403, 404 and the like are the configuration's fault or the server's, and may be mended
    return BackendUnavailable(said, retry_after_s=wait_s)


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait from `retry-after-ms` or `Retry-After` (RFC 9110, 10.2.3); None where neither can be read."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def blames_target(error: PenstockError) -> bool:
    """Whether the breaker counts it: the target does not work, rather than refuse a request or ask for patience."""
    return error.retriable and not isinstance(error, RateLimited)


def may_go_on(error: PenstockError) -> bool:
    """Whether another target may answer the same request."""
    return error.retriable or error.code in _OF_THE_MODEL or isinstance(error, StageError)
