"""`penstock.runtime.stage`: what stages build on."""

from __future__ import annotations

import gc
import weakref

import pytest
from opentelemetry.sdk.trace import TracerProvider

from penstock.contracts.base import Message
from penstock.contracts.errors import InvalidRequest, StageError
from penstock.contracts.events import Event, RequestContext, RequestPreprocessed, RequestScreened, Source
from penstock.runtime.stage import Inbound, PerRecord, Record

CONTEXT = RequestContext(
    request_id="r1", conversation_id="c1", submitted_ms=0, source=Source(topic="t", partition=0, offset=0)
)
RECORD = Record("t", 0, 0, 0, None, None)


class OneByOne(PerRecord):
    """Refuses offset 1, breaks on offset 2."""

    def process_one(self, inbound: Inbound) -> Message:
        if inbound.record.offset == 1:
            raise InvalidRequest("bad")
        if inbound.record.offset == 2:
            raise KeyError("bug")
        return Event(context=CONTEXT)


def inbound(offset: int) -> Inbound:
    return Inbound(record=Record("t", 0, offset, 0, None, None), now_ms=0)


def test_a_typed_error_becomes_the_outcome_of_its_record() -> None:
    first, second, third = OneByOne().process([inbound(0), inbound(1), inbound(3)])
    assert isinstance(first, Event)
    assert isinstance(second, InvalidRequest)
    assert isinstance(third, Event)


def test_an_error_that_is_kept_needs_no_collector_to_be_freed() -> None:
    class Holding(PerRecord):
        def process_one(self, inbound: Inbound) -> Message:
            try:
                raise KeyError("inner")
            except KeyError:
                held = InvalidRequest("bad")  # by its frame too
                raise held from None

    gc.disable()
    try:
        outcomes = list(Holding().process([inbound(0)]))
        error = weakref.ref(outcomes.pop())
        assert error() is None
    finally:
        gc.enable()


def test_a_bug_is_left_to_the_runtime() -> None:
    with pytest.raises(KeyError):
        OneByOne().process([inbound(0), inbound(2)])


def test_an_event_is_taken_as_the_expected_kind_or_is_the_stages_error() -> None:
    event = RequestPreprocessed.model_construct(context=CONTEXT)
    assert Inbound(record=RECORD, now_ms=0, event=event).expect(RequestPreprocessed) is event
    with pytest.raises(StageError) as caught:
        Inbound(record=RECORD, now_ms=0, event=event).expect(RequestScreened)
    assert caught.value.code == "unexpected_event"


def test_the_trace_id_is_there_where_tracing_is_on() -> None:
    assert Inbound(record=RECORD, now_ms=0).trace_id is None
    span = TracerProvider().get_tracer("t").start_span("x")
    assert Inbound(record=RECORD, now_ms=0, span=span).trace_id == f"{span.get_span_context().trace_id:032x}"
