"""The events between the stages, in the past tense, each a frozen message.

Every event carries the request's context (who, when, until when, which versions, how long) and the
findings so far; the rest is what the next stage needs. From `RequestAnonymized` to
`CompletionScreened` no field holds personal data in clear: it is in the sealed vault alone.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from penstock.contracts.base import Contract, Message
from penstock.contracts.request import Identifier

Priority = Literal["interactive", "bulk"]
FinishReason = Literal["stop", "length", "cancelled"]
Action = Literal["allow", "flag", "redact", "block"]
Direction = Literal["prompt", "response"]
Cached = Literal["exact", "semantic"]
"""How a kept answer was found: for the same prompt, or for one whose last message means the same."""


class Source(Contract):
    """Where the request stood when it was read."""

    topic: str
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]

    @property
    def place(self) -> str:
        """`topic/partition/offset`, as state and headers name it."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class StageTiming(Contract):
    """One pass through one stage, in milliseconds: waiting since the record was written, then processing."""

    stage: str
    queued_ms: Annotated[float, Field(ge=0)]
    processing_ms: Annotated[float, Field(ge=0)]


class RequestContext(Contract):
    """What is true of the request in every stage."""

    request_id: Identifier
    conversation_id: Identifier
    tenant: Identifier = "default"
    priority: Priority = "interactive"
    """As granted: the lane that the request takes."""
    requested_priority: Priority | None = None
    """As asked for, where another one was granted."""
    deadline_ms: Annotated[int, Field(ge=0)] | None = None
    """Absolute, milliseconds since the epoch."""
    submitted_ms: Annotated[int, Field(ge=0)]
    """The Kafka timestamp of the request's record."""
    source: Source
    versions: dict[str, str] = Field(default_factory=dict)
    """What made this event: `preprocess` -> its release, `model` -> digest, `policy` -> version and digest, ..."""
    timings: tuple[StageTiming, ...] = ()


class PromptPart(Contract):
    """A piece of the rendered prompt.

    `template` pieces come from the chat template and may hold special tokens; `text` pieces come from
    the request and are tokenized as plain text, so that a user cannot forge a turn of the conversation.
    """

    kind: Literal["template", "text"]
    text: str
    role: str | None = None
    message: int | None = None
    field: Literal["name"] | None = None
    """Of a `text` piece that is a field of its message other than its content."""


class OutputFormat(Contract):
    """What the answer must be. `json_schema` is the schema as JSON text."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: str | None = None


class GenerationParameters(Contract):
    """How to generate, every default filled in."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Only so many likeliest tokens. This and the next ones change nothing where they are absent."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Only tokens at least this likely as a share of the likeliest one's probability."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    """Divides or multiplies the logits of tokens in prompt or answer (Keskar et al., CTRL)."""
    logprobs: Annotated[int, Field(ge=0)] | None = None
    """How many likeliest tokens to tell beside each generated one; None for no logprobs at all."""
    n: Annotated[int, Field(ge=1)] | None = None
    """How many answers; one where absent."""
    max_tokens: Annotated[int, Field(ge=1)]
    stop: tuple[str, ...] = ()
    seed: int | None = None
    stream: bool = False
    cache: bool | None = None
    """False: the answer is generated, and not kept for others."""
    output: OutputFormat = OutputFormat()


class NormalizationChange(Contract):
    """What preprocess changed in the text: the kind of change and how many characters or places."""

    kind: str
    count: Annotated[int, Field(ge=1)]


class Language(Contract):
    """ISO 639-1 code of the prompt's language and the detector's confidence; `und` where it cannot tell."""

    code: str
    confidence: Annotated[float, Field(ge=0, le=1)]


class Verdict(Contract):
    """One finding of one detector and what the policy made of it. Never the matched text."""

    direction: Direction
    label: str
    score: Annotated[float, Field(ge=0, le=1)]
    action: Action
    detector: str
    digest: str
    """Of the detector: of its rules, or of its model's files."""
    part: Annotated[int, Field(ge=0)]
    """Index of the prompt part, or of the answer: 0 where there is one."""
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]
    """Character offsets within that part."""


class Findings(Contract):
    """What the stages have found so far."""

    input_tokens: Annotated[int, Field(ge=0)] = 0
    language: Language | None = None
    changes: tuple[NormalizationChange, ...] = ()
    redactions: dict[str, int] = Field(default_factory=dict)
    """Entity type -> how many places were replaced."""
    verdicts: tuple[Verdict, ...] = ()


class SealedVault(Contract):
    """The map from placeholders to what they stand for, encrypted (AES-256-GCM).

    The data key belongs to one tenant and conversation and is itself wrapped (AES-256-GCM) by the
    master key named `key_id`. All byte fields are base64. Associated data binds both to tenant and conversation.
    """

    algorithm: Literal["A256GCM"] = "A256GCM"
    key_id: str
    wrapped_key: str
    wrap_nonce: str
    nonce: str
    ciphertext: str


class Event(Message):
    """What all events share."""

    context: RequestContext
    findings: Findings = Findings()


class RequestPreprocessed(Event):
    """Validated, normalized, counted, rendered. Restricted: still personal data in clear."""

    schema_name: ClassVar[str] = "penstock.request-preprocessed"

    prompt: tuple[PromptPart, ...]
    parameters: GenerationParameters
    user: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)


class RequestAnonymized(Event):
    """Personal data replaced by typed placeholders; `user` and `metadata` are in the vault too."""

    schema_name: ClassVar[str] = "penstock.request-anonymized"

    prompt: tuple[PromptPart, ...]
    parameters: GenerationParameters
    vault: SealedVault | None = None


class RequestScreened(Event):
    """Passed by the safety policy for prompts."""

    schema_name: ClassVar[str] = "penstock.request-screened"

    prompt: tuple[PromptPart, ...]
    parameters: GenerationParameters
    vault: SealedVault | None = None


class Usage(Contract):
    """Tokens in and out, as the model's tokenizer counts them."""

    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)]
    total_tokens: Annotated[int, Field(ge=0)]


class Likelihood(Contract):
    """A token and the natural logarithm of its probability, as the model gave it before any sampling parameter."""

    token: str
    logprob: float
    bytes: tuple[Annotated[int, Field(ge=0, le=255)], ...] | None = None
    """UTF-8; absent where the token is no text of its own, e.g. a part of a character."""


class TokenLikelihood(Likelihood):
    """A generated token, and the likeliest ones in its place."""

    top_logprobs: tuple[Likelihood, ...] = ()


class Completion(Contract):
    """What the model said, still with placeholders."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    time_to_first_token_ms: Annotated[float, Field(ge=0)] | None = None
    logprobs: tuple[TokenLikelihood, ...] | None = None
    """Of the text's tokens, where asked for; gone where safety redacted the text."""
    cached: Cached | None = None
    """Of an answer that was not generated for this request; its usage is what generating it took."""


class Alternative(Contract):
    """A further answer to the same prompt; its tokens are in the first one's usage."""

    text: str
    finish_reason: FinishReason
    logprobs: tuple[TokenLikelihood, ...] | None = None


class CompletionGenerated(Event):
    """The model's answer, not yet screened."""

    schema_name: ClassVar[str] = "penstock.completion-generated"

    completion: Completion
    others: tuple[Alternative, ...] | None = None
    """Further answers, where several were asked for."""
    parameters: GenerationParameters
    vault: SealedVault | None = None


class CompletionScreened(Event):
    """The model's answer, passed by the safety policy for responses."""

    schema_name: ClassVar[str] = "penstock.completion-screened"

    completion: Completion
    others: tuple[Alternative, ...] | None = None
    """Further answers, where several were asked for."""
    parameters: GenerationParameters
    vault: SealedVault | None = None


class StreamOpening(Contract):
    """What the services after inference need of a streamed request. The vault stays sealed but in postprocess."""

    parameters: GenerationParameters
    vault: SealedVault | None = None


CLOSING_SEQUENCE: Final = 2**31 - 1
"""Of a piece that ends a stream wherever it stands: above all others."""


class TokensGenerated(Message):
    """A piece of a streamed answer, as it comes, before response safety.

    At least once: drop repeats by request, index and sequence.
    """

    schema_name: ClassVar[str] = "penstock.tokens-generated"

    request_id: Identifier
    sequence: Annotated[int, Field(ge=0)]
    text: str
    index: Annotated[int, Field(ge=0)] = 0
    """Which of several answers; each is a stream of its own."""
    finish_reason: FinishReason | None = None
    """Set on the last piece."""
    opening: StreamOpening | None = None
    """On the first piece."""
    logprobs: tuple[TokenLikelihood, ...] | None = None
    """Of the tokens whose text ends in this piece, where asked for."""
    ended: Literal["cancelled", "expired", "failed"] | None = None
    """The request ended so, without its answer. Whoever says it need not know how far the stream has come: the piece
    has no text, the sequence `CLOSING_SEQUENCE`, and says nothing where no stream is open."""
