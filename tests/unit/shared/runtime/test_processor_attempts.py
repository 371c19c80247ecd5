"""`penstock.runtime.processor`: what may succeed later is tried again, in place or by way of a topic, or expires."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.processing import NOW_MS, PASSED, Bench, Toy, record

from penstock.contracts.delays import Delayed
from penstock.contracts.errors import BackendUnavailable, RateLimited
from penstock.contracts.results import RequestFinished
from penstock.contracts.topics import PREPROCESSED
from penstock.runtime.claims import Claims
from penstock.runtime.processor import Interrupted
from penstock.runtime.stage import Inbound, Outcome


def test_only_what_may_yet_succeed_is_tried_again() -> None:
    tries: Counter[str] = Counter()

    def act(request_id: str) -> Exception | None:
        tries[request_id] += 1
        return BackendUnavailable("down") if request_id == "a" and tries["a"] < 3 else None

    stage = Toy(act)
    bench = Bench(stage)
    assert bench.run(record("a"), record("b")) == [PASSED, PASSED]
    assert stage.batches == [["a", "b"], ["a"], ["a"]]
    labels = {"stage": "toy", "how": "in_place", "code": "backend_unavailable"}
    assert bench.metrics.registry.get_sample_value("penstock_retries_total", labels) == 2


def test_attempts_are_bounded_and_counted_in_the_dead_letter() -> None:
    stage = Toy(lambda _: BackendUnavailable("down"))
    (settled,) = Bench(stage, retry_attempts=3).processor.run([record("a")])
    assert len(stage.batches) == 3
    letter = dict(settled.outputs[1].headers)["dead-letter"]
    assert letter is not None
    assert b'"attempts":3' in letter
    assert settled.code == "backend_unavailable"


def test_a_long_wait_leaves_the_batch_and_the_others_go_on() -> None:
    class Safety(Toy):
        name = "safety"

    stage = Safety(lambda request_id: RateLimited("slow", retry_after_s=30) if request_id == "a" else None)
    bench = Bench(stage)
    delayed, passed = bench.processor.run([record("a"), record("b")])
    assert [output.topic for output in passed.outputs] == PASSED
    (waiting,) = delayed.outputs
    assert waiting.topic == "llm.retry.safety"
    known = Delayed.of(waiting.headers)
    assert known is not None
    assert known.attempts == 1
    # the policy of 429 draws up to a second on top of what was asked for
    assert NOW_MS + 30_000 <= known.not_before_ms <= NOW_MS + 31_000
    labels = {"stage": "safety", "how": "delayed", "code": "rate_limited"}
    assert bench.metrics.registry.get_sample_value("penstock_retries_total", labels) == 1


def test_attempts_before_a_delay_are_counted() -> None:
    class Safety(Toy):
        name = "safety"

    stage = Safety(lambda _: BackendUnavailable("down"))
    first = record("a")
    known = Delayed(3, NOW_MS, first.source, "backend_unavailable")
    again = record("a", offset=9, headers=(*first.headers, *known.headers()))
    bench = Bench(stage, retry_attempts=5)
    (settled,) = bench.processor.run([again])
    assert len(stage.batches) == 2
    assert b'"attempts":5' in (dict(settled.outputs[1].headers)["dead-letter"] or b"")
    labels = {"stage": "safety", "code": "backend_unavailable"}
    assert bench.metrics.registry.get_sample_value("penstock_retries_exhausted_total", labels) == 1


def test_a_claimed_record_that_waited_is_read_and_waits_again_as_a_claim(tmp_path: Path) -> None:
    class Safety(Toy):
        name = "safety"

    claims = Claims.open(str(tmp_path), threshold=1)
    whole = record("a")
    kept = claims.check_in(PREPROCESSED, whole.value or b"", NOW_MS)
    headers = (*whole.headers, *kept.headers)
    known = Delayed(1, NOW_MS, whole.source, "rate_limited")
    again = record("a", offset=9, value=kept.value, headers=(*headers, *known.headers()))
    stage = Safety(lambda _: RateLimited("slow", retry_after_s=30))
    (settled,) = Bench(stage, claim_store=str(tmp_path)).processor.run([again])
    assert stage.batches == [["a"]], "the stage is given the event"
    (waiting,) = settled.outputs
    assert (waiting.topic, waiting.value) == ("llm.retry.safety", kept.value)
    assert tuple(waiting.headers[:-4]) == headers
    found = Delayed.of(waiting.headers)
    assert found is not None
    assert (found.attempts, found.retry_of) == (2, whole.source)
    assert settled.inbound.record.in_topic is settled.inbound.event is None, "the value is not held"


def test_no_attempt_is_planned_beyond_the_deadline_and_the_error_is_named() -> None:
    stage = Toy(lambda _: RateLimited("slow", retry_after_s=30))
    (settled,) = Bench(stage).processor.run([record("a", deadline_ms=NOW_MS + 29_000)])
    assert (settled.status, settled.code) == ("expired", "deadline_exceeded")
    result = RequestFinished.model_validate_json(settled.outputs[0].value or b"")
    assert result.error is not None
    assert "rate_limited" in result.error.message
    assert [output.topic for output in settled.outputs] == ["llm.results"]


def test_a_retriable_error_raised_for_the_batch_is_one_for_each() -> None:
    class Down(Toy):
        def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
            if not self.batches:
                self.batches.append([])
                raise BackendUnavailable("down")
            return super().process(batch)

    stage = Down()
    assert Bench(stage).run(record("a"), record("b")) == [PASSED, PASSED]
    assert stage.batches == [[], ["a", "b"]]


def test_stopping_gives_the_batch_up_in_the_middle_of_a_wait() -> None:
    bench = Bench(Toy(lambda _: BackendUnavailable("down")), retry_backoff_ms=60_000, retry_backoff_max_ms=60_000)
    bench.stopping.set()
    with pytest.raises(Interrupted):
        bench.run(record("a"))


def test_what_is_past_its_deadline_never_reaches_the_stage() -> None:
    stage = Toy()
    outcome = Bench(stage).run(record("a", deadline_ms=NOW_MS - 1), record("b", deadline_ms=NOW_MS))
    assert outcome == [["llm.results/deadline_exceeded"], PASSED]
    assert stage.batches == [["b"]]
