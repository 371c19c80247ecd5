"""`penstock.runtime.processor`: what is cancelled ends before the stage, or goes no further after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tests.support.processing import NOW_MS, PASSED, Bench, Toy, record

from penstock.contracts.control import Cancel
from penstock.contracts.events import GenerationParameters, RequestContext, RequestPreprocessed, Source
from penstock.contracts.results import RequestFinished
from penstock.contracts.topics import REQUESTS
from penstock.runtime.cancellations import Cancellations
from penstock.runtime.stage import Inbound, Outcome


def cancelling(*commands: Cancel) -> Cancellations:
    cancellations = Cancellations(max_entries=10, max_age_ms=60_000, clock_ms=lambda: NOW_MS)
    for command in commands:
        cancellations.put(command)
    return cancellations


def test_a_cancelled_request_ends_before_the_stage_and_has_no_dead_letter() -> None:
    stage = Toy()
    bench = Bench(stage, cancellations=cancelling(Cancel(request_id="b", reason="enough", issued_ms=NOW_MS)))
    settled = bench.processor.run([record("a"), record("b", deadline_ms=NOW_MS - 1), record("c")])
    assert stage.batches == [["a", "c"]]
    (output,) = settled[1].outputs
    assert (output.topic, settled[1].status, settled[1].code) == ("llm.results", "cancelled", "cancelled")
    assert output.value is not None
    error = RequestFinished.model_validate_json(output.value).error
    assert error is not None
    assert (error.message, error.stage) == ("cancelled by its request id: enough", "toy")


def test_a_request_cancelled_while_the_stage_has_it_goes_no_further() -> None:
    cancellations = cancelling()

    def cancel(request_id: str) -> None:
        cancellations.put(Cancel(request_id="b", issued_ms=NOW_MS))

    bench = Bench(Toy(cancel), cancellations=cancellations)
    assert bench.run(record("a"), record("b")) == [PASSED, ["llm.results/cancelled"]]


def test_a_raw_request_is_cancelled_once_it_is_known_whose_it_is() -> None:
    context = RequestContext(
        request_id="r",
        conversation_id="c",
        tenant="acme",
        submitted_ms=NOW_MS,
        source=Source(topic="t", partition=0, offset=0),
    )

    class Reading:
        name = "toy"
        versions: ClassVar[dict[str, str]] = {}

        def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
            parameters = GenerationParameters(model="m", max_tokens=1)
            return [RequestPreprocessed(context=context, prompt=(), parameters=parameters) for _ in batch]

    bench = Bench(Reading(), cancellations=cancelling(Cancel(tenant="acme", issued_ms=NOW_MS)))
    assert bench.run(record("r", topic=f"p.{REQUESTS}", headers=())) == [["llm.results/cancelled"]]
