"""The answers under way, one step at a time: what they carry, deadlines, leaving."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.support.generation import NOW_MS, VAULT, Bench, Clock, Scripted, completed, event_of, local

from penstock.contracts.errors import (
    Expired,
)
from penstock_inference.backend import Piece


def test_a_real_answer_carries_everything_on() -> None:
    event = event_of()
    (job,) = Bench(local()).run(event)
    outcome = completed(job)
    assert (outcome.context, outcome.findings, outcome.vault) == (event.context, event.findings, VAULT)
    assert outcome.parameters == event.parameters
    completion = outcome.completion
    assert completion.text
    assert completion.finish_reason == "length"
    assert completion.usage.completion_tokens == 6
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 6
    assert completion.time_to_first_token_ms is not None
    assert job.firsts == 1


def test_each_is_finished_in_the_step_that_completes_it() -> None:
    bench = Bench(Scripted())
    long, short = bench.begin(event_of("a", max_tokens=9), event_of("b", max_tokens=2))
    bench.generating.step()
    assert (long.firsts, short.firsts) == (1, 1)
    bench.generating.step()
    assert completed(short).completion.usage.completion_tokens == 2
    assert long.outcomes == []


def test_a_greedy_answer_is_the_same_whoever_joins_or_leaves_beside_it() -> None:
    (alone,) = Bench(local()).run(event_of(max_tokens=40))
    bench = Bench(local(rows=3))
    (job,) = bench.begin(event_of(max_tokens=40))
    for number in range(5):
        (other,) = bench.begin(event_of(f"other-{number}", text="river bank " * (number + 1), max_tokens=30))
        for _ in range(3):
            bench.generating.step()
        bench.generating.cancel(other)
    while len(bench.generating):
        bench.generating.step()
    assert completed(job).completion.text == completed(alone).completion.text


def test_a_deadline_ends_a_generation_in_the_middle() -> None:
    clock = Clock()
    backend = Scripted(clock, seconds=0.1)
    bench = Bench(backend, clock)
    late, in_time, free = bench.run(
        event_of("late", deadline_ms=NOW_MS + 250, max_tokens=6, stream=True),
        event_of("intime", deadline_ms=NOW_MS + 450, max_tokens=4),
        event_of("free", max_tokens=6),
    )
    error = late.outcome
    assert isinstance(error, Expired)
    assert (error.code, error.field, error.limit) == ("deadline_exceeded", "header deadline", NOW_MS + 250)
    assert "after 3 generated tokens" in error.message
    assert backend.widths == [3, 3, 3, 2, 1, 1]
    assert [piece.finish_reason for piece in bench.sink.of("late")] == [None], "its end is the runtime's to tell"
    assert completed(in_time).completion.time_to_first_token_ms == pytest.approx(100.0)
    assert completed(free)


def test_a_deadline_already_past_generates_nothing() -> None:
    backend = Scripted()
    (job,) = Bench(backend).run(event_of(deadline_ms=NOW_MS))
    assert isinstance(job.outcome, Expired)
    assert backend.widths == []


def test_the_seed_is_the_requests_or_follows_from_its_id() -> None:
    backend = Scripted()
    Bench(backend).run(event_of("a", seed=5), event_of("a"), event_of("a"), event_of("b"))
    assert backend.seeds[0] == 5
    assert backend.seeds[1] == backend.seeds[2] != backend.seeds[3]


def test_a_cancelled_row_is_free_in_the_next_step() -> None:
    bench = Bench(local(rows=1))
    long, waiting = bench.begin(event_of("long", max_tokens=100), event_of("waiting", max_tokens=5))
    for _ in range(4):
        bench.generating.step()
    assert (long.firsts, waiting.firsts) == (1, 0)
    bench.generating.cancel(long)
    assert len(bench.generating) == 1
    bench.generating.step()
    assert waiting.firsts == 1
    while len(bench.generating):
        bench.generating.step()
    assert completed(waiting)
    assert long.outcomes == []


def test_further_answers_and_likelihoods_go_on_with_the_first() -> None:
    (job,) = Bench(local()).run(event_of(n=3, temperature=1.0, seed=5, logprobs=1, max_tokens=4))
    event = completed(job)
    assert event.others is not None
    assert len(event.others) == 2
    assert event.completion.usage.completion_tokens <= 12
    assert event.completion.logprobs is not None
    assert all(other.logprobs is not None for other in event.others)
    (plain,) = Bench(local()).run(event_of(temperature=1.0, seed=5, max_tokens=4))
    assert completed(plain).completion.text == event.completion.text
    assert (completed(plain).others, completed(plain).completion.logprobs) == (None, None)


def test_an_answer_without_a_token_ends_and_one_whose_prompt_is_being_read_goes_on() -> None:
    class Silent(Scripted):
        def step(self) -> Sequence[Piece]:
            (key,) = self.running
            self.widths.append(1)
            return [Piece(key, "", 0, "stop" if len(self.widths) == 3 else None)]

    backend = Silent()
    (job,) = Bench(backend).run(event_of())
    assert (completed(job).completion.text, len(backend.widths)) == ("", 3)
