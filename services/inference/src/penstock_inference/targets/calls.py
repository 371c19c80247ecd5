"""One call at one target: what it brings, whatever the target is, and what can be asked of which."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from penstock.contracts.events import Alternative, TokenLikelihood
from penstock_inference.backend import FinishedBy, GenerationRequest
from penstock_inference.targets.config import Target

ADAPTER: Final = "adapter"
_LOCAL_ONLY: Final = ("n", "logprobs")


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event of an answer brought; what it did not say is None or empty."""

    text: str = ""
    finish_reason: FinishedBy | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    model: str = ""
    """As the target names what answered: a server with its fingerprint, a local model by its digest."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """What else made the answer what it is."""
    likelihoods: tuple[TokenLikelihood, ...] = ()
    """As of `backend.Piece`."""
    logprobs: tuple[TokenLikelihood, ...] | None = None
    others: tuple[Alternative, ...] = ()
    """Both at the end, as in `backend.Piece`."""


class Client(Protocol):
    """Calls one target. Used in one event loop."""

    def stream(self, request: GenerationRequest) -> AsyncGenerator[Chunk]:
        """The chunks of one answer; the last has a finish reason or follows one that had.

        Raises PenstockError, TimeoutError, or what `faults.error_of` knows. Closing the generator ends the call.
        """
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


def not_served(request: GenerationRequest, target: Target) -> str | None:
    """What of a request a target cannot give.

    Several answers to one call and likelihoods are not asked of servers; adapters are in the registry, for the engine
    of this package.
    """
    if request.adapter is not None and (target.local is None or target.engine == "genai"):
        return ADAPTER
    if target.local is not None:
        return None
    return next((name for name in _LOCAL_ONLY if getattr(request.parameters, name) is not None), None)
