"""Prometheus metrics of one stage, in a registry of the process's own."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class BatchHistogram(Collector):
    """A histogram that counts a whole batch with one call; Prometheus's own takes one for each record."""

    def __init__(self, name: str, documentation: str, stage: str) -> None:
        self._name = name
        self._documentation = documentation
        self._stage = stage
        self._lock = threading.Lock()
        self._counts = [0] * (len(_BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float, records: int = 1) -> None:
        """Count `records` that took `seconds` each."""
        with self._lock:
            self._counts[bisect_left(_BUCKETS, seconds)] += records
            self._sum += seconds * records

    def collect(self) -> Iterable[Metric]:
        """What the registry asks for."""
        with self._lock:
            running = list(accumulate(self._counts))
            total = self._sum
        bounds = [str(float(bound)) for bound in _BUCKETS] + ["+Inf"]
        family = HistogramMetricFamily(self._name, self._documentation, labels=["stage"])
        family.add_metric([self._stage], buckets=list(zip(bounds, running, strict=True)), sum_value=total)
        return [family]


class StageMetrics:
    """In, out, failed, in flight, duration and lag of a stage, and its transactions."""

    def __init__(self, stage: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        registry = self.registry
        self._stage = stage
        self.records_in = Counter(
            "penstock_records_in", "Records whose outcome was committed.", ["stage", "topic"], registry=registry
        )
        self.records_out = Counter(
            "penstock_records_out", "Records committed to a topic.", ["stage", "topic"], registry=registry
        )
        self.results = Counter(
            "penstock_results", "Terminal results committed, by status.", ["stage", "status"], registry=registry
        )
        self.failed = Counter(
            "penstock_records_failed", "Records that ended in an error, by code.", ["stage", "code"], registry=registry
        )
        self.retries = Counter(
            "penstock_retries",
            "Attempts that follow an error: in place, or delayed through the retry topic.",
            ["stage", "how", "code"],
            registry=registry,
        )
        self.exhausted = Counter(
            "penstock_retries_exhausted",
            "Records that failed in as many attempts as they have.",
            ["stage", "code"],
            registry=registry,
        )
        self.retry_waiting = Gauge(
            "penstock_retry_waiting_records", "Delayed records seen and not yet due.", ["stage"], registry=registry
        )
        self.retry_waiting_age = Gauge(
            "penstock_retry_oldest_waiting_seconds",
            "Since the oldest waiting record was first written to the stage's input.",
            ["stage"],
            registry=registry,
        )
        self.demoted = Counter(
            "penstock_requests_demoted",
            "Requests granted a lower priority than asked for.",
            ["stage"],
            registry=registry,
        )
        self.claims = Counter(
            "penstock_claims", "Objects stored and fetched.", ["stage", "operation"], registry=registry
        )
        self.in_flight = Gauge(
            "penstock_records_in_flight", "Records consumed and not yet committed.", ["stage"], registry=registry
        )
        self.duration = BatchHistogram(
            "penstock_process_duration_seconds",
            "From the start of a record's batch to the end of its processing.",
            stage,
        )
        registry.register(self.duration)
        self.commit_duration = Histogram(
            "penstock_commit_duration_seconds", "Time of a transaction.", ["stage"], buckets=_BUCKETS, registry=registry
        )
        self.transactions = Counter(
            "penstock_transactions", "Transactions, by outcome.", ["stage", "outcome"], registry=registry
        )
        self.lag = Gauge(
            "penstock_consumer_lag_records",
            "Committed records that the group has not processed.",
            ["stage", "topic", "partition"],
            registry=registry,
        )
        self.rebalances = Counter("penstock_rebalances", "Assignments changed.", ["stage", "kind"], registry=registry)
        self.waiting = Gauge(
            "penstock_calls_waiting",
            "Records taken and not yet started by an unordered stage.",
            ["stage"],
            registry=registry,
        )
        self.admission = Gauge(
            "penstock_calls_limit", "Calls that admission lets run at once.", ["stage"], registry=registry
        )
        self.ledger = Counter(
            "penstock_calls_recovered",
            "Calls of an earlier process: answered (published without a call) or repeated (perhaps paid twice).",
            ["stage", "kind"],
            registry=registry,
        )
        self.skipped = Counter(
            "penstock_records_skipped",
            "Records that an earlier owner had finished ahead of the committed offset.",
            ["stage"],
            registry=registry,
        )
        self.repeats = Counter(
            "penstock_results_repeated",
            "Ends of requests that had their result, dropped where delivery is at least once.",
            ["stage"],
            registry=registry,
        )
        self.cancellations = Gauge(
            "penstock_cancellations", "Cancellations in force that the process knows.", ["stage"], registry=registry
        )
        self.model_loads = Counter(
            "penstock_model_loads",
            "Model revisions loaded, and refused while the one before serves on.",
            ["stage", "outcome"],
            registry=registry,
        )
        self.streams = Counter(
            "penstock_streams", "Streams that ended here, by state.", ["stage", "state"], registry=registry
        )
        self.stream_first_text = Histogram(
            "penstock_stream_first_text_seconds",
            "How long the first text of a stream was held here.",
            ["stage"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.in_flight.labels(stage).set(0)
        self.cancellations.labels(stage).set(0)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
