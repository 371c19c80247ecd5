"""`make eval-json` in short: every whole answer follows its schema, and an answer that does not is counted."""

from __future__ import annotations

import json

import pytest
from tests.benchmarks.constrained.__main__ import compare, judge, timed
from tests.benchmarks.constrained.formats import CHECKER
from tests.benchmarks.constrained.requests import Answer, answer, backend, requests
from tests.benchmarks.constrained.schemas import CASES


def test_each_answer_follows_its_schema_or_is_cut_off() -> None:
    work = list(requests(80))  # each schema at two temperatures
    held, loose = backend(rows=8, threads=1), backend(rows=8, threads=1, ends=False)
    with timed() as taken:
        answers, _, _ = answer(held, [request for _, request in work])
    tallies = judge(work, answers)
    assert [text for tally in tallies.values() for text in tally.invalid] == []
    assert sum(tally.refused_after for tally in tallies.values()) == 0
    assert all(tally.requests == 4 for tally in tallies.values())
    assert sum(tally.valid for tally in tallies.values()) >= 70
    assert len(taken) == sum(tally.tokens for tally in tallies.values())
    one = compare(work[:8], held, loose)
    assert min(one.held, one.free, one.held_cpu, one.free_cpu) > 0


def test_what_breaks_a_schema_or_has_no_answer_is_invalid() -> None:
    work = list(requests(len(CASES)))
    answers = {request.key: Answer('{"name":"Anna"}', "stop", 5) for _, request in work[:-1]}
    answers[1] = Answer('{"status": "op', "length", 4)
    tallies = judge(work, answers)
    assert tallies["enums"].truncated == 1
    assert sum(len(tally.invalid) for tally in tallies.values()) == len(CASES) - 1
    assert sum(tally.valid for tally in tallies.values()) == 0


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("date", "2024-02-29", "2023-02-29"),
        ("date", "0001-01-01", "20240229"),
        ("time", "23:59:60Z", "12:60:00Z"),
        ("time", "12:00:00.123456789+01:00", "12:00:00"),
        ("date-time", "2024-05-03T12:00:00Z", "2024-05-03 12:00"),
        ("ipv4", "192.0.2.7", "192.0.2.256"),
        ("ipv6", "2001:db8::1", "2001:db8"),
        ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810"),
        ("email", "a.b@example.org", "a b@example.org"),
    ],
)
def test_formats_are_checked(kind: str, good: str, bad: str) -> None:
    assert CHECKER.conforms(good, kind)
    assert not CHECKER.conforms(bad, kind)


def test_every_schema_is_asked_for_in_a_request_of_its_own() -> None:
    names = [case.name for case, _ in requests(len(CASES))]
    assert names == [case.name for case in CASES]
    assert len({json.dumps(case.schema) for case in CASES}) == len(CASES) == 20
