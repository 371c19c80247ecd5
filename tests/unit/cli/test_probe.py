"""A service's metrics page to the figures of `status`."""

from __future__ import annotations

from penstock.cli.probe import Figures, figures, parse_figures, readiness
from penstock.local.ports import free_port
from penstock.runtime.health import Health, HealthServer
from penstock.runtime.metrics import StageMetrics


def metrics() -> StageMetrics:
    made = StageMetrics("preprocess")
    made.records_in.labels("preprocess", "llm.requests").inc(7)
    made.records_out.labels("preprocess", "llm.preprocessed").inc(4)
    made.records_out.labels("preprocess", "llm.results").inc(3)
    made.failed.labels("preprocess", "invalid_json").inc(2)
    made.failed.labels("preprocess", "unknown_model").inc()
    for partition, lag in (("0", 5), ("1", 6)):
        made.lag.labels("preprocess", "llm.requests", partition).set(lag)
        made.lag.labels("preprocess", "p.llm.requests.bulk", partition).set(100)
    return made


def test_sums_over_topics_codes_and_partitions() -> None:
    found = parse_figures(metrics().exposition().decode())
    assert found == Figures(lag=211, lag_bulk=200, taken_in=7, put_out=7, failed=3, in_flight=0)


def test_a_service_is_asked_over_http() -> None:
    health = Health()
    server = HealthServer("127.0.0.1", 0, health, metrics().exposition)
    server.start()
    try:
        health.why_not = "restoring state"
        assert (readiness(server.port).ready, readiness(server.port).why) == (False, "restoring state")
        health.ready = True
        assert readiness(server.port).ready
        found = figures(server.port)
        assert found is not None
        assert found.taken_in == 7
    finally:
        server.stop()


def test_nobody_there_is_not_ready() -> None:
    port = free_port()
    assert readiness(port).why == "does not answer"
    assert figures(port) is None
