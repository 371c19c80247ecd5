"""The short form of `make soak`, and its rules on made-up figures: what is flat, planned and reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.faults.soak import run
from tests.faults.soaking.faults import RESTARTED, plan
from tests.faults.soaking.flatness import Growth, growths, quarters
from tests.faults.soaking.outcome import outcome
from tests.faults.soaking.page import write_page
from tests.faults.soaking.plots import NAMES
from tests.faults.soaking.sampling import Samples
from tests.faults.soaking.traffic import Traffic
from tests.support.kafka import read_all
from tests.support.stack import SERVICES, wait_until

from penstock.contracts import topics

HOUR_S = 3_600
RATE = 6.0


@pytest.mark.broker
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_each_request_ends_once_under_mixed_load_and_the_page_says_so(bootstrap: str, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with Samples(path) as samples:
        run(
            bootstrap,
            None,
            tmp_path / "services",
            samples,
            seconds=6,
            rate=10,
            seed=4,
            fault_every_s=3,
            sample_every_s=0.5,
            minute_s=2,
        )
    result = outcome(path)
    assert result.conserved, result.totals
    assert result.good, result.summary()
    assert result.totals["ended"] == result.totals["acknowledged"] > 0
    assert result.faults_of("kill")
    assert set(result.samples[0]["processes"]) == set(SERVICES)
    page = write_page(result, tmp_path / "report").read_text()
    plots = [tmp_path / "report" / f"soak-{name}.svg" for name in NAMES]
    assert all(f"]({plot.name})" in page and plot.stat().st_size for plot in plots)


@pytest.mark.broker
@pytest.mark.timeout(600)
def test_the_count_finds_what_is_missing_double_wrong_and_unknown(bootstrap: str, prefix: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    with Traffic(bootstrap, prefix, rate=50, seed=1) as traffic:
        wait_until(lambda: traffic.tally().acknowledged > 10, "requests that the broker holds")
        traffic.finish()
        first = read_all(bootstrap, prefix, topics.REQUESTS)[0]
        place = {"topic": first.topic(), "partition": first.partition(), "offset": first.offset()}
        for source in (place, place, {**place, "offset": 10**6}):
            result = {"source": source, "status": "exploded"}
            producer.produce(f"{prefix}{topics.RESULTS}", json.dumps(result).encode())
        assert producer.flush(60) == 0
        wait_until(lambda: sum(traffic.tally().statuses.values()) + traffic.tally().duplicates == 3, "three results")
        tally = traffic.tally()
    assert (tally.duplicates, tally.wrong_end, tally.unpublished, tally.ended) == (1, 1, 1, 1)
    assert tally.waiting == tally.acknowledged - 1 == tally.sent - 1 > 0


def made_up(leak_mb_h: float = 0.0, restart_every_s: float = HOUR_S, lag: float = 5.0) -> list[dict[str, Any]]:
    """Samples of an hour: a warm-up of a few minutes, then `leak_mb_h` in anonymize alone."""

    def facts(service: str, t: float) -> dict[str, float]:
        age = t % restart_every_s
        leak = leak_mb_h * age / HOUR_S if service == "anonymize" else 0.0
        warm = 20 * min(1.0, age / 300)
        noise = 0.5 * (round(t) % 3)
        return {
            "pid": int(t // restart_every_s),
            "age_s": age,
            "rss_mb": 100 + warm + leak + noise,
            "fds": 60,
            "threads": 40,
        }

    return [
        {"t": t, "processes": {name: facts(name, t) for name in SERVICES}, "lag": dict.fromkeys(SERVICES, lag * t)}
        for t in range(0, HOUR_S, 5)
    ]


def broken(found: list[Growth]) -> set[tuple[str, str]]:
    return {(one.service, one.measure) for one in found if one.broken}


def test_a_flat_run_is_flat() -> None:
    found = growths(made_up(lag=0.0), RATE)
    assert len(found) == 4 * len(SERVICES)
    assert all(one.judged for one in found)
    assert broken(found) == set()


def test_a_leak_is_found() -> None:
    assert broken(growths(made_up(leak_mb_h=20, lag=0.0), RATE)) == {("anonymize", "rss_mb")}


def test_a_leak_is_found_in_the_longest_life() -> None:
    assert broken(growths(made_up(leak_mb_h=50, restart_every_s=HOUR_S / 2, lag=0.0), RATE)) == {
        ("anonymize", "rss_mb")
    }


def test_a_short_life_is_not_judged() -> None:
    found = growths(made_up(leak_mb_h=500, restart_every_s=300, lag=0.0), RATE)
    assert {one.measure for one in found if one.judged} == {"lag"}
    assert broken(found) == set()


def test_growing_lag_is_found() -> None:
    assert broken(growths(made_up(lag=0.5), RATE)) == {(service, "lag") for service in SERVICES}


def test_quarters_leave_out_the_warm_up() -> None:
    assert quarters([(0, 1_000.0), (1, 900.0), (2, 5.0), (3, 5.0), (4, 8.0), (6, 6.0), (8, 6.0)]) == (5.0, 6.0)
    assert quarters([]) is None


def test_a_plan_is_the_same_for_the_same_seed_and_spares_each_service_for_half_of_it() -> None:
    faults = plan(HOUR_S, 1, every_s=40, broker=True)
    assert faults == plan(HOUR_S, 1, every_s=40, broker=True)
    assert faults != plan(HOUR_S, 2, every_s=40, broker=True)
    restarted: tuple[set[str], set[str]] = (set(), set())
    for fault in faults:
        if fault.what in {"kill", "terminate"}:
            restarted[fault.at_s >= HOUR_S / 2].add(fault.service)
    assert restarted == tuple(set(half) for half in RESTARTED)
    assert restarted[0] | restarted[1] == set(SERVICES)
    assert {fault.service for fault in faults if fault.what == "pause"} == set(SERVICES)
    assert [fault.what for fault in faults if fault.service == "broker"] == ["broker-kill", "broker-kill"]


def lines(cut: bool = False, **end: Any) -> str:
    """A file of samples, whole or cut off in the middle of a line."""
    totals = {
        "sent": 9, "acknowledged": 9, "refused": 0, "ended": 9, "waiting": 0, "overdue": 0, "duplicates": 0,
        "wrong_end": 0, "unpublished": 0, "held_s": 0, "statuses": {"completed": 8, "failed": 1},
    }  # fmt: skip
    facts: list[dict[str, Any]] = [
        {"what": "run", "t": 0, "minutes": 60, "rate": RATE, "seed": 1, "cores": 2, "partitions": 2,
         "date": "2026-01-01", "sample_every_s": 5, "fault_every_s": 40, "state_max_entries": 9,
         "machine": "m", "python": "3"},
        *({"what": "sample", "busy": 50, **_with_cpu(sample)} for sample in made_up(lag=0.0)),
        {"what": "minute", "t": 60, "number": 1, "latencies_ms": [5, 7, 9], **totals},
    ]  # fmt: skip
    if not cut:
        lag_end = dict.fromkeys(SERVICES, 0)
        facts.append({"what": "end", "t": 61, "lost": 0, "dead_letters": 1, "lag_end": lag_end, **totals, **end})
    text = "".join(json.dumps(line) + "\n" for line in facts)
    return text + '{"what": "sam' if cut else text


def _with_cpu(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "processes": {name: {**facts, "cpu_s": 1.0} for name, facts in sample["processes"].items()}}


def test_a_run_that_was_cut_off_has_a_small_report_and_is_not_good(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(lines())
    assert outcome(path).good
    path.write_text(lines(cut=True))
    result = outcome(path)
    assert not result.good
    assert result.summary()["whole"] is False
    assert "cut off" in write_page(result, tmp_path).read_text()
    assert sum((tmp_path / f"soak-{name}.svg").stat().st_size for name in NAMES) < 300_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"lost": 1},
        {"duplicates": 1},
        {"wrong_end": 1},
        {"unpublished": 1},
        {"refused": 1},
        {"dead_letters": 2},
        {"lag_end": {"safety": 1}},
        {"lag_end": {"safety": None, "inference": 0}},
    ],
    ids=str,
)
def test_whatever_is_wrong_with_the_sums_is_no_good_run(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(lines(**wrong))
    assert not outcome(path).good
