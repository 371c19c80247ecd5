"""`penstock.runtime.detour` and `penstock.runtime.ends`: requests end in one place, each once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from penstock.contracts import topics
from penstock.contracts.base import Message
from penstock.contracts.errors import InvalidRequest, PenstockError
from penstock.contracts.events import (
    Completion,
    CompletionGenerated,
    CompletionScreened,
    Event,
    GenerationParameters,
    Priority,
    RequestContext,
    RequestPreprocessed,
    Source,
    Usage,
)
from penstock.contracts.headers import REDRIVE_OF, of_context
from penstock.contracts.results import RequestFinished
from penstock.contracts.terminal import finish
from penstock.runtime.detour import Detour
from penstock.runtime.ends import End
from penstock.runtime.kafka import Names
from penstock.runtime.metrics import StageMetrics
from penstock.runtime.outcomes import Output
from penstock.runtime.processor import Processor
from penstock.runtime.settings import ServiceSettings
from penstock.runtime.stage import Inbound, Outcome, Record

NAMES = Names("p.")
PARAMETERS = GenerationParameters(model="m", max_tokens=1)
COMPLETION = Completion(
    text="yes", finish_reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2)
)
PLACE = "p.llm.anonymized/0/7"


class Stage:
    """Passes on, or ends in what a test says."""

    versions: dict[str, str] = {}  # noqa: RUF012  # as a stage has it

    def __init__(self, name: str, outcome: PenstockError | None = None) -> None:
        self.name = name
        self.outcome = outcome

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        return [self.outcome or self._pass(inbound) for inbound in batch]

    def _pass(self, inbound: Inbound) -> Message:
        match inbound.event:
            case CompletionGenerated() as event:
                return CompletionScreened(context=event.context, completion=event.completion, parameters=PARAMETERS)
            case event:
                assert event is not None
                return finish(event, status="completed", now_ms=1)


class Table(dict[str, str]):
    """A state store's side that a processor sees."""

    def put(self, key: str, value: str) -> None:
        self[key] = value


class Path:
    """A service that ends or passes on, and the last one behind it."""

    def __init__(self) -> None:
        self.table = Table()
        self.metrics = StageMetrics("postprocess")
        self.stage = Stage("postprocess")
        common: dict[str, Any] = {"names": NAMES, "stopping": threading.Event()}
        self.end = End(self.stage, ServiceSettings(), finished=self.table, metrics=self.metrics, **common)
        self.common = common

    def service(self, record: Record, error: PenstockError | None = None) -> list[Output]:
        """What safety writes for a record, in latency mode."""
        processor = Processor(
            Stage("safety", error),
            ServiceSettings(),
            metrics=StageMetrics("safety"),
            detour=Detour(NAMES),
            **self.common,
        )
        return processor.run([record])[0].outputs

    def last(self, *records: Record) -> list[list[Output]]:
        return [settled.outputs for settled in self.end.run(records)]

    @property
    def dropped(self) -> float:
        return self.metrics.repeats.labels("postprocess")._value.get()


def context(request_id: str = "a", came: str = topics.REQUESTS, priority: Priority = "interactive") -> RequestContext:
    source = Source(topic=NAMES.topic(came), partition=0, offset=0)
    return RequestContext(request_id=request_id, conversation_id="c", submitted_ms=1, source=source, priority=priority)


def record(event: Event, topic: str, *more: tuple[str, bytes]) -> Record:
    headers = (*of_context(event.context, event.schema_ref()), *more)
    return Record(NAMES.topic(topic), 0, 1, 1, b"c", event.encode(), headers)


def generated(*more: tuple[str, bytes], **of: Any) -> Record:
    event = CompletionGenerated(context=context(**of), completion=COMPLETION, parameters=PARAMETERS)
    return record(event, topics.in_lane(topics.COMPLETIONS, event.context.priority), *more)


def arrived(output: Output, offset: int = 1) -> Record:
    """What was written, as the next service reads it."""
    assert output.key == b"c", "ends of one request stand in one partition"
    return Record(NAMES.topic(output.topic), 0, offset, 1, output.key, output.value, tuple(output.headers))


def topics_of(outputs: Sequence[Output]) -> list[str]:
    return [output.topic for output in outputs]


@pytest.fixture
def path() -> Path:
    return Path()


def untraced(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, bytes | None]]:
    """Without the span's id: where spans are recorded, each sending has its own."""
    return [(name, value[:35] if name == "traceparent" and value else value) for name, value in headers]


def test_an_end_goes_by_way_of_the_last_service_and_comes_out_as_it_was(path: Path) -> None:
    ended, letter = path.service(generated(), InvalidRequest("no"))
    assert (ended.topic, letter.topic) == (topics.SCREENED_COMPLETIONS, topics.DEAD_LETTERS)
    [[result]] = path.last(arrived(ended))
    assert (result.topic, result.key, result.value) == (topics.RESULTS, b"c", ended.value)
    assert untraced(result.headers) == untraced(ended.headers)
    finished = RequestFinished.model_validate_json(result.value or b"")
    assert finished.error is not None
    assert (finished.status, finished.error.stage) == ("failed", "safety")


def test_of_several_ends_of_a_request_the_first_stands_whatever_they_are(path: Path) -> None:
    [passed] = path.service(generated())
    ended = path.service(generated(), InvalidRequest("no"))[0]
    first, *rest = path.last(arrived(ended, 1), arrived(passed, 2), arrived(ended, 3))
    assert topics_of(first) == [topics.RESULTS]
    assert rest == [[], []]
    assert path.last(arrived(passed, 4)) == [[]], "in a later batch, too"
    assert path.dropped == 3
    assert list(path.table) == ["a"]


def test_a_repeat_that_fails_in_the_last_service_leaves_neither_result_nor_letter(path: Path) -> None:
    [passed] = path.service(generated())
    path.last(arrived(passed))
    path.stage.outcome = InvalidRequest("no")
    assert path.last(arrived(passed)) == [[]]
    [other] = path.service(generated(request_id="b"))
    assert topics_of(path.last(arrived(other))[0]) == [topics.RESULTS, topics.DEAD_LETTERS]


def test_a_letter_sent_again_has_a_result_of_its_own_and_its_repeats_have_none(path: Path) -> None:
    path.last(arrived(path.service(generated(), InvalidRequest("no"))[0]))
    again = (REDRIVE_OF, PLACE.encode())
    [passed] = path.service(generated(again))
    assert again in passed.headers
    assert [topics_of(one) for one in path.last(arrived(passed), arrived(passed))] == [[topics.RESULTS], []]
    assert topics_of(path.last(arrived(path.service(generated((REDRIVE_OF, b"p.llm.x/0/9")))[0]))[0]) == [
        topics.RESULTS
    ]


@pytest.mark.parametrize(
    ("came", "priority", "ends", "passes"),
    [
        ("llm.requests", "interactive", "llm.screened-completions", "llm.screened-completions"),
        ("llm.requests", "bulk", "llm.screened-completions", "llm.screened-completions"),  # demoted
        ("llm.requests.bulk", "bulk", "llm.results", "llm.screened-completions.bulk"),
        ("llm.anonymized", "interactive", "llm.screened-completions", "llm.screened-completions"),  # salvaged
    ],
)
def test_all_that_may_have_been_repeated_ends_in_one_place(
    path: Path, *, came: str, priority: Priority, ends: str, passes: str
) -> None:
    inbound = generated(came=came, priority=priority)
    assert path.service(inbound, InvalidRequest("no"))[0].topic == ends
    assert topics_of(path.service(inbound)) == [passes]


def test_the_way_between_the_first_services_is_as_it_was(path: Path) -> None:
    event = RequestPreprocessed(context=context(priority="bulk"), prompt=(), parameters=PARAMETERS)
    assert Detour(NAMES).topic("llm.anonymized.bulk", event.context) == "llm.anonymized.bulk"
    assert Detour(NAMES).topic("llm.dead-letters", event.context) == "llm.dead-letters"


def test_where_nothing_is_repeated_an_end_from_before_is_carried(path: Path) -> None:
    end = End(path.stage, ServiceSettings(), finished=None, metrics=path.metrics, **path.common)
    ended = arrived(path.service(generated(), InvalidRequest("no"))[0])
    assert [topics_of(settled.outputs) for settled in end.run([ended, ended])] == [[topics.RESULTS]] * 2


@pytest.mark.parametrize(
    ("value", "schema", "code"),
    [
        (b"{}", b"penstock.request-finished/1", "invalid_event"),
        (None, b"penstock.request-finished/1", "invalid_event"),
        (b"{}", b"penstock.request-finished/99", "unsupported_schema_version"),
    ],
)
def test_an_end_that_cannot_be_read_is_a_failed_result(
    path: Path, value: bytes | None, schema: bytes, code: str
) -> None:
    headers = (*of_context(context(), "x/1"), ("schema", schema))
    bad = Record(NAMES.topic(topics.SCREENED_COMPLETIONS), 0, 1, 1, b"c", value, headers)
    [settled] = path.end.run([bad])
    assert topics_of(settled.outputs) == [topics.RESULTS, topics.DEAD_LETTERS]
    assert settled.code == code
