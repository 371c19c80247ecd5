"""`penstock.runtime.quick`: what is settled in the thread that polls is known to be quick, and never waits there."""

from __future__ import annotations

import pytest
from tests.support.processing import PASSED, Bench, Toy, record

from penstock.contracts.errors import BackendUnavailable
from penstock.runtime.processor import Hurried
from penstock.runtime.quick import MOST_BYTES, Quick


def test_nothing_is_expected_before_it_was_measured() -> None:
    quick = Quick()
    assert not quick.expects(1, 100)
    quick.took(0.001, 2)
    assert quick.expects(20, 100)
    assert not quick.expects(21, 100)


def test_a_large_batch_is_not_judged_by_small_ones() -> None:
    quick = Quick()
    quick.took(0.0001, 1)
    assert quick.expects(1, MOST_BYTES)
    assert not quick.expects(1, MOST_BYTES + 1)


def test_one_slow_record_counts_for_a_while_and_not_for_ever() -> None:
    quick = Quick()
    quick.took(0.05, 1)
    waited = 0
    while not quick.expects(1, 100):
        quick.took(0.0001, 1)
        waited += 1
    assert 10 < waited < 30


def test_who_is_hurried_hears_of_a_wait_instead_of_waiting() -> None:
    outcomes: list[Exception | None] = [BackendUnavailable("away"), None]
    bench = Bench(Toy(lambda _: outcomes.pop(0)), retry_backoff_ms=1, retry_in_place_max_ms=60_000)
    with pytest.raises(Hurried) as pause:
        bench.processor.run([record("a")], hurried=True)
    assert outcomes == [None]
    (settled,) = pause.value.rest()
    assert [output.topic for output in settled.outputs] == PASSED


def test_what_is_left_of_a_hurried_batch_is_done_once_by_whoever_may_wait() -> None:
    failures = {"b": 2, "d": 1}
    calls: list[str] = []

    def act(request_id: str) -> Exception | None:
        calls.append(request_id)
        failures[request_id] = failures.get(request_id, 0) - 1
        return BackendUnavailable("away") if failures[request_id] >= 0 else None

    bench = Bench(Toy(act), retry_backoff_ms=1, retry_in_place_max_ms=60_000)
    with pytest.raises(Hurried) as pause:
        bench.processor.run([record(name) for name in "abcd"], hurried=True)
    settled = pause.value.rest()
    assert [one.outputs[0].topic for one in settled] == PASSED * 4
    assert sorted(calls) == ["a", "b", "b", "b", "c", "d", "d"]
