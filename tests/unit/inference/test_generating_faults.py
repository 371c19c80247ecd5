"""Answers under way when something fails: who fails with it, and who goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.generation import Bench, Scripted, completed, event_of, local

from penstock.contracts.errors import (
    BackendUnavailable,
    InvalidRequest,
    LimitExceeded,
    StageError,
)
from penstock.contracts.events import (
    OutputFormat,
)


def test_one_request_that_cannot_run_does_not_touch_the_others() -> None:
    jobs = Bench(local(context=64)).run(event_of("a"), event_of("b", text="x" * 500), None)
    assert completed(jobs[0])
    assert isinstance(jobs[1].outcome, LimitExceeded)
    assert isinstance(jobs[2].outcome, StageError)


def test_a_request_at_fault_fails_alone_and_the_others_do_not_begin_anew() -> None:
    fault = RuntimeError()
    fault.__cause__ = MemoryError("prompt text")
    backend = Scripted(faults={"bad": fault})
    bad, good = Bench(backend).run(event_of("a", text="bad"), event_of("b"))
    assert isinstance(bad.outcome, StageError)
    assert "MemoryError" in bad.outcome.message
    assert "prompt text" not in bad.outcome.message
    assert completed(good)
    assert backend.widths == [2, 1, 1, 1, 1, 1, 1]


def test_a_real_prefill_that_fails_leaves_the_other_rows_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    (alone,) = Bench(local()).run(event_of("b", max_tokens=20))
    backend = local()
    bench = Bench(backend)
    (job,) = bench.begin(event_of("b", max_tokens=20))
    bench.generating.step()
    runner = backend._engine._runner
    prefill = runner.prefill

    def broken(row: int, ids: Sequence[int]) -> Any:
        prefill(row, ids)
        raise RuntimeError("the session broke")

    monkeypatch.setattr(runner, "prefill", broken)
    (bad,) = bench.begin(event_of("bad"))
    bench.generating.step()
    assert isinstance(bad.outcome, StageError)
    monkeypatch.setattr(runner, "prefill", prefill)
    (next_one,) = bench.run(event_of("next"))
    assert completed(job).completion.text == completed(alone).completion.text
    assert completed(next_one)


def test_after_a_step_that_nobody_owns_up_to_each_is_tried_alone() -> None:
    backend = Scripted(faults={"bad": RuntimeError("the session broke")})
    bench = Bench(backend)
    first, bad, last = bench.begin(event_of("a", stream=True), event_of("b", text="bad"), event_of("c"))
    bench.generating.step()
    assert bench.generating.isolating
    while len(bench.generating):
        bench.generating.step()
    assert not bench.generating.isolating
    assert isinstance(bad.outcome, StageError)
    assert completed(first).completion.text == completed(last).completion.text == "w1 w3 w5 "
    assert max(backend.widths[1:]) == 1
    assert [piece.sequence for piece in bench.sink.of("a")] == [0, 1, 2]
    (after,) = bench.run(event_of("d"))
    assert completed(after)


def test_a_backend_that_does_not_answer_ends_all_with_its_error() -> None:
    backend = Scripted(faults={"b": BackendUnavailable("no server")})
    jobs = Bench(backend).run(event_of("a"), event_of("b", text="b"))
    assert all(isinstance(job.outcome, BackendUnavailable) for job in jobs)
    assert backend.running == {}


def test_an_idle_backend_with_requests_in_flight_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Scripted()
    monkeypatch.setattr(backend, "step", lambda: ())
    (job,) = Bench(backend).run(event_of())
    assert isinstance(job.outcome, StageError)
    assert job.outcome.code == "backend_idle"


def test_a_schema_that_cannot_be_followed_ends_that_request_alone() -> None:
    bad = OutputFormat(type="json_schema", json_schema='{"not": {}}')
    refused, good = Bench(local()).run(event_of("r1", output=bad), event_of("r2"))
    assert isinstance(refused.outcome, InvalidRequest)
    assert refused.outcome.code == "unsupported_json_schema"
    assert completed(good).completion.text
