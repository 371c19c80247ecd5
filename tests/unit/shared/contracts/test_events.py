"""`penstock.contracts.events`: what each event may hold; personal data in clear only before anonymize."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from penstock.contracts.events import (
    CompletionGenerated,
    CompletionScreened,
    Event,
    GenerationParameters,
    RequestAnonymized,
    RequestContext,
    RequestPreprocessed,
    RequestScreened,
    Source,
    Verdict,
)

CONTEXT = RequestContext(
    request_id="r1", conversation_id="c1", submitted_ms=0, source=Source(topic="t", partition=0, offset=0)
)


def test_user_and_metadata_end_at_anonymize() -> None:
    assert {"user", "metadata"} <= RequestPreprocessed.model_fields.keys()
    for event in (RequestAnonymized, RequestScreened, CompletionGenerated, CompletionScreened):
        assert not {"user", "metadata"} & event.model_fields.keys()
        assert "vault" in event.model_fields


def test_a_verdict_has_a_place_and_no_text() -> None:
    assert "text" not in Verdict.model_fields
    with pytest.raises(ValidationError):
        Verdict(
            direction="prompt", label="x", score=1.01, action="block", detector="d", digest="x", part=0, start=0, end=1
        )


def test_unknown_fields_of_a_newer_writer_are_ignored() -> None:
    text = RequestScreened(
        context=CONTEXT, prompt=(), parameters=GenerationParameters(model="m", max_tokens=1)
    ).model_dump_json()
    assert RequestScreened.model_validate_json(text[:-1] + ',"later":{"a":[1]}}') is not None


@pytest.mark.parametrize("field", ["request_id", "conversation_id", "tenant"])
@pytest.mark.parametrize("value", ["", "a b", "a\n", "x" * 129])
def test_ids_are_checked_in_events_too(field: str, value: str) -> None:
    with pytest.raises(ValidationError):
        RequestContext.model_validate(CONTEXT.model_dump() | {field: value})


def test_an_event_carries_context_and_empty_findings() -> None:
    event = Event(context=CONTEXT)
    assert event.findings.verdicts == ()
    assert event.context.priority == "interactive"
