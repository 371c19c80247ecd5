"""What each of the five processes shows to Prometheus, checked against requests sent and results read."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from tests.support.kafka import Publishing
from tests.support.stack import SERVICES, Stack, wait_until

from penstock.contracts import topics

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

_SAMPLE = re.compile(r"^(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
Samples = Counter[tuple[str, frozenset[str]]]


def samples(stack: Stack, service: str) -> Samples:
    """The samples of a service: name and labels -> value."""
    found: Samples = Counter()
    for match in _SAMPLE.finditer(stack.metrics(service)):
        found[match["name"], frozenset((match["labels"] or "").split(","))] = float(match["value"])  # type: ignore[assignment]  # counts are whole, but sums of seconds are not
    return found


def at_rest(stack: Stack, service: str) -> bool:
    """Whether all that a service has taken is counted: it is no longer in flight only then."""
    return samples(stack, service)[key("penstock_records_in_flight", stage=service)] == 0


def key(name: str, **labels: str) -> tuple[str, frozenset[str]]:
    return name, frozenset(f'{label}="{value}"' for label, value in labels.items())


def test_each_stage_counts_what_went_in_and_out(stack: Stack) -> None:
    # what other modules have sent has its results, whose last may yet be to be counted
    wait_until(lambda: all(at_rest(stack, service) for service in SERVICES), "all services at rest")
    before = {service: samples(stack, service) for service in SERVICES}
    good = json.dumps({"prompt": "What is a river?", "max_tokens": 4}).encode()
    stack.wait_results(stack.send([Publishing(good)] * 5 + [Publishing(b"not JSON")] * 2))

    def grown(service: str, name: str, **labels: str) -> float:
        return samples(stack, service)[key(name, **labels)] - before[service][key(name, **labels)]

    def counted(service: str, read: str, count: int) -> bool:
        labels = {"stage": service, "topic": f"{prefix}{read}"}
        return at_rest(stack, service) and grown(service, "penstock_records_in_total", **labels) >= count

    prefix = stack.prefix
    path = (
        ("preprocess", topics.REQUESTS, 7, topics.PREPROCESSED),
        ("anonymize", topics.PREPROCESSED, 5, topics.ANONYMIZED),
        ("safety", topics.ANONYMIZED, 5, topics.SCREENED),
        ("inference", topics.SCREENED, 5, topics.COMPLETIONS),
        ("safety", topics.COMPLETIONS, 5, topics.SCREENED_COMPLETIONS),
        ("postprocess", topics.SCREENED_COMPLETIONS, 5, topics.RESULTS),
    )
    for service, read, count, _ in path:  # counted just after the commit
        wait_until(lambda a=(service, read, count): counted(*a), f"{read} in the metrics of {service}")  # type: ignore[misc]  # a lambda with a default has no inferred type
    assert grown("postprocess", "penstock_results_total", stage="postprocess", status="completed") == 5
    for service, read, count, written in path:
        assert grown(service, "penstock_records_in_total", stage=service, topic=f"{prefix}{read}") == count
        assert grown(service, "penstock_records_out_total", stage=service, topic=written) == 5
        assert grown(service, "penstock_process_duration_seconds_count", stage=service) >= count
    assert grown("preprocess", "penstock_records_failed_total", stage="preprocess", code="invalid_json") == 2
    assert grown("preprocess", "penstock_results_total", stage="preprocess", status="failed") == 2
    assert grown("preprocess", "penstock_records_out_total", stage="preprocess", topic=topics.DEAD_LETTERS) == 2


def test_lag_is_shown_for_each_partition_and_comes_back_to_nothing(stack: Stack) -> None:
    def lags() -> dict[str, list[float]]:
        return {
            service: [value for (name, _), value in samples(stack, service).items() if "consumer_lag" in name]
            for service in SERVICES
        }

    # clients report every five seconds
    wait_until(lambda: all(lags().values()), "a lag from every service")
    wait_until(lambda: not any(sum(values) for values in lags().values()), "no lag in any service")
