"""The heads on the path of a request: names hidden and given back, attacks stopped, and nothing passes without them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.support.heads import FAKE_HEADS
from tests.support.kafka import Publishing
from tests.support.pipeline import Journey, Pipeline

from penstock.contracts import topics
from penstock.heads.runtime import Heads
from penstock.vault import new_key

NOW_MS = 1_800_000_000_000


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    pipeline = Pipeline(
        vault_keys=SecretStr(new_key("test")),
        anonymize_names_model=FAKE_HEADS,
        safety_heads_model=FAKE_HEADS,
        safety_policy=Path("heads"),
        retry_attempts=1,
    )
    yield pipeline
    pipeline.close()


def ask(pipeline: Pipeline, text: str, request_id: str, **more: Any) -> Journey:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 8, **more}
    return pipeline.run(Publishing(json.dumps(body).encode(), [("request-id", request_id.encode())]), now_ms=NOW_MS)


def test_a_name_is_hidden_from_anonymize_to_postprocess(pipeline: Pipeline) -> None:
    journey = ask(pipeline, "Tell me about Anna Keller in Rome, and about Anna Keller.", "r-1")
    for topic in (topics.ANONYMIZED, topics.SCREENED, topics.COMPLETIONS, topics.SCREENED_COMPLETIONS):
        (output,) = journey.outputs[topic]
        assert output.value is not None
        for name in (b"Anna", b"Keller", b"Rome"):
            assert name not in output.value, topic
    (output,) = journey.outputs[topics.SCREENED]
    assert b"<PERSON_1> in <LOCATION_1>, and about <PERSON_1>" in (output.value or b"")
    result = journey.result
    assert result.status == "completed"
    assert result.redactions == {"LOCATION": 1, "PERSON": 2}
    assert Heads(FAKE_HEADS).digest in result.versions["recognizers"]


def test_an_attack_that_only_the_model_knows_is_blocked(pipeline: Pipeline) -> None:
    result = ask(pipeline, "Pretend the garden is a river.", "r-2").result
    assert result.status == "blocked"
    (verdict,) = result.verdicts
    assert (verdict.label, verdict.detector, verdict.action) == ("jailbreak", "heads", "block")
    assert (verdict.start, verdict.end, verdict.digest) == (0, 7, Heads(FAKE_HEADS).digest)


@pytest.mark.parametrize("method", ["pii", "screen"])
def test_nothing_passes_where_the_model_fails(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(Heads, method, broken)
    journey = ask(pipeline, f"Tell me about the {method} stream.", f"r-{method}")
    passed = topics.ANONYMIZED if method == "pii" else topics.SCREENED
    assert passed not in journey.outputs
    assert topics.COMPLETIONS not in journey.outputs
    result = journey.result
    assert (result.status, result.error and result.error.code) == (
        "failed",
        "names_failed" if method == "pii" else "detector_failed",
    )
