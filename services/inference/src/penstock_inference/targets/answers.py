"""One request's way to its answer: target after target, until one has answered in full.

Where a target fails before or in the middle of its answer, the next one begins the answer anew; what was told
of the first is void, and says so (`Piece.anew`). Each target is asked once: waiting and asking again is the
runtime's, by the error that is raised in the end. A cancelled task closes its HTTP stream.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from penstock.contracts.errors import InvalidRequest, LimitExceeded, PenstockError, StageError
from penstock.runtime.logging import frames
from penstock_inference.backend import FinishedBy, GenerationRequest, Piece, Provenance
from penstock_inference.targets.budgets import Reservation, Spending
from penstock_inference.targets.calls import ADAPTER, Chunk, Client, not_served
from penstock_inference.targets.config import Target
from penstock_inference.targets.faults import error_of, is_known, may_go_on
from penstock_inference.targets.meters import Meters
from penstock_inference.targets.pool import Pool, Turn
from penstock_inference.targets.routing import Routing, Tier
from penstock_inference.text import SafeText

_log = structlog.get_logger()

CHARACTERS_A_TOKEN = 3
"""Fewer than most tokenizers need: an estimate that is rather too high."""

Emit = Callable[[Piece], None]


def input_tokens_of(request: GenerationRequest) -> int:
    """The prompt's tokens as preprocess counted them, else an estimate."""
    return request.input_tokens or 1 + sum(len(part.text) for part in request.prompt) // CHARACTERS_A_TOKEN


@dataclass(slots=True)
class _Call:
    """One call while it runs: what is known of its answer."""

    input_tokens: int
    output_tokens: int = 0
    """Chunks of text, each a token at least, until the target has counted."""
    begun: bool = False
    """Whether there was any text."""
    finish_reason: FinishedBy | None = None
    model: str = ""
    last: Chunk = field(default_factory=Chunk)

    def take(self, chunk: Chunk) -> None:
        """Take note of what a chunk says besides its text."""
        if chunk.text:
            self.begun = True
            self.output_tokens += 1
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.model = chunk.model or self.model
        if chunk.input_tokens is not None:
            self.input_tokens = chunk.input_tokens
        if chunk.output_tokens is not None:
            self.output_tokens = chunk.output_tokens
        if chunk.finish_reason is not None:
            self.last = chunk


class Answers:
    """Answers requests, many at a time. Used in one event loop; `now` gives seconds of any clock."""

    def __init__(
        self,
        clients: Mapping[str, Client],
        *,
        pool: Pool,
        routing: Routing,
        spending: Spending,
        meters: Meters,
        now: Callable[[], float],
    ) -> None:
        self._clients = clients
        self._pool = pool
        self._routing = routing
        self._spending = spending
        self._meters = meters
        self._now = now

    async def answer(self, request: GenerationRequest, emit: Emit) -> None:
        """Emit the pieces of one answer; raises PenstockError where no target gives it."""
        tiers = _able(self._routing.tiers(request.request_id, request.tenant), request)
        tried: set[str] = set()
        errors: list[PenstockError] = []
        told = _Told(emit)
        while True:
            try:
                turn = await self._pool.acquire(tiers, tried)
            except PenstockError as none_left:
                raise _soonest(errors or [none_left]) from None
            tried.add(turn.target.name)
            try:
                await self._call(turn, request, told)
            except PenstockError as error:
                if not may_go_on(error):
                    raise
                errors.append(error)
                told.void()
                self._meters.failovers.labels(turn.target.name, error.code).inc()
                _log.warning("inference.target.failed", target=turn.target.name, code=error.code)
            else:
                return

    async def mirror(self, request: GenerationRequest, target: Target) -> None:
        """Send a request to a shadow target where it has a place and the total budget has room; drop its answer."""
        turn = self._pool.at_once(target)
        if turn is None:
            return
        try:
            await self._call(turn, request, _Told(lambda piece: None), shadow=True)
        except PenstockError as error:
            # nobody waits for it: metrics and the breaker have counted it
            _log.info("inference.shadow.failed", target=target.name, code=error.code)
        except Exception as error:  # noqa: BLE001  # a bug, of which nobody else would hear
            _log.error("inference.request.failed", error_type=type(error).__name__, frames=frames(error))

    def shadows(self, request: GenerationRequest) -> list[Target]:
        """Where a request is mirrored."""
        return [
            target
            for target in self._routing.shadows(request.request_id, request.tenant)
            if not_served(request, target) is None
        ]

    async def _call(self, turn: Turn, request: GenerationRequest, told: _Told, *, shadow: bool = False) -> None:
        """One call at one target: paid for, counted, and its place given back, however it ends."""
        target = turn.target
        call = _Call(input_tokens_of(request))
        try:
            reservation = self._reserve(target, request, None if shadow else request.tenant)
        except PenstockError:
            turn.forget()
            raise
        began = self._now()
        code = "cancelled"
        try:
            await self._stream(target, request, call, told, began)
            turn.succeed()
            code = ""
        except Exception as raised:
            error = error_of(raised, target.name)
            if not is_known(raised):
                _log.warning("inference.target.unreadable", error_type=type(raised).__name__, frames=frames(raised))
            code = error.code
            turn.fail(error)
            raise error from raised
        finally:
            turn.forget()  # given back already, unless the call was cancelled
            cost = target.price.of(call.input_tokens, call.output_tokens)
            self._spending.settle(reservation, cost)
            self._meters.ended(target, self._now() - began, code)
            self._meters.used(target, call.input_tokens, call.output_tokens, cost)

    def _reserve(self, target: Target, request: GenerationRequest, tenant: str | None) -> Reservation:
        parameters = request.parameters
        most = target.price.of(input_tokens_of(request), parameters.max_tokens * (parameters.n or 1))
        try:
            return self._spending.reserve(tenant, most)
        except LimitExceeded:
            self._meters.refused.inc()
            raise

    async def _stream(self, target: Target, request: GenerationRequest, call: _Call, told: _Told, began: float) -> None:
        text = SafeText(request.parameters.stop)
        async with aclosing(self._clients[target.name].stream(request)) as chunks:
            async for chunk in chunks:
                if chunk.text and not call.begun:
                    self._meters.first(target, self._now() - began)
                call.take(chunk)
                if chunk.text:
                    told.more(
                        Piece(request.key, text.add(chunk.text), call.output_tokens, likelihoods=chunk.likelihoods)
                    )
        told.more(
            Piece(
                request.key,
                text.finish(),
                call.output_tokens,
                "stop" if text.stopped else call.finish_reason,
                prompt_tokens=call.input_tokens,
                provenance=_provenance(target, call),
                logprobs=call.last.logprobs,
                others=call.last.others,
            )
        )


class _Told:
    """What was emitted for one request, over all targets that tried."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._any = False
        self._void = False

    def more(self, piece: Piece) -> None:
        """Emit a piece; the first one of a new answer says that it is."""
        if self._void:
            piece = dataclasses.replace(piece, anew=True)
        self._any, self._void = True, False
        self._emit(piece)

    def void(self) -> None:
        """The target that was telling has failed."""
        self._void = self._any


def _provenance(target: Target, call: _Call) -> Provenance:
    model = call.model or target.model
    versions = {**call.last.versions, "model": f"{target.name}:{model}"}
    return Provenance(target.provider, model, target.host, versions)


def _able(tiers: Sequence[Tier], request: GenerationRequest) -> list[Tier]:
    """The tiers without targets that cannot give what is asked for.

    Raises InvalidRequest where none is left, StageError where that is for want of an adapter.
    """
    if not tiers:
        raise InvalidRequest("no target serves this tenant", field="header tenant")
    lacking: str | None = None
    able = []
    for tier in tiers:
        lacks = {target.name: not_served(request, target) for target in tier.targets}
        lacking = lacking or next(filter(None, lacks.values()), None)
        if found := tuple(target for target in tier.targets if lacks[target.name] is None):
            able.append(dataclasses.replace(tier, targets=found))
    if not able and lacking == ADAPTER:
        raise StageError(
            "the request asks for an adapter of the registry, which servers and the engine `genai` do not have; name a "
            "model of theirs, or add a local target with the engine `penstock`",
            code="unknown_adapter",
            field="model",
            limit="none",
        )
    if not able:
        raise InvalidRequest(
            f"{lacking}: not served through other servers; leave it out", code="unsupported_parameter", field=lacking
        )
    return able


def _soonest(errors: list[PenstockError]) -> PenstockError:
    """Of the targets' errors, the one that allows the next attempt first; the newest of several."""
    return min(reversed(errors), key=lambda error: getattr(error, "retry_after_s", None) or 0.0)
