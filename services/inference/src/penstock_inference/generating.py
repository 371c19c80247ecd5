"""The answers being generated: jobs in, pieces streamed, each job finished the moment its answer is complete.

Used by one thread, which calls `step` as long as there is something to do; threads and queueing are the
stage's. How tokens are made is the backend's work.

A failing step fails as little as it can. Where the backend names the request at fault, that one fails and
the others go on untouched. Else all that ran are suspects: each is generated again from its beginning, alone,
and only those that fail alone are given up. What was streamed is not streamed again (`streamed`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog
from opentelemetry.trace import Span

from penstock.contracts.adapters import ADAPTER
from penstock.contracts.errors import Expired, PenstockError, StageError
from penstock.contracts.events import (
    CLOSING_SEQUENCE,
    Completion,
    CompletionGenerated,
    FinishReason,
    RequestScreened,
    StreamOpening,
    TokensGenerated,
    Usage,
)
from penstock.contracts.results import Status
from penstock.runtime.logging import frames
from penstock.runtime.stage import Inbound, Job, TokenSink
from penstock_inference import spans
from penstock_inference.backend import Backend, GenerationRequest, Piece, Prompts, RequestFault
from penstock_inference.sampler import resolve_seed
from penstock_inference.streamed import Streamed, Unfinished

_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _InFlight:
    key: int
    job: Job
    event: RequestScreened
    span: Span
    started: float
    prompt_tokens: int = 0
    tokens: int = 0
    first_token_ms: float | None = None
    pieces: list[str] = field(default_factory=list)
    streams: dict[int, Streamed] = field(default_factory=dict)
    """By the number of the answer."""

    def stream(self, index: int) -> Streamed:
        """Of one answer."""
        return self.streams.setdefault(index, Streamed())

    def begin_anew(self) -> None:
        """All answers begin again."""
        self.pieces = []
        for stream in self.streams.values():
            stream.begin_anew()


class Generating:
    """All jobs that the backend has, or that wait to be tried alone. `monotonic` gives seconds."""

    def __init__(self, backend: Backend, sink: TokenSink, monotonic: Callable[[], float]) -> None:
        self._backend = backend
        self._sink = sink
        self._monotonic = monotonic
        self._in_flight: dict[int, _InFlight] = {}
        self._suspects: deque[_InFlight] = deque()
        self._unfinished = Unfinished()
        self._next_key = 0

    def __len__(self) -> int:
        return len(self._in_flight) + len(self._suspects)

    @property
    def isolating(self) -> bool:
        """Whether requests are tried alone, after a failure: no other may join."""
        return bool(self._suspects) or any(request.key < 0 for request in self._in_flight.values())

    def begin(self, job: Job, started: float) -> None:
        """Give a job to the backend; one that cannot run is finished at once. `started` is when it came."""
        try:
            event = job.inbound.expect(RequestScreened)
        except PenstockError as error:
            job.finish(error)
            return
        span = spans.open_chat(job.inbound.span, event.parameters, event.context.versions)
        self._next_key += 1
        streams = self._unfinished.take(event.context.request_id)
        self._add(_InFlight(self._next_key, job, event, span, started, streams=streams))

    def cancel(self, job: Job) -> None:
        """Give a job up; its place is free at the next step. One that has ended is left alone."""
        for request in [*self._in_flight.values(), *self._suspects]:
            if request.job is job:
                self._drop(request)
                spans.fail_chat(request.span, "cancelled")
                return

    def end_streams(self, inbound: Inbound, status: Status) -> None:
        """Tell the readers of a request's streams that it ended without an answer, wherever each of them stands.

        Another process may have told what they have, so this asks nothing of what is known here.
        """
        event = inbound.expect(RequestScreened)
        self._unfinished.take(event.context.request_id)
        for index in range(event.parameters.n or 1):
            piece = TokensGenerated(
                request_id=event.context.request_id,
                index=index,
                sequence=CLOSING_SEQUENCE,
                text="",
                finish_reason="cancelled",
                ended=status if status in ("cancelled", "expired") else "failed",
            )
            self._hand_on(piece, inbound)

    def clear(self) -> None:
        """Give all jobs up."""
        self._backend.clear()
        for request in [*self._in_flight.values(), *self._suspects]:
            spans.fail_chat(request.span, "abandoned")
        self._in_flight.clear()
        self._suspects.clear()

    def step(self) -> None:
        """End what is too late, bring the rest one step further, and finish what is complete."""
        self._expire()
        if not self._in_flight and self._suspects:
            self._add(self._suspects.popleft())
        if not self._in_flight:
            return
        try:
            pieces = self._backend.step()
            if pieces is None:
                return
            if not pieces:
                raise StageError("the backend is idle with requests in flight", code="backend_idle")
        except RequestFault as fault:
            cause = fault.cause
            self._fail(self._in_flight[fault.key], cause if isinstance(cause, PenstockError) else _bug(cause))
            return
        except PenstockError as error:
            for request in list(self._in_flight.values()):
                self._fail(request, error)
            return
        except Exception as error:  # noqa: BLE001  # any bug below: isolated, logged, dead-lettered
            self._isolate(error)
            return
        for piece in pieces:
            told = self._in_flight.get(piece.key)
            if told is None:
                continue  # an earlier piece of the same step was its end
            try:
                self._advance(told, piece)
            except Exception as error:  # noqa: BLE001  # as above, and of this request alone
                self._fail(told, _bug(error))

    def _add(self, request: _InFlight) -> None:
        event = request.event
        try:
            seed = resolve_seed(event.parameters.seed, event.context.request_id)
            request.prompt_tokens = self._backend.add(
                GenerationRequest(
                    request.key,
                    event.prompt,
                    event.parameters,
                    seed,
                    event.context.request_id,
                    event.context.tenant,
                    event.findings.input_tokens,
                    Prompts.of(event.context.versions),
                    event.context.versions.get(ADAPTER),
                )
            )
        except PenstockError as error:
            self._end(request, error)
        except Exception as error:  # noqa: BLE001  # any bug below: logged, dead-lettered
            self._end(request, _bug(error))
        else:
            self._in_flight[request.key] = request

    def _isolate(self, error: Exception) -> None:
        requests = list(self._in_flight.values())
        _log.warning(
            "inference.step.failed", error_type=type(error).__name__, frames=frames(error), requests=len(requests)
        )
        self._backend.clear()
        self._in_flight.clear()
        if len(requests) == 1:
            self._end(requests[0], _bug(error))
            return
        for request in requests:
            # a negative key marks one that is tried alone
            request.key = -abs(request.key)
            request.tokens = 0
            request.begin_anew()
        self._suspects.extend(requests)

    def _advance(self, request: _InFlight, piece: Piece) -> None:
        if piece.tokens == 0 and piece.finish_reason is None:  # its prompt is still being read
            return
        if request.first_token_ms is None:
            request.first_token_ms = self._elapsed_ms(request)
            if piece.cached is None:  # a kept answer says nothing of how busy the model is
                request.job.first_output()
        if piece.anew:
            request.begin_anew()
        request.tokens = piece.tokens
        request.pieces.append(piece.text)
        if piece.text or piece.finish_reason is not None:
            request.stream(0).note(piece.likelihoods, piece.logprobs)
            self._stream(request, piece.text, piece.finish_reason)
        if piece.beside is not None:
            request.stream(piece.beside.number).note(piece.beside.likelihoods)
            self._stream(request, piece.beside.text, piece.beside.finish_reason, piece.beside.number)
        if piece.finish_reason is None:
            return
        for number, other in enumerate(piece.others, 1):
            if not request.stream(number).ended:
                request.stream(number).begin_anew()  # it is told whole here: what was told of it is held back
                request.stream(number).note((), other.logprobs)
                self._stream(request, other.text, other.finish_reason, number)
        del self._in_flight[piece.key]
        event = request.event
        context = event.context
        if piece.prompt_tokens is not None:
            request.prompt_tokens = piece.prompt_tokens
        if piece.provenance is not None:
            context = context.having(versions={**context.versions, **piece.provenance.versions})
        completion = Completion(
            text="".join(request.pieces),
            finish_reason=piece.finish_reason,
            usage=Usage(
                prompt_tokens=request.prompt_tokens,
                completion_tokens=request.tokens,
                total_tokens=request.prompt_tokens + request.tokens,
            ),
            time_to_first_token_ms=request.first_token_ms,
            logprobs=piece.logprobs,
            cached=piece.cached,
        )
        spans.close_chat(request.span, completion, piece.provenance)
        finished = CompletionGenerated(
            context=context,
            findings=event.findings,
            completion=completion,
            others=piece.others or None,
            parameters=event.parameters,
            vault=event.vault,
        )
        self._sink.when_delivered(context.request_id, partial(_finish, request.job, finished))

    def _expire(self) -> None:
        for request in [*self._in_flight.values(), *self._suspects]:
            deadline = request.event.context.deadline_ms
            if deadline is None or request.job.inbound.now_ms + self._elapsed_ms(request) < deadline:
                continue
            self._drop(request)
            error = Expired(
                f"the deadline passed after {request.tokens} generated tokens; allow more time or ask for fewer tokens",
                field="header deadline",
                limit=deadline,
            )
            self._end(request, error)

    def _fail(self, request: _InFlight, error: PenstockError) -> None:
        self._drop(request)
        self._end(request, error)

    def _drop(self, request: _InFlight) -> None:
        if self._in_flight.pop(request.key, None) is not None:
            self._backend.cancel(request.key)
        elif request in self._suspects:
            self._suspects.remove(request)

    def _end(self, request: _InFlight, error: PenstockError) -> None:
        spans.fail_chat(request.span, error.code)
        if error.retriable:
            self._unfinished.put(request.event.context.request_id, request.streams)
        request.job.finish(error)

    def _stream(self, request: _InFlight, text: str, finish_reason: FinishReason | None, index: int = 0) -> None:
        fresh = request.stream(index).more(text, last=finish_reason is not None)
        if fresh is None:
            self._send(request, "", "cancelled", index)
        elif fresh or finish_reason is not None:
            self._send(request, fresh, finish_reason, index)

    def _send(self, request: _InFlight, text: str, finish_reason: FinishReason | None, index: int) -> None:
        stream = request.stream(index)
        if not request.event.parameters.stream or stream.ended:
            return
        piece = TokensGenerated(
            request_id=request.event.context.request_id,
            index=index,
            sequence=stream.sequence,
            text=text,
            finish_reason=finish_reason,
            logprobs=stream.likelihoods() if text or finish_reason not in (None, "cancelled") else None,
            opening=None
            if stream.sequence
            else StreamOpening(parameters=request.event.parameters, vault=request.event.vault),
        )
        stream.sequence += 1
        stream.ended = finish_reason is not None
        self._hand_on(piece, request.job.inbound)

    def _hand_on(self, piece: TokensGenerated, inbound: Inbound) -> None:
        try:
            self._sink.send(piece, inbound)
        except Exception as error:  # noqa: BLE001  # the result has the whole answer: a stream must not be its end
            _log.error("inference.stream.failed", error_type=type(error).__name__, frames=frames(error))

    def _elapsed_ms(self, request: _InFlight) -> float:
        return (self._monotonic() - request.started) * 1000.0


def _finish(job: Job, finished: CompletionGenerated) -> None:
    """The end of a job with an answer, in whichever thread heard that its stream has arrived."""
    try:
        job.finish(finished)
    except Exception as error:  # noqa: BLE001  # any bug below: logged, dead-lettered
        job.finish(_bug(error))


def _bug(error: BaseException) -> StageError:
    """An unexpected exception: logged here with its place, for the request a StageError."""
    _log.error("inference.request.failed", error_type=type(error).__name__, frames=frames(error))
    return StageError(f"unexpected {type(error).__name__} while generating; the log of stage inference has the place")
