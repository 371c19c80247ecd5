"""What generates text for the stage: one small interface, so that a local model and a server look alike.

The embedded one is `local.LocalBackend`. A backend knows no events, deadlines or Kafka; the stage
decides what a failed or late generation means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from penstock.contracts.events import GenerationParameters, PromptPart


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to generate. `key` names it within the backend; `seed` is resolved already."""

    key: int
    prompt: Sequence[PromptPart]
    parameters: GenerationParameters
    seed: int


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step brought to one request: maybe some text, at the end why it ended.

    `tokens` counts all tokens generated for the request so far.
    """

    key: int
    text: str
    tokens: int
    finish_reason: Literal["stop", "length"] | None = None


class RequestFault(Exception):
    """A step failed because of one request alone; the others are as they were. `cause` is what happened."""

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

    def step(self) -> Sequence[Piece]:
        """Bring what runs one step further; a piece for each request that got a token, none when idle.

        Raises RequestFault where one request is at fault; after any other error, `clear` and begin anew.
        """
        ...

    def cancel(self, key: int) -> None:
        """Give a request up; no piece of it follows."""
        ...

    def clear(self) -> None:
        """Give all requests up."""
        ...
