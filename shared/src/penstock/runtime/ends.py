"""The end of requests whose lane is delivered at least once: the first result of each stands, repeats are dropped.

It runs in the last service's worker, which writes in transactions: a result, the note that its request has one
(`llm.state.finished`) and the offset become visible together or not at all. All ends of a request come through
one partition (`penstock.runtime.detour`), so one instance decides, and a zombie's decision is refused with its
offsets. A dead letter sent again has a result of its own: the note is kept by request id and `redrive-of`.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Final

from pydantic import ValidationError

from penstock.contracts.claims import CLAIM
from penstock.contracts.errors import PenstockError, StageError
from penstock.contracts.headers import REDRIVE_OF, REQUEST_ID, SCHEMA
from penstock.contracts.results import RequestFinished
from penstock.contracts.topics import RESULTS
from penstock.runtime import telemetry
from penstock.runtime.cancellations import Cancellations
from penstock.runtime.kafka import Names
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.outcomes import Output, Settled
from penstock.runtime.processor import Processor
from penstock.runtime.settings import ServiceSettings
from penstock.runtime.stage import Inbound, Outcome, Record, Stage, State

_FINISHED: Final = f"{RequestFinished.schema_name}/".encode()
_OWN: Final = frozenset({CLAIM, "traceparent", "tracestate"})
"""Headers that are written anew with each record."""


class End(Processor):
    """The last stage's processor; it also carries to `llm.results` what other services have ended."""

    def __init__(
        self,
        stage: Stage,
        settings: ServiceSettings,
        *,
        finished: State | None,
        names: Names,
        metrics: StageMetrics,
        stopping: threading.Event,
        cancellations: Cancellations | None = None,
    ) -> None:
        """`finished` is the table of requests that have their result, written in the batch's transaction.

        None where nothing is repeated: what others have ended, before delivery was switched, is carried all the same.
        """
        super().__init__(stage, settings, names=names, metrics=metrics, stopping=stopping, cancellations=cancellations)
        self._finished = finished
        self._repeats = metrics.repeats.labels(stage.name)

    def open(self, record: Record, start_ns: int) -> tuple[Inbound, Outcome | None]:
        """As of any stage; a request that has ended before comes with its result as the outcome."""
        if not (record.named.get(SCHEMA) or b"").startswith(_FINISHED):
            return super().open(record, start_ns)
        topic, group, _ = self._inputs.get(record.topic) or self._input(record.topic)
        inbound = Inbound(record, start_ns // 1_000_000, None, telemetry.start_process(record, topic, group, start_ns))
        try:
            inbound.record = self._claims.opened(record, topic)
            return inbound, _result(inbound.record)
        except PenstockError as error:
            return inbound, error

    def settle(self, inbound: Inbound, outcome: Outcome, *, finished_ms: int, attempts: int) -> Settled:
        """As of any stage; nothing is written for a request that has its result."""
        if inbound.event is None and isinstance(outcome, RequestFinished):
            try:
                return self._once(self._carried(inbound, finished_ms))
            except PenstockError as error:
                outcome = error
        return self._once(super().settle(inbound, outcome, finished_ms=finished_ms, attempts=attempts))

    def _carried(self, inbound: Inbound, finished_ms: int) -> Settled:
        """The result as it came; who ended the request has counted it."""
        record = inbound.record
        assert record.value is not None, "it has been read"
        kept = self._claims.check_in(RESULTS, record.value, finished_ms)
        span = telemetry.start_send(inbound.span, RESULTS, self._names.topic(RESULTS))
        headers = [header for header in record.headers if header[0] not in _OWN]
        headers += telemetry.inject(span)
        headers += kept.headers
        span.end()
        inbound.span.end()
        settled = Settled(inbound, [Output(RESULTS, record.key, kept.value, headers)])
        return settled if record.in_topic is None else settled.without_claimed()

    def _once(self, settled: Settled) -> Settled:
        if self._finished is None or (key := _key(settled)) is None:
            return settled
        if self._finished.get(key) is None:
            self._finished.put(key, settled.inbound.record.source.place)
            return settled
        self._repeats.inc()
        return replace(settled, outputs=[], status=None, code=None)


def _result(record: Record) -> RequestFinished:
    """The result in a record; raises UnsupportedSchema or StageError."""
    RequestFinished.accepts((record.named.get(SCHEMA) or b"").decode("utf-8", "replace"))
    try:
        return RequestFinished.model_validate_json(record.value or b"")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise StageError(
            f"{where}: not a {RequestFinished.schema_ref()} ({first['type']})", code="invalid_event", field=where
        ) from None


def _key(settled: Settled) -> str | None:
    """Of the request that ends with these outputs; None where it does not end here."""
    for output in settled.outputs:
        if output.topic == RESULTS:
            request_id = dict(output.headers)[REQUEST_ID] or b""
            again = settled.inbound.record.named.get(REDRIVE_OF)
            return (request_id if again is None else request_id + b" " + again).decode("utf-8", "replace")
    return None
