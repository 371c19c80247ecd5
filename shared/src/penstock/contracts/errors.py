"""Every error that a request or a process can meet, and what each one means for the request.

    PenstockError                    code, field, limit; never the value itself
    ├── RequestError                 the request is at fault: refused, never retried
    │   ├── InvalidRequest           bytes, shape, field or header that breaks the contract
    │   ├── UnsupportedSchema        a schema name or version this release does not speak
    │   ├── LimitExceeded            a size, count or length above its limit
    │   ├── DuplicateRequest         the request id has been seen: its first result stands
    │   ├── Expired                  the deadline has passed: terminal `expired`
    │   └── Cancelled                a command on llm.control stopped it: terminal `cancelled`
    ├── RetriableError               the same record may succeed later: retried with backoff
    │   ├── BackendUnavailable       a model, detector or store does not work
    │   │   └── ConnectionFailed     it cannot be reached: refused, reset, no such host
    │   ├── BackendTimeout           it answered too late
    │   ├── Overloaded               it works and has no room now, e.g. HTTP 503 or 529
    │   └── RateLimited              it wants less from us, e.g. HTTP 429 with Retry-After
    ├── StageError                   the stage is at fault (a bug or a corrupt event): dead letter
    └── ConfigurationError           the process cannot start; the message says which setting and why

The runtime alone turns an error into a retry, a dead letter or a refusal. Messages name the
field, the shape of what was found (its type and length), the limit and the way out. They never
quote the value: it may hold personal data. Each retriable class names the `policy` by which the
runtime spaces and bounds its attempts (`penstock.runtime.retries`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

if TYPE_CHECKING:
    from penstock.contracts.events import RequestContext

PolicyName = Literal["unavailable", "connection", "timeout", "overloaded", "rate_limited"]
"""How attempts are spaced and bounded; the figures are settings."""


class PenstockError(Exception):
    """Root of all errors. `code` is stable and machine readable."""

    retriable: ClassVar[bool] = False
    policy: ClassVar[PolicyName | None] = None
    """Of a retriable error."""
    default_code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        limit: int | float | str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.field = field
        self.limit = limit
        self.context: RequestContext | None = None

    def about(self, context: RequestContext) -> Self:
        """Say which request this is about, where the raiser knows it better than the headers do."""
        self.context = context
        return self

    def kept(self) -> Self:
        """The same without its frames, for one that is kept as an outcome: they hold it in turn, a cycle each."""
        self.__traceback__ = self.__context__ = None
        return self


class RequestError(PenstockError):
    """The request is at fault; trying it again unchanged cannot help."""

    default_code = "invalid_request"


class InvalidRequest(RequestError):
    """Bytes, shape, field or header that breaks the contract."""


class UnsupportedSchema(RequestError):
    """A schema name or version that this release does not speak."""

    default_code = "unsupported_schema"


class LimitExceeded(RequestError):
    """A size, count or length above its limit."""

    default_code = "limit_exceeded"


class DuplicateRequest(RequestError):
    """The request id has been accepted before; the first record's result stands."""

    default_code = "duplicate_request"


class Expired(RequestError):
    """The request's deadline has passed."""

    default_code = "deadline_exceeded"


class Cancelled(RequestError):
    """A command stopped the request, or its conversation or tenant."""

    default_code = "cancelled"


class RetriableError(PenstockError):
    """The same record may succeed later, at the earliest after `retry_after_s` where the other side named a time."""

    retriable = True
    policy: ClassVar[PolicyName] = "unavailable"
    default_code = "unavailable"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        limit: int | float | str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, code=code, field=field, limit=limit)
        self.retry_after_s = retry_after_s
        """Seconds from now, as asked for by the other side; the policy caps it."""


class BackendUnavailable(RetriableError):
    """A model, detector or store does not work."""

    default_code = "backend_unavailable"


class ConnectionFailed(BackendUnavailable):
    """A backend cannot be reached: refused, reset, no such host."""

    policy = "connection"
    default_code = "connection_failed"


class BackendTimeout(RetriableError):
    """A model, detector or store answered too late."""

    policy = "timeout"
    default_code = "backend_timeout"


class Overloaded(RetriableError):
    """A backend works and has no room now, e.g. HTTP 503 or 529."""

    policy = "overloaded"
    default_code = "backend_overloaded"


class RateLimited(RetriableError):
    """A backend wants less from us, e.g. HTTP 429; `retry_after_s` from its Retry-After."""

    policy = "rate_limited"
    default_code = "rate_limited"


class StageError(PenstockError):
    """The stage is at fault: a bug, or an event that should not exist."""

    default_code = "internal_error"


class ConfigurationError(PenstockError):
    """The process cannot start with these settings."""

    default_code = "configuration"
