"""How a request ends: the terminal result, and the dead letter beside it where something is worth keeping."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock.contracts.base import Contract, Message
from penstock.contracts.errors import PenstockError
from penstock.contracts.events import (
    Cached,
    FinishReason,
    Language,
    NormalizationChange,
    Priority,
    Source,
    StageTiming,
    TokenLikelihood,
    Usage,
    Verdict,
)
from penstock.contracts.request import Identifier

Status = Literal["completed", "blocked", "cancelled", "expired", "failed"]

MAX_ERROR_CHARACTERS = 1_024
"""Of an error's message, field and limit: an error must never be what makes a record too large."""


class ErrorDetail(Contract):
    """Why a request did not complete. `field` and `limit` where the error has them; never a value."""

    code: str
    message: str
    stage: str
    field: str | None = None
    limit: int | float | str | None = None
    retriable: bool = False

    @classmethod
    def of(cls, error: PenstockError, stage: str) -> ErrorDetail:
        """The public face of an error raised in `stage`."""
        return cls(
            code=error.code,
            message=_writable(error.message),
            stage=stage,
            field=None if error.field is None else _writable(error.field),
            limit=_writable(error.limit) if isinstance(error.limit, str) else error.limit,
            retriable=error.retriable,
        )


def _writable(text: str) -> str:
    """Bounded, and without lone surrogates, which no JSON text in UTF-8 can carry."""
    return text[:MAX_ERROR_CHARACTERS].encode("utf-8", "replace").decode()


class AnswerMessage(Contract):
    """The assistant's message."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChoiceLogprobs(Contract):
    """As of the chat-completions response. Tokens are the model's own: placeholders stand as generated."""

    content: tuple[TokenLikelihood, ...]


class Choice(Contract):
    """One answer of a completed request."""

    index: int = 0
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: ChoiceLogprobs | None = None


class Repair(Contract):
    """What postprocess changed in the answer."""

    kind: str
    count: Annotated[int, Field(ge=1)] = 1


class RequestFinished(Message):
    """The one terminal result of a request: the chat-completions response and what Penstock adds.

    Restricted: restored names are in clear here.
    """

    schema_name: ClassVar[str] = "penstock.request-finished"

    object: Literal["chat.completion"] = "chat.completion"
    id: Identifier
    """The request id."""
    created: Annotated[int, Field(ge=0)]
    """Seconds since the epoch."""
    model: str | None = None
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    cached: Cached | None = None
    """Of an answer that was not generated for this request."""

    status: Status
    error: ErrorDetail | None = None
    conversation_id: Identifier
    tenant: Identifier
    priority: Priority
    """As granted."""
    requested_priority: Priority | None = None
    """As asked for, where another one was granted."""
    source: Source
    trace_id: str | None = None
    language: Language | None = None
    changes: tuple[NormalizationChange, ...] = ()
    redactions: dict[str, int] = Field(default_factory=dict)
    restored: Annotated[int, Field(ge=0)] = 0
    """Placeholders put back into the answer."""
    repairs: tuple[Repair, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    timings: tuple[StageTiming, ...] = ()
    total_ms: Annotated[float, Field(ge=0)] = 0.0
    """From the request's record to this result."""
    time_to_first_token_ms: Annotated[float, Field(ge=0)] | None = None
    user: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)


class DeadLetter(Message):
    """The `dead-letter` header of a record on `llm.dead-letters`.

    The record's value is the original bytes, untouched, and its other headers are the original ones.
    """

    schema_name: ClassVar[str] = "penstock.dead-letter"

    request_id: Identifier
    tenant: Identifier
    stage: str
    error: ErrorDetail
    attempts: Annotated[int, Field(ge=1)]
    source: Source
    original_timestamp_ms: int
    failed_ms: int
    trace_id: str | None = None
    span_id: str | None = None
    """Of the span in which it failed."""
    versions: dict[str, str] = Field(default_factory=dict)


class Redriven(Contract):
    """The `redriven` header of a marker on `llm.dead-letters`: this letter was sent again.

    The marker has the letter's key, no value, and stands in the letter's partition; the letter stays.
    """

    dead_letter: str
    """`PARTITION/OFFSET` of the letter."""
    to: str
    """The topic, as the broker names it."""
    at_ms: int
    edited: bool = False
    """Whether an operator changed the body on the way."""
