"""Kept answers with all five services as processes: the second of two equal requests, and another tenant's."""

from __future__ import annotations

import json
import uuid

import pytest
from tests.support.kafka import Publishing
from tests.support.stack import Stack

from penstock.contracts.results import RequestFinished

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


def ask(stack: Stack, text: str, tenant: str) -> RequestFinished:
    body = json.dumps({"messages": [{"role": "user", "content": text}], "max_tokens": 8}).encode()
    (place,) = stack.send([Publishing(body, [("tenant", tenant.encode())])])
    result = stack.wait_results([place])[place]
    assert result.status == "completed", result.error
    return result


def test_the_same_again_is_kept_for_its_tenant_and_screened_again(stack: Stack) -> None:
    text = f"What is river {uuid.uuid4().hex}?"
    first, second, other = (ask(stack, text, tenant) for tenant in ("cache-a", "cache-a", "cache-b"))
    assert [result.cached for result in (first, second, other)] == [None, "exact", None]
    assert second.choices == first.choices == other.choices
    assert second.usage == first.usage
    assert second.versions == first.versions
    stages = [timing.stage for timing in second.timings]
    assert stages == ["preprocess", "anonymize", "safety", "inference", "safety", "postprocess"]
    counted = [
        line for line in stack.metrics("inference").splitlines() if line.startswith("penstock_answers_asked_total")
    ]
    exact = next(line for line in counted if 'kind="exact"' in line)
    assert float(exact.rpartition(" ")[2]) >= 1
