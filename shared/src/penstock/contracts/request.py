"""What upstream publishes to `llm.requests`: the chat-completions request of the OpenAI API.

The model is strict about types and ranges; turning bytes into it, with an error for each way in
which bytes can be wrong, is the preprocess service's work.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints, WithJsonSchema, field_validator, model_validator

from penstock.contracts.base import Contract, Message

MAX_MESSAGES = 512
MAX_STOP_STRINGS = 4
MAX_TOKENS_CEILING = 131_072
MAX_TOP_K = 1_000_000
MAX_TOP_LOGPROBS = 20
MAX_ANSWERS = 8
_NUMBER_OF_ANSWERS: dict[str, Any] = {"enum": [*range(1, MAX_ANSWERS + 1)], "type": "integer"}
IDENTIFIER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}$"
"""Request, conversation and tenant ids: 1 to 128 letters, digits, dots, underscores, colons, hyphens."""

Identifier = Annotated[str, StringConstraints(pattern=IDENTIFIER_PATTERN)]
StopString = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Role = Literal["system", "developer", "user", "assistant", "tool"]


class TextContent(Contract):
    """One text part of a message's content; other part types (images, audio) are refused."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class ChatMessage(Contract):
    """One message of the conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Role
    content: str | Annotated[tuple[TextContent, ...], Field(min_length=1, max_length=64)]
    name: Annotated[str, StringConstraints(max_length=64)] | None = None

    @property
    def text(self) -> str:
        """The content as one string; parts are joined by a line feed."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class ResponseFormat(Contract):
    """`text`, any JSON object, or JSON that follows a schema."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


def schema_of(text: str | None) -> Any:
    """A schema out of its JSON text; the wrapping object of the OpenAI API, `name` and `schema`, is taken off.

    Raises ValueError where it is not JSON.
    """
    document = json.loads(text or "")
    if isinstance(document, dict) and isinstance(document.get("schema"), dict) and "name" in document:
        return document["schema"]
    return document


class CompletionRequest(Message):
    """A request as upstream publishes it. Either `messages` or the bare `prompt`."""

    schema_name: ClassVar[str] = "penstock.completion-request"
    reads_ahead: ClassVar[int] = 0
    """Unknown fields are refused, so what a later version asks for is not left out unsaid."""
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "oneOf": [
                {"required": [kind], "properties": {kind: {"not": {"type": "null"}}}} for kind in ("messages", "prompt")
            ]
        },
    )

    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    prompt: str | None = None
    model: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS_CEILING)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS_CEILING)] | None = None
    stop: StopString | Annotated[tuple[StopString, ...], Field(max_length=MAX_STOP_STRINGS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    # as a Literal it would take true, which equals 1
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS), WithJsonSchema(_NUMBER_OF_ANSWERS)] | None = None
    stream: bool | None = None
    cache: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    user: Annotated[str, StringConstraints(max_length=256)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    request_id: Identifier | None = None
    conversation_id: Identifier | None = None
    tenant: Identifier | None = None

    @field_validator("messages", "stop", mode="before")
    @classmethod
    def _array_to_tuple(cls, value: Any) -> Any:
        # strict mode takes a list for a tuple from JSON text only; callers also hand in parsed JSON
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_kind_of_prompt(self) -> CompletionRequest:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("give either messages or prompt, and not both")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("give either max_tokens or max_completion_tokens, and not both")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        return self

    @property
    def output_limit(self) -> int | None:
        """The most tokens to generate, by either of the API's two names."""
        return self.max_tokens if self.max_tokens is not None else self.max_completion_tokens

    @property
    def alternatives(self) -> int | None:
        """How many likeliest tokens to tell beside each generated one; None for no logprobs at all."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple, empty where there is none."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else self.stop
