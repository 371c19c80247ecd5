"""`penstock.contracts.terminal`: a result carries all that is known of the request."""

from __future__ import annotations

import pytest

from penstock.contracts.errors import BackendUnavailable, Expired, InvalidRequest, PenstockError, StageError
from penstock.contracts.events import (
    Event,
    Findings,
    Language,
    NormalizationChange,
    RequestContext,
    Source,
    StageTiming,
    Verdict,
)
from penstock.contracts.results import ErrorDetail
from penstock.contracts.terminal import finish, refuse

CONTEXT = RequestContext(
    request_id="r1",
    conversation_id="c1",
    tenant="acme",
    priority="bulk",
    submitted_ms=1_000,
    source=Source(topic="llm.requests", partition=1, offset=2),
    versions={"preprocess": "1"},
    timings=(StageTiming(stage="preprocess", queued_ms=1, processing_ms=2),),
)
FINDINGS = Findings(
    language=Language(code="de", confidence=0.9),
    changes=(NormalizationChange(kind="bidi", count=1),),
    redactions={"EMAIL_ADDRESS": 2},
    verdicts=(
        Verdict(
            direction="prompt",
            label="secret",
            score=1,
            action="block",
            detector="d",
            digest="x",
            part=0,
            start=0,
            end=4,
        ),
    ),
)


def test_everything_found_so_far_is_in_the_result() -> None:
    error = ErrorDetail(code="blocked", message="blocked", stage="safety")
    result = finish(Event(context=CONTEXT, findings=FINDINGS), status="blocked", now_ms=3_500, error=error)
    assert (result.id, result.conversation_id, result.tenant, result.priority) == ("r1", "c1", "acme", "bulk")
    assert (result.source, result.versions, result.timings) == (CONTEXT.source, CONTEXT.versions, CONTEXT.timings)
    assert (result.language, result.changes) == (FINDINGS.language, FINDINGS.changes)
    assert (result.redactions, result.verdicts) == (FINDINGS.redactions, FINDINGS.verdicts)
    assert (result.status, result.error, result.created, result.total_ms) == ("blocked", error, 3, 2_500)
    assert (result.choices, result.usage) == ((), None)


def test_a_clock_behind_the_brokers_gives_no_negative_time() -> None:
    assert finish(Event(context=CONTEXT), status="failed", now_ms=10).total_ms == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Expired("late"), "expired"),
        (InvalidRequest("bad"), "failed"),
        (BackendUnavailable("down"), "failed"),
        (StageError("bug"), "failed"),
    ],
)
def test_a_refusal_is_expired_past_the_deadline_and_else_failed(error: PenstockError, status: str) -> None:
    result = refuse(CONTEXT, error, stage="safety", now_ms=2_000)
    assert result.status == status
    assert result.error == ErrorDetail.of(error, "safety")
