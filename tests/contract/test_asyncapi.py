"""The AsyncAPI document: its references lead somewhere, and it says what the code does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from penstock.contracts import asyncapi
from penstock.contracts import headers as names_of
from penstock.contracts.events import RequestContext, Source
from penstock.contracts.topics import RETRIES, load_topics

ROOT = Path(__file__).parents[2]
CONTRACTS = ROOT / "docs/contracts"
DOCUMENT = asyncapi.document()


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


@pytest.mark.parametrize("reference", sorted(set(references(DOCUMENT))))
def test_a_reference_leads_somewhere(reference: str) -> None:
    if reference.startswith("./"):
        assert json.loads((CONTRACTS / reference).read_text())["$id"].startswith("urn:penstock:")
        return
    node: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    assert node


def test_has_the_objects_that_the_specification_requires() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    for server in DOCUMENT["servers"].values():
        assert {"host", "protocol"} <= server.keys()
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = operation["channel"]["$ref"]
        # the specification: an operation's messages are references into its own channel
        assert all(m["$ref"].startswith(f"{channel}/messages/") for m in operation["messages"])
    for kind in ("messages", "schemas"):
        assert all(re.fullmatch(r"[\w.\-]+", key) for key in DOCUMENT["components"][kind])


def test_every_topic_is_a_channel_with_its_broker_settings() -> None:
    assert list(DOCUMENT["channels"]) == [topic.name for topic in load_topics()]
    for topic in load_topics():
        channel = DOCUMENT["channels"][topic.name]
        binding = channel["bindings"]["kafka"]
        assert channel["x-penstock-restricted"] is topic.restricted
        assert binding["partitions"] == topic.partitions
        configuration = {
            key: ",".join(value) if isinstance(value, list) else str(value)
            for key, value in binding["topicConfiguration"].items()
        }
        assert configuration == topic.broker_config()


def test_each_service_consumes_what_its_composition_root_says() -> None:
    constants = {name: value for name, value in vars(asyncapi_topics()).items() if isinstance(value, str)}
    for service in asyncapi.SERVICES:
        app = (ROOT / f"services/{service}/src/penstock_{service}/app.py").read_text()
        consumes = re.search(r"consumes=\(([^)]*)\)", app)
        assert consumes is not None
        in_code = {
            sibling
            for name in re.findall(r"topics\.([A-Z_]+)", consumes[1])
            for sibling in asyncapi_topics().siblings(constants[name])
        }
        state = {
            constants[name]
            for name in re.findall(r"(?:\.state\(|\.tallies\(|ledger=|finished=|Relaying\()topics\.([A-Z_]+)", app)
        }
        declared = {
            operation["channel"]["$ref"].removeprefix("#/channels/")
            for name, operation in DOCUMENT["operations"].items()
            if name.startswith(f"{service}-receive-")
        }
        assert declared == in_code | state | {RETRIES[service], constants["CONTROL"]}


def asyncapi_topics() -> Any:
    from penstock.contracts import topics

    return topics


def test_the_runtimes_headers_follow_the_header_schema() -> None:
    context = RequestContext(
        request_id="r1",
        conversation_id="c1",
        deadline_ms=5,
        submitted_ms=1,
        source=Source(topic="llm.requests", partition=0, offset=0),
    )
    pairs = [
        *names_of.of_context(context, "penstock.request-screened/1"),
        *names_of.cloud_event("r1/x", "penstock/safety", "penstock.request-screened/1", "2026-01-01T00:00:00.000Z"),
        ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ]
    written = {name: value.decode() for name, value in pairs}
    schema = asyncapi.event_headers()
    assert written.keys() - schema["properties"].keys() == set()
    Draft7Validator(schema).validate(written)
    assert not Draft7Validator(schema).is_valid(written | {names_of.PRIORITY: "urgent"})
    del written[names_of.REQUEST_ID]
    assert not Draft7Validator(schema).is_valid(written)
