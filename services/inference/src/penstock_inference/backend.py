"""What generates text for the stage: one small interface, so that a local model and a server look alike.

`local.LocalBackend` runs a model in a folder, `switching.SwitchingBackend` the one that is promoted and those that
still have requests; several of these, and servers, are `targets.backend.TargetsBackend`. A backend knows no events,
deadlines or Kafka; the stage decides what a failed or late generation means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from penstock.contracts.adapters import ADAPTER_BASE
from penstock.contracts.events import Alternative, Cached, GenerationParameters, PromptPart, TokenLikelihood

FinishedBy = Literal["stop", "length"]
EngineName = Literal["penstock", "genai"]
"""What runs a local model: the engine of this package, or onnxruntime-genai."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """What prompts are made with: short digests, None where a model has none."""

    tokenizer: str | None
    chat_template: str | None
    model: str | None = None
    """Digest. Of a model: its own. Of a request: of the only one that will do, to which its adapter belongs."""

    @classmethod
    def of(cls, versions: Mapping[str, str]) -> Prompts | None:
        """As the stage that rendered a prompt noted it; None where it noted nothing."""
        if "tokenizer" not in versions:
            return None
        return cls(versions["tokenizer"], versions.get("chat-template"), versions.get(ADAPTER_BASE))

    def alike(self, other: Prompts) -> bool:
        """Whether both are made with the same."""
        return (self.tokenizer, self.chat_template) == (other.tokenizer, other.chat_template)

    def suit(self, model: Prompts) -> bool:
        """Whether a model can take a request's prompts."""
        return self.alike(model) and self.model in (None, model.model)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to generate. `key` names it within the backend; `seed` is resolved already."""

    key: int
    prompt: Sequence[PromptPart]
    parameters: GenerationParameters
    seed: int
    request_id: str = ""
    tenant: str = "default"
    input_tokens: int = 0
    """The prompt's, as preprocess counted them; 0 where it did not."""
    prompts: Prompts | None = None
    """What its prompt was made with, where that is known."""
    adapter: str | None = None
    """What changes the model for it, NAME@REVISION."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made an answer, where that is not always the same."""

    provider: str
    """`gen_ai.provider.name`."""
    model: str
    """As it calls itself."""
    address: str = ""
    """`server.address`."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """What the event's versions say of it."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What a step brought to a further answer of a request, for its stream; the last piece has it whole."""

    number: int
    """From 1."""
    text: str
    finish_reason: FinishedBy | None = None
    likelihoods: tuple[TokenLikelihood, ...] = ()
    """As of a piece."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step brought to one request: maybe some text, at the end why it ended.

    `tokens` counts all tokens generated for the request so far, of all its answers: 0 while its prompt is still
    being read.
    """

    key: int
    text: str
    tokens: int
    finish_reason: FinishedBy | None = None
    prompt_tokens: int | None = None
    """At the end, where the count that `add` gave was an estimate."""
    anew: bool = False
    """The answer begins again with this piece: what came before belongs to one that was given up."""
    provenance: Provenance | None = None
    """At the end."""
    likelihoods: tuple[TokenLikelihood, ...] = ()
    """Of the tokens whose text ends in this piece, as they come; a backend may tell of all at the end alone."""
    logprobs: tuple[TokenLikelihood, ...] | None = None
    """Of all tokens of the text, with the last piece, where the request asks for them."""
    others: tuple[Alternative, ...] = ()
    """With the last piece, the further answers where the request asks for several; pieces are of the first."""
    beside: Beside | None = None
    """Of a further answer, as it comes; a backend may tell of these at the end alone."""
    cached: Cached | None = None
    """It was generated for an earlier request."""


class RequestFault(Exception):
    """A step failed because of one request alone; the others are as they were. `cause` is what happened.

    A PenstockError is the request's end as it is, any other is a bug.
    """

    def __init__(self, key: int, cause: Exception) -> None:
        super().__init__(f"request {key}: {type(cause).__name__}")
        self.key = key
        self.cause = cause


class Backend(Protocol):
    """Generates answers, several at a time. Used by one thread."""

    @property
    def rows(self) -> int:
        """Most requests that generate together; more wait their turn."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """What makes its answers what they are, e.g. `model` -> digest."""
        ...

    def add(self, request: GenerationRequest) -> int:
        """Queue a request; the number of its prompt's tokens. Raises LimitExceeded where it cannot fit."""
        ...

    def step(self) -> Sequence[Piece] | None:
        """Bring what runs one step further; a piece for each request that it was for, none when idle.

        A backend that waits for others returns None where nothing came for a while, or where it was woken.
        Raises RequestFault where one request is at fault; after any other error, `clear` and begin anew.
        """
        ...

    def cancel(self, key: int) -> None:
        """Give a request up; no piece of it follows."""
        ...

    def clear(self) -> None:
        """Give all requests up."""
        ...

    def wake(self) -> None:
        """Have a step that waits for others return; from any thread."""
        ...

    def close(self) -> None:
        """Let go of everything, after `clear`; nothing may follow."""
        ...
