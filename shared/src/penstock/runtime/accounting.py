"""Counting what a committed transaction settled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import structlog

from penstock.runtime.metrics import StageMetrics
from penstock.runtime.outcomes import Settled

_log = structlog.get_logger()


def account(metrics: StageMetrics, stage: str, settled: Sequence[Settled]) -> None:
    """Count records in and out, results and errors; log each refusal, without its text."""
    for topic, count in Counter([one.inbound.record.topic for one in settled]).items():
        metrics.records_in.labels(stage, topic).inc(count)
    for topic, count in Counter([output.topic for one in settled for output in one.outputs]).items():
        metrics.records_out.labels(stage, topic).inc(count)
    if demoted := sum(one.demoted for one in settled):
        metrics.demoted.labels(stage).inc(demoted)
    for one in settled:
        if one.status is not None:
            metrics.results.labels(stage, one.status).inc()
        if one.code is not None:
            metrics.failed.labels(stage, one.code).inc()
            _log.info(
                "runtime.record.refused",
                code=one.code,
                status=one.status,
                topic=one.inbound.record.topic,
                partition=one.inbound.record.partition,
                offset=one.inbound.record.offset,
                trace_id=one.inbound.trace_id,
            )
