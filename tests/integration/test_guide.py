"""The guide's Python example, as it stands there, against a real broker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from penstock.contracts.events import Source
from penstock.contracts.headers import RequestHeaders
from penstock.contracts.request import CompletionRequest
from penstock.contracts.results import AnswerMessage, Choice, RequestFinished

pytestmark = pytest.mark.broker

GUIDE = Path(__file__).parents[2] / "docs/guide.md"


def test_the_example_sends_a_valid_request_and_finds_its_result(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    for old, new in (("127.0.0.1:9092", bootstrap), ('"llm.', f'"{prefix}llm.'), ('"invoices"', f'"{prefix}invoices"')):
        assert old in example
        example = example.replace(old, new)
    script = tmp_path / "example.py"
    script.write_text(example)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        try:
            answer(bootstrap, prefix)
            printed, _ = process.communicate(timeout=90)
        finally:
            process.kill()
    assert process.returncode == 0
    assert printed.startswith("completed ")
    assert "an event log" in printed


def answer(bootstrap: str, prefix: str) -> None:
    """Stand in for the pipeline: check the request, publish its result."""
    group = {"group.id": f"{prefix}test", "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": bootstrap, **group})
    consumer.subscribe([f"{prefix}llm.requests"])
    until = time.monotonic() + 60
    message = None
    while message is None and time.monotonic() < until:
        message = consumer.poll(1.0)
    consumer.close()
    assert message is not None
    assert message.error() is None
    headers = RequestHeaders.parse(message.headers())
    CompletionRequest.model_validate(json.loads(message.value()))
    assert headers.request_id is not None
    assert (headers.tenant, headers.priority) == ("acme", "interactive")
    result = RequestFinished(
        id=headers.request_id,
        created=1,
        status="completed",
        choices=(Choice(message=AnswerMessage(content="an event log"), finish_reason="stop"),),
        conversation_id=headers.request_id,
        tenant="acme",
        priority="interactive",
        source=Source(topic="llm.requests", partition=message.partition(), offset=message.offset()),
    )
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(f"{prefix}llm.results", key=headers.request_id, value=result.encode())
    assert producer.flush(20) == 0
