"""What the inference service's suites generate with: a scripted backend, the tiny model, requests, a token sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from opentelemetry import trace
from tests.support.jobs import MemoryJob

from penstock.contracts.events import (
    CompletionGenerated,
    Event,
    Findings,
    GenerationParameters,
    PromptPart,
    RequestContext,
    RequestScreened,
    SealedVault,
    Source,
    TokensGenerated,
)
from penstock.runtime.stage import Inbound, Record
from penstock_inference.backend import Backend, GenerationRequest, Piece, RequestFault
from penstock_inference.generating import Generating
from penstock_inference.local import LocalBackend
from penstock_inference.runner import Limits

TINY = Path(__file__).parents[1] / "fixtures" / "tiny-lm"
NOW_MS = 1_700_000_000_000
VAULT = SealedVault(key_id="k1", wrapped_key="a", wrap_nonce="b", nonce="c", ciphertext="d")


class Sink:
    """Collects what is streamed. A slow one has not delivered it until the test calls what is `waiting`."""

    def __init__(self, error: Exception | None = None, *, slow: bool = False) -> None:
        self.slow = slow
        self.waiting: dict[str, Callable[[], None]] = {}
        self.sent: list[tuple[TokensGenerated, Inbound]] = []
        self._error = error

    def send(self, tokens: TokensGenerated, inbound: Inbound) -> None:
        if self._error is not None:
            raise self._error
        self.sent.append((tokens, inbound))

    def when_delivered(self, request_id: str, then: Callable[[], None]) -> None:
        if self.slow:
            self.waiting[request_id] = then
        else:
            then()

    def of(self, request_id: str) -> list[TokensGenerated]:
        return [tokens for tokens, _ in self.sent if tokens.request_id == request_id]


class Clock:
    """Seconds that pass only when told to; `step` of them at each reading."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 100.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Scripted:
    """A backend that says one word a step for each request, for as many steps as `max_tokens`, taking `seconds`.

    A step fails with what `faults` says of any prompt that runs.
    """

    versions: Mapping[str, str] = {"model": "scripted"}
    rows = 4

    def __init__(
        self, clock: Clock | None = None, seconds: float = 0.0, faults: Mapping[str, Exception] | None = None
    ) -> None:
        self._clock = clock or Clock()
        self._seconds = seconds
        self._faults = dict(faults or {})
        self.running: dict[int, tuple[GenerationRequest, int]] = {}
        self.seeds: list[int] = []
        self.widths: list[int] = []
        self.closed = False

    def add(self, request: GenerationRequest) -> int:
        self.seeds.append(request.seed)
        self.running[request.key] = (request, 0)
        return 5

    def step(self) -> Sequence[Piece]:
        self._clock.now += self._seconds
        self.widths.append(len(self.running))
        for key, (request, _) in self.running.items():
            fault = self._faults.get(request.prompt[0].text)
            if fault is not None:
                raise RequestFault(key, fault.__cause__) if isinstance(fault.__cause__, Exception) else fault
        pieces = []
        for key, (request, count) in list(self.running.items()):
            ends = count + 1 == request.parameters.max_tokens
            # every second token is held back, as a placeholder's beginning is
            text = f"w{count} " if count % 2 else ""
            pieces.append(Piece(key, text, count + 1, "length" if ends else None))
            self.running[key] = (request, count + 1)
            if ends:
                del self.running[key]
        return pieces

    def cancel(self, key: int) -> None:
        self.running.pop(key, None)

    def clear(self) -> None:
        self.running.clear()

    def wake(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def event_of(
    request_id: str = "r1", text: str = "the model", deadline_ms: int | None = None, **given: Any
) -> RequestScreened:
    return RequestScreened(
        context=RequestContext(
            request_id=request_id,
            conversation_id="c1",
            submitted_ms=NOW_MS - 50,
            deadline_ms=deadline_ms,
            source=Source(topic="llm.requests", partition=0, offset=1),
        ),
        findings=Findings(input_tokens=7, redactions={"PERSON": 1}),
        prompt=(PromptPart(kind="text", text=text),),
        parameters=GenerationParameters(**{"model": "tiny", "max_tokens": 6, **given}),
        vault=VAULT,
    )


def job_of(event: Event | None, span: trace.Span = trace.INVALID_SPAN) -> MemoryJob:
    record = Record("llm.screened", 0, 1, NOW_MS, b"c1", b"{}")
    return MemoryJob(Inbound(record=record, now_ms=NOW_MS, event=event, span=span))


def local(rows: int = 2, context: int | None = None) -> LocalBackend:
    return LocalBackend.load(TINY, Limits(rows=rows, context=context))


class Bench:
    """A backend's generations, stepped by the test."""

    def __init__(self, backend: Backend, clock: Clock | None = None, sink: Sink | None = None) -> None:
        self.sink = sink or Sink()
        self.clock = clock or Clock()
        self.generating = Generating(backend, self.sink, self.clock)

    def begin(self, *events: Event | None, span: trace.Span = trace.INVALID_SPAN) -> list[MemoryJob]:
        jobs = [job_of(event, span) for event in events]
        for job in jobs:
            self.generating.begin(job, self.clock())
        return jobs

    def run(self, *events: Event | None, span: trace.Span = trace.INVALID_SPAN) -> list[MemoryJob]:
        jobs = self.begin(*events, span=span)
        for _ in range(10_000):
            if not len(self.generating):
                return jobs
            self.generating.step()
        raise AssertionError("the generations do not end")


def completed(job: MemoryJob) -> CompletionGenerated:
    assert isinstance(job.outcome, CompletionGenerated), job.outcome
    return job.outcome


def answers(backend: LocalBackend, *requests: GenerationRequest) -> dict[int, tuple[str, str | None]]:
    """Texts and finish reasons by key."""
    texts: dict[int, tuple[str, str | None]] = {}
    for each in requests:
        backend.add(each)
    while pieces := backend.step():
        for piece in pieces:
            text, _ = texts.get(piece.key, ("", None))
            texts[piece.key] = (text + piece.text, piece.finish_reason)
    return texts
