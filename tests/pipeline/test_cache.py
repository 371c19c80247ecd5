"""Kept answers on the whole path: whose names they get, who is served, and that they are screened each time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from tests.support.chat_server import ChatServer, Reply
from tests.support.kafka import Publishing
from tests.support.pipeline import Journey, Pipeline
from tests.support.targets import target

from penstock.contracts import topics
from penstock.contracts.events import CompletionGenerated
from penstock.vault import new_key

NOW_MS = 1_800_000_000_000
KEYS = SecretStr(new_key("test"))
SECRET = "AKIA" + "Q3EGRZJ7WLPX2MTN"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """Says back what it is told."""
    with ChatServer() as server:
        yield server


@pytest.fixture
def pipeline(server: ChatServer) -> Iterator[Pipeline]:
    with pipeline_of(server) as pipeline:
        yield pipeline


@contextmanager
def pipeline_of(server: ChatServer, **own: Any) -> Iterator[Pipeline]:
    pipeline = Pipeline(vault_keys=KEYS, inference_targets=json.dumps({"targets": [target("main", server)]}), **own)
    try:
        yield pipeline
    finally:
        pipeline.close()


def ask(pipeline: Pipeline, text: str, tenant: str = "acme", **more: Any) -> Journey:
    body = {"messages": [{"role": "user", "content": text}], **more}
    return pipeline.run(Publishing(json.dumps(body).encode(), [("tenant", tenant.encode())]), now_ms=NOW_MS)


def said(journey: Journey) -> str:
    (choice,) = journey.result.choices
    return choice.message.content.removeprefix("You said: ")


def test_two_requests_that_differ_in_a_person_alone_get_each_its_own_back(
    pipeline: Pipeline, server: ChatServer
) -> None:
    one = ask(pipeline, "Write to maddy@example.org about the river.")
    other = ask(pipeline, "Write to noor@example.net about the river.")
    assert len(server.seen) == 1
    assert "@" not in server.seen[0].said
    assert said(one) == "Write to maddy@example.org about the river."
    assert said(other) == "Write to noor@example.net about the river."
    assert (one.result.cached, other.result.cached) == (None, "exact")
    assert other.result.usage == one.result.usage
    assert other.result.versions["model"] == one.result.versions["model"]


def test_two_persons_in_another_order_are_another_prompt(pipeline: Pipeline, server: ChatServer) -> None:
    talk = [("conversation-id", b"talk-1"), ("tenant", b"acme")]
    for number, text in enumerate(("a@example.org, then b@example.org", "b@example.org, then a@example.org")):
        body = json.dumps({"messages": [{"role": "user", "content": text}], "request_id": f"r-{number}"})
        journey = pipeline.run(Publishing(body.encode(), talk), now_ms=NOW_MS)
        assert said(journey) == text
    assert len(server.seen) == 2


def test_an_answer_is_never_given_to_another_tenant(pipeline: Pipeline, server: ChatServer) -> None:
    for tenant in ("acme", "globex"):
        assert ask(pipeline, "What is a river?", tenant).result.cached is None
    assert len(server.seen) == 2


def test_a_request_opts_out(pipeline: Pipeline, server: ChatServer) -> None:
    ask(pipeline, "What is a river?")
    assert ask(pipeline, "What is a river?", cache=False).result.cached is None
    assert ask(pipeline, "What is a river?", cache=True).result.cached == "exact"
    assert len(server.seen) == 2


def test_nothing_is_kept_where_the_setting_is_nothing(server: ChatServer) -> None:
    with pipeline_of(server, inference_cache_mib=0) as pipeline:
        for _ in range(2):
            assert ask(pipeline, "What is a river?").result.cached is None
    assert len(server.seen) == 2


def test_a_kept_answer_is_screened_each_time(pipeline: Pipeline, server: ChatServer) -> None:
    server.choose = lambda _: Reply(text=f"The key is {SECRET}.")
    journeys = [ask(pipeline, "What is the key?") for _ in range(2)]
    assert len(server.seen) == 1
    kept = [
        CompletionGenerated.model_validate_json(journey.outputs[topics.COMPLETIONS][0].value) for journey in journeys
    ]
    assert [event.completion.cached for event in kept] == [None, "exact"]
    assert all(SECRET in event.completion.text for event in kept)
    for journey in journeys:
        assert {verdict.direction for verdict in journey.result.verdicts} == {"response"}
        assert SECRET not in journey.result.model_dump_json()
    assert journeys[0].result.verdicts == journeys[1].result.verdicts


def test_a_stream_of_a_kept_answer_is_the_answer_in_pieces(pipeline: Pipeline, server: ChatServer) -> None:
    text = "Write to maddy@example.org " + "about the river " * 20
    ask(pipeline, text, max_tokens=200)
    journey = ask(pipeline, text, max_tokens=200, stream=True)
    pieces = [piece for piece in pipeline.resources["inference"].streamed.sent if piece.request_id == journey.result.id]
    assert len(server.seen) == 1
    assert len(pieces) > 2
    assert [piece.sequence for piece in pieces] == list(range(len(pieces)))
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    completion = CompletionGenerated.model_validate_json(journey.outputs[topics.COMPLETIONS][0].value).completion
    assert "".join(piece.text for piece in pieces) == completion.text
    assert "<EMAIL_ADDRESS_1>" in completion.text
