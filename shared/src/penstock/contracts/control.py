"""Commands to all stages, on `llm.control`: what is to be cancelled.

A command stands under a key of what it is about, so that the topic keeps the newest of each; a record
of that key without a value takes the command back.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from penstock.contracts.base import Message
from penstock.contracts.request import Identifier

Scope = Literal["request", "conversation", "tenant"]

MAX_REASON_CHARACTERS = 256


class Cancel(Message):
    """Stop a request, or what a conversation or a tenant has sent until now. Names exactly one of the three."""

    schema_name: ClassVar[str] = "penstock.cancel"

    request_id: Identifier | None = None
    conversation_id: Identifier | None = None
    tenant: Identifier | None = None
    reason: Annotated[str, Field(max_length=MAX_REASON_CHARACTERS)] | None = None
    """For people; it comes back in the results' error. No personal data."""
    issued_ms: Annotated[int, Field(ge=0)]
    """Of a conversation or tenant, what was sent later goes on. Milliseconds since the epoch."""

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if sum(name is not None for name in (self.request_id, self.conversation_id, self.tenant)) != 1:
            raise ValueError("expected exactly one of request_id, conversation_id and tenant")
        return self

    @property
    def scope(self) -> Scope:
        """What kind of thing it names."""
        if self.request_id is not None:
            return "request"
        return "conversation" if self.conversation_id is not None else "tenant"

    @property
    def name(self) -> str:
        """The id or name that it is about."""
        return self.request_id or self.conversation_id or self.tenant or ""

    @property
    def key(self) -> str:
        """Of its record: `request/ID`, `conversation/ID` or `tenant/NAME`."""
        return key_of(self.scope, self.name)


def key_of(scope: Scope, name: str) -> str:
    """The record key of a command about this; a record of that key without value takes it back."""
    return f"{scope}/{name}"
