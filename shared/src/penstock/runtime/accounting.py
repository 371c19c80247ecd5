"""Counting what a committed transaction settled."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from penstock.runtime.metrics import StageMetrics
from penstock.runtime.outcomes import Settled

_log = structlog.get_logger()


def account(metrics: StageMetrics, stage: str, settled: Sequence[Settled]) -> None:
    """Count records in and out, results and errors; log each refusal, without its text."""
    for one in settled:
        metrics.records_in.labels(stage, one.inbound.record.topic).inc()
        for output in one.outputs:
            metrics.records_out.labels(stage, output.topic).inc()
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
