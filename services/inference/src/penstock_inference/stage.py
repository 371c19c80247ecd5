"""RequestScreened -> CompletionGenerated: all requests of a batch generate together.

It drives the backend step by step, sends streamed pieces as they come, and gives up what has passed
its deadline. How tokens are made is the backend's work; screening and restoring the answer are later
stages'.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from opentelemetry.trace import Span

from penstock.contracts.errors import Expired, PenstockError, StageError
from penstock.contracts.events import (
    Completion,
    CompletionGenerated,
    FinishReason,
    RequestScreened,
    TokensGenerated,
    Usage,
)
from penstock.runtime.stage import Inbound, Outcome, TokenSink
from penstock_inference import spans
from penstock_inference.backend import Backend, GenerationRequest, Piece
from penstock_inference.sampler import resolve_seed

STAGE = "inference"


@dataclass(slots=True)
class _InFlight:
    inbound: Inbound
    event: RequestScreened
    span: Span
    prompt_tokens: int
    tokens: int = 0
    first_token_ms: float | None = None
    pieces: list[str] = field(default_factory=list)
    sequence: int = 0


class InferenceStage:
    """Implements `penstock.runtime.stage.Stage`. `monotonic` gives seconds; a test hands in its own."""

    name = STAGE

    def __init__(
        self,
        backend: Backend,
        sink: TokenSink,
        *,
        release: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._sink = sink
        self._monotonic = monotonic
        self.versions: Mapping[str, str] = {STAGE: release, **backend.versions}

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        """One outcome for each record, in order; they generate together and end each at its own time."""
        started = self._monotonic()
        outcomes: dict[int, Outcome] = {}
        in_flight: dict[int, _InFlight] = {}
        try:
            for key, inbound in enumerate(batch):
                try:
                    in_flight[key] = self._start(key, inbound)
                except PenstockError as error:
                    outcomes[key] = error
            while in_flight:
                self._expire(in_flight, outcomes, self._elapsed_ms(started))
                if not in_flight:
                    break
                pieces = self._backend.step()
                if not pieces:
                    raise StageError("the backend is idle with requests in flight", code="backend_idle")
                elapsed = self._elapsed_ms(started)
                for piece in pieces:
                    completed = self._advance(in_flight[piece.key], piece, elapsed)
                    if completed is not None:
                        outcomes[piece.key] = completed
                        del in_flight[piece.key]
        finally:
            # only after an error is anything left; the runtime then runs the records again, one by one
            self._backend.clear()
            for request in in_flight.values():
                spans.fail_chat(request.span, "batch_failed")
        return [outcomes[key] for key in range(len(batch))]

    def _start(self, key: int, inbound: Inbound) -> _InFlight:
        event = inbound.expect(RequestScreened)
        seed = resolve_seed(event.parameters.seed, event.context.request_id)
        span = spans.open_chat(inbound.span, event.parameters)
        try:
            tokens = self._backend.add(GenerationRequest(key, event.prompt, event.parameters, seed))
        except PenstockError as error:
            spans.fail_chat(span, error.code)
            raise
        return _InFlight(inbound, event, span, tokens)

    def _advance(self, request: _InFlight, piece: Piece, elapsed_ms: float) -> CompletionGenerated | None:
        """Take a piece in; the event where it was the last."""
        if request.first_token_ms is None:
            request.first_token_ms = elapsed_ms
        request.tokens = piece.tokens
        request.pieces.append(piece.text)
        if piece.text or piece.finish_reason is not None:
            self._stream(request, piece.text, piece.finish_reason)
        if piece.finish_reason is None:
            return None
        completion = Completion(
            text="".join(request.pieces),
            finish_reason=piece.finish_reason,
            usage=Usage(
                prompt_tokens=request.prompt_tokens,
                completion_tokens=request.tokens,
                total_tokens=request.prompt_tokens + request.tokens,
            ),
            time_to_first_token_ms=request.first_token_ms,
        )
        spans.close_chat(request.span, completion)
        event = request.event
        return CompletionGenerated(
            context=event.context,
            findings=event.findings,
            completion=completion,
            parameters=event.parameters,
            vault=event.vault,
        )

    def _expire(self, in_flight: dict[int, _InFlight], outcomes: dict[int, Outcome], elapsed_ms: float) -> None:
        for key, request in list(in_flight.items()):
            deadline = request.event.context.deadline_ms
            if deadline is None or request.inbound.now_ms + elapsed_ms < deadline:
                continue
            self._backend.cancel(key)
            self._stream(request, "", "cancelled")
            error = Expired(
                f"the deadline passed after {request.tokens} generated tokens; allow more time or ask for fewer tokens",
                field="header deadline",
                limit=deadline,
            )
            spans.fail_chat(request.span, error.code)
            outcomes[key] = error
            del in_flight[key]

    def _stream(self, request: _InFlight, text: str, finish_reason: FinishReason | None) -> None:
        if not request.event.parameters.stream:
            return
        self._sink.send(
            TokensGenerated(
                request_id=request.event.context.request_id,
                sequence=request.sequence,
                text=text,
                finish_reason=finish_reason,
            ),
            request.inbound,
        )
        request.sequence += 1

    def _elapsed_ms(self, started: float) -> float:
        return (self._monotonic() - started) * 1000.0
