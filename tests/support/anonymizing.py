"""Requests for the stage of anonymize, and the stage without a broker."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.support.memory import MemoryState

from penstock.contracts.events import (
    Findings,
    GenerationParameters,
    Language,
    OutputFormat,
    PromptPart,
    RequestAnonymized,
    RequestContext,
    RequestPreprocessed,
    Source,
)
from penstock.runtime.stage import Inbound, Record
from penstock.vault import VaultContents, VaultKeys
from penstock_anonymize.detector import Detector
from penstock_anonymize.stage import AnonymizeStage, Limits


def make(detector: Detector, keys: VaultKeys, vaults: MemoryState, **limits: int) -> AnonymizeStage:
    return AnonymizeStage(
        detector=detector,
        keys=keys,
        vaults=vaults,
        limits=Limits(part_characters=limits.get("part_characters", 100_000), entities=limits.get("entities", 1_000)),
        release="0.1.0",
        random=limits_random(),
    )


def limits_random() -> Callable[[int], bytes]:
    source = random.Random(11)
    return source.randbytes


def request(*texts: str, conversation: str = "c-1", tenant: str = "acme", **more: Any) -> Inbound:
    parts: list[PromptPart] = []
    for number, text in enumerate(texts):
        parts.append(PromptPart(kind="template", text="<|user|>\n"))
        parts.append(PromptPart(kind="text", text=text, role="user", message=number))
    schema = more.get("schema")
    event = RequestPreprocessed(
        context=RequestContext(
            request_id=more.get("request_id", "r-1"),
            conversation_id=conversation,
            tenant=tenant,
            submitted_ms=1,
            source=Source(topic="llm.requests", partition=0, offset=0),
        ),
        findings=Findings(input_tokens=5, language=Language(code=more.get("language", "en"), confidence=0.9)),
        prompt=tuple(parts),
        parameters=GenerationParameters(
            model="m",
            max_tokens=5,
            stop=more.get("stop", ()),
            output=OutputFormat(type="json_schema", json_schema=schema) if schema else OutputFormat(),
        ),
        user=more.get("user"),
        metadata=more.get("metadata", {}),
    )
    record = Record(topic="llm.preprocessed", partition=0, offset=0, timestamp_ms=1, key=None, value=None)
    return Inbound(record=record, now_ms=1, event=event)


def run(stage: AnonymizeStage, inbound: Inbound) -> RequestAnonymized:
    (outcome,) = stage.process([inbound])
    assert isinstance(outcome, RequestAnonymized), outcome
    return outcome


def texts_of(event: RequestAnonymized) -> list[str]:
    return [part.text for part in event.prompt if part.kind == "text"]


def opened(keys: VaultKeys, event: RequestAnonymized) -> VaultContents:
    assert event.vault is not None
    return keys.open(event.vault, tenant=event.context.tenant, conversation=event.context.conversation_id)
