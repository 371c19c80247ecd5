"""Streamed answers after inference: screened pieces between safety and postprocess, restored ones for whoever asked.

Each service numbers its own pieces, from 0 without a gap. All are written at least once: whoever reads drops repeats
by request, index and sequence. A stream is a preview; the one terminal result is what counts.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock.contracts.base import Message
from penstock.contracts.events import FinishReason, StreamOpening, TokenLikelihood
from penstock.contracts.request import Identifier
from penstock.contracts.results import ChoiceLogprobs

StreamState = Literal["completed", "blocked", "cancelled", "withdrawn", "failed", "expired"]
"""How a stream ended.

`completed`: the whole answer was told. `blocked`: the policy withholds what would follow. `cancelled`: generating
ended early. `withdrawn`: what was told is not how the answer goes. `failed`: what would follow could not be generated,
screened or restored. `expired`: the deadline passed, or nothing came for too long.
"""


class TokensScreened(Message):
    """A piece of a streamed answer that the safety policy for responses let pass, still with placeholders."""

    schema_name: ClassVar[str] = "penstock.tokens-screened"

    request_id: Identifier
    sequence: Annotated[int, Field(ge=0)]
    text: str
    index: Annotated[int, Field(ge=0)] = 0
    """Which of several answers; each is a stream of its own."""
    state: StreamState | None = None
    """Set on the last piece."""
    finish_reason: FinishReason | None = None
    """On the last piece of a completed stream."""
    opening: StreamOpening | None = None
    """On the first piece."""
    logprobs: tuple[TokenLikelihood, ...] | None = None
    """Of the tokens whose text ends in this piece, where asked for; none from the first redaction on."""


class TokensRestored(Message):
    """A piece of a streamed answer as the one who asked shall see it. Restricted: personal data is in clear here."""

    schema_name: ClassVar[str] = "penstock.tokens-restored"

    request_id: Identifier
    sequence: Annotated[int, Field(ge=0)]
    text: str
    index: Annotated[int, Field(ge=0)] = 0
    """Which of several answers; each is a stream of its own."""
    logprobs: ChoiceLogprobs | None = None
    """Of tokens whose text all pieces so far have; all pieces' together are those of the result."""
    final: bool = False
    """Whether this is the last piece; the fields below are set on it alone."""
    state: StreamState | None = None
    finish_reason: FinishReason | None = None
    """Of a completed stream."""
    characters: Annotated[int, Field(ge=0)] | None = None
    """Unicode code points of all pieces together."""
    sha256: str | None = None
    """Of all pieces together in UTF-8, in hexadecimal."""
