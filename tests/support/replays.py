"""An installation whose safety service runs on events that a test wrote, and the operator who replays them."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from confluent_kafka import IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from tests.support.kafka import committed_offsets, settings
from tests.support.stack import Stack
from typer.testing import CliRunner, Result

from penstock.cli.main import app
from penstock.contracts import topics
from penstock.contracts.events import (
    Completion,
    CompletionGenerated,
    Event,
    GenerationParameters,
    PromptPart,
    RequestAnonymized,
    RequestContext,
    Source,
    StageTiming,
    Usage,
)
from penstock.contracts.headers import of_context
from penstock.runtime import kafka

SECRET = "the key is AKIA" + "Q3EGRZJ7WLPX2MTN"
POLICY = """
version: "strict"
detectors: [secrets, injection_phrases, encoded_payloads, invisible_text, abuse_classifier]
rules:
  prompt: &same
    secret: [{at_least: 0.7, action: block}]
    injection: []
    encoded_payload: []
    invisible_text: []
    abuse: []
  response: *same
"""


def context(request_id: str, stages: tuple[str, ...], *, deadline_ms: int | None) -> RequestContext:
    return RequestContext(
        request_id=request_id,
        conversation_id=f"chat-{request_id}",
        tenant="acme" if request_id == "plain" else "other",
        deadline_ms=deadline_ms,
        submitted_ms=1,
        source=Source(topic=topics.REQUESTS, partition=0, offset=0),
        timings=tuple(StageTiming(stage=stage, queued_ms=1, processing_ms=1) for stage in stages),
    )


def prompt(request_id: str, text: str, *, deadline_ms: int | None = None) -> RequestAnonymized:
    return RequestAnonymized(
        context=context(request_id, ("preprocess", "anonymize"), deadline_ms=deadline_ms),
        prompt=(PromptPart(kind="text", text=text, role="user", message=0),),
        parameters=GenerationParameters(model="m", max_tokens=8),
    )


def answer(request_id: str, text: str, *, deadline_ms: int | None = None) -> CompletionGenerated:
    stages = ("preprocess", "anonymize", "safety", "inference")
    return CompletionGenerated(
        context=context(request_id, stages, deadline_ms=deadline_ms),
        completion=Completion(
            text=text, finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
        ),
        parameters=GenerationParameters(model="m", max_tokens=8),
    )


@dataclass
class Live:
    """An installation whose safety service runs on events that the test wrote, and the operator beside it."""

    stack: Stack
    folder: Path
    into: str = field(default_factory=lambda: f"r{uuid.uuid4().hex[:10]}.")

    def publish(self, *events: Event, timestamp_ms: int | None = None) -> None:
        producer = Producer(kafka.producer(settings(self.stack.bootstrap, self.stack.prefix), None))
        for event in events:
            headers: list[tuple[str, bytes]] = [
                *of_context(event.context, event.schema_ref()),
                ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
                ("foreign", b"\xff"),
            ]
            producer.produce(
                f"{self.stack.prefix}{topics.topic_of(event)}",
                event.encode(),
                event.context.conversation_id.encode(),
                headers=headers,
                timestamp=timestamp_ms or time.time_ns() // 1_000_000,
            )
        assert producer.flush(60) == 0

    def outcomes(self) -> int:
        return len(self.stack.read(topics.SCREENED, topics.SCREENED_COMPLETIONS, topics.RESULTS))

    def policy(self, text: str = POLICY) -> str:
        path = self.folder / "strict.yaml"
        path.write_text(text)
        return str(path)

    @property
    def environment(self) -> dict[str, str]:
        base = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "OTEL_"))}
        return {**base, "PENSTOCK_STATE_DIR": str(self.folder / "state")}

    def penstock(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Result:
        at = ["--bootstrap", self.stack.bootstrap]
        if arguments[0] == "replay":
            at += ["--prefix", self.stack.prefix]
        with patch.dict(os.environ, {**self.environment, **(environment or {})}, clear=True):
            return CliRunner().invoke(app, [*arguments, *at])

    def replay(self, *arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
        done = self.penstock("replay", "--into", self.into, "--json", *arguments, environment=environment)
        assert done.exit_code == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def diff(self, *arguments: str) -> dict[str, Any]:
        done = self.penstock("diff", "--into", self.into, "--json", "--show", "100", *arguments)
        assert done.exit_code == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def snapshot(self) -> dict[str, Any]:
        """Everything live that a replay must leave as it is."""
        bootstrap, live = self.stack.bootstrap, self.stack.prefix
        admin = AdminClient({"bootstrap.servers": bootstrap})
        there = admin.list_topics(timeout=60).topics
        parts = [
            TopicPartition(name, number)
            for name, found in there.items()
            if name.startswith(live)
            for number in found.partitions
        ]
        ends = admin.list_offsets(
            {part: OffsetSpec.latest() for part in parts}, isolation_level=IsolationLevel.READ_UNCOMMITTED
        )
        groups = [one.group_id for one in admin.list_consumer_groups().result().valid if one.group_id.startswith(live)]
        members = {
            name: sorted(member.member_id for member in future.result().members)
            for name, future in admin.describe_consumer_groups(groups).items()
        }
        return {
            "ends": {(part.topic, part.partition): future.result().offset for part, future in ends.items()},
            "members": members,
            "committed": {
                topic: committed_offsets(bootstrap, live, "safety", topic)
                for topic in (topics.ANONYMIZED, topics.COMPLETIONS)
            },
        }

    def left(self, into: str | None = None) -> set[str]:
        """Topics and groups under a replay's prefix."""
        mine = into or self.into
        admin = AdminClient({"bootstrap.servers": self.stack.bootstrap})
        groups = {one.group_id for one in admin.list_consumer_groups().result().valid}
        return {name for name in {*admin.list_topics(timeout=60).topics, *groups} if name.startswith(mine)}
