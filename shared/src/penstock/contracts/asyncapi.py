"""The AsyncAPI 3.0 document: channels from `topics.toml`, messages from the models, headers from `headers`.

Payload schemas are referred to as files beside the document (`export` writes both), so that each
stands in one place.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from penstock import __version__
from penstock.contracts import headers as names_of
from penstock.contracts.base import Message
from penstock.contracts.claims import CLAIM, Claim
from penstock.contracts.control import Cancel
from penstock.contracts.events import Priority
from penstock.contracts.lanes import lane_of
from penstock.contracts.request import IDENTIFIER_PATTERN, CompletionRequest
from penstock.contracts.results import DeadLetter
from penstock.contracts.topics import MESSAGES, RETRIES, Party, StateEntry, Topic, claimable, load_topics

SCHEMA_FORMAT: Final = "application/schema+json;version=draft-2020-12"
BINDING_VERSION: Final = "0.5.0"
SERVICES: Final = tuple(party for party in get_args(Party) if party not in ("upstream", "operator"))

_KEY = {"type": "string", "description": "The conversation id, else the request id: order holds per key."}
_CONTROL_KEY = {
    "type": "string",
    "description": "request/ID, conversation/ID or tenant/NAME; a record without value takes the command back.",
}


def document() -> dict[str, Any]:
    """The whole document, ready to be written as JSON."""
    topics = load_topics()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Penstock",
            "version": __version__,
            "description": (
                "LLM requests as Kafka events. Publish to llm.requests, or llm.requests.bulk; each record ends in "
                "exactly one record on llm.results. Addresses are without the topic prefix (PENSTOCK_TOPIC_PREFIX)."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "variables": {"bootstrap": {"default": "127.0.0.1:9092", "description": "HOST:PORT of a broker."}},
            }
        },
        "channels": {topic.name: _channel(topic) for topic in topics},
        "operations": {
            name: operation for topic in topics for name, operation in _operations(topic) if operation is not None
        },
        "components": {
            "messages": {_short(message): _message(message) for message in MESSAGES.values()},
            "schemas": {
                "request-headers": request_headers(),
                "event-headers": event_headers(),
                "claim-headers": claim_headers(),
                "dead-letter-headers": dead_letter_headers(),
            },
        },
    }


def request_headers() -> dict[str, Any]:
    """Headers that upstream may set on `llm.requests`; all optional."""
    return {
        "type": "object",
        "properties": _routing() | _redrive() | _retry() | _trace() | _cloud_event(required=False),
    }


def event_headers() -> dict[str, Any]:
    """Headers of every event and result."""
    return {
        "type": "object",
        "required": [
            names_of.REQUEST_ID,
            names_of.CONVERSATION_ID,
            names_of.TENANT,
            names_of.PRIORITY,
            names_of.SCHEMA,
            names_of.ATTEMPT,
        ],
        "properties": _routing() | _retry() | _trace() | _cloud_event(required=True),
    }


def claim_headers() -> dict[str, Any]:
    """Headers of a record whose value is kept in the claim store: those of its message, and `claim`."""
    return {
        "type": "object",
        "required": [CLAIM],
        "properties": {
            CLAIM: {"const": Claim.schema_ref(), "description": "The value is a claim; `schema` names what it is for."}
        },
        "additionalProperties": True,
    }


def dead_letter_headers() -> dict[str, Any]:
    """The original record's headers and why it is here; or the mark that a letter was sent again."""
    return {
        "type": "object",
        "anyOf": [{"required": [names_of.DEAD_LETTER]}, {"required": [names_of.REDRIVEN]}],
        "properties": {
            names_of.DEAD_LETTER: {
                "type": "string",
                "contentMediaType": "application/json",
                "description": f"JSON: {DeadLetter.schema_ref()}, schemas/{schema_file(DeadLetter)}.",
            },
            names_of.REDRIVEN: {
                "type": "string",
                "contentMediaType": "application/json",
                "description": "Of a record without value: JSON with dead_letter (PARTITION/OFFSET), to and at_ms.",
            },
        },
        "additionalProperties": True,
    }


def schema_file(message: type[Message]) -> str:
    """The file of a message's JSON Schema."""
    return f"{message.schema_name}.v{message.schema_version}.json"


def _routing() -> dict[str, Any]:
    identifier = {"type": "string", "pattern": IDENTIFIER_PATTERN}
    digits = {"type": "string", "pattern": "^[0-9]{1,18}$"}
    return {
        names_of.REQUEST_ID: identifier | {"description": "Idempotency key: the same id twice gives one result."},
        names_of.CONVERSATION_ID: identifier | {"description": "Placeholders are stable within a conversation."},
        names_of.TENANT: identifier | {"description": "Whose request this is."},
        names_of.PRIORITY: {"type": "string", "enum": list(get_args(Priority))},
        names_of.DEADLINE: digits | {"description": "Absolute, milliseconds since the epoch."},
        names_of.SCHEMA: {"type": "string", "description": "NAME/VERSION of the payload's schema."},
        names_of.ATTEMPT: digits
        | {"description": "Times redriven; with retry-of, attempts of the stage. The last one counts."},
    }


def _redrive() -> dict[str, Any]:
    return {
        names_of.REDRIVE_OF: {
            "type": "string",
            "pattern": names_of.PLACE_PATTERN,
            "description": "Set by `penstock dlq redrive`: TOPIC/PARTITION/OFFSET of the record this one repeats.",
        }
    }


def _retry() -> dict[str, Any]:
    return {
        names_of.NOT_BEFORE: {
            "type": "string",
            "pattern": "^[0-9]{1,18}$",
            "description": "Of a record that was delayed: when it was due, milliseconds since the epoch.",
        },
        names_of.RETRY_OF: {
            "type": "string",
            "pattern": names_of.PLACE_PATTERN,
            "description": "Of a record that was delayed: TOPIC/PARTITION/OFFSET where it stood first.",
        },
        names_of.RETRY_CODE: {"type": "string", "description": "Of a record that was delayed: its last error's code."},
    }


def _trace() -> dict[str, Any]:
    return {
        "traceparent": {"type": "string", "description": "W3C trace context: the producer's span."},
        "tracestate": {"type": "string", "description": "W3C trace context: vendors' state."},
    }


def _cloud_event(*, required: bool) -> dict[str, Any]:
    if not required:
        return {"content-type": {"type": "string"}}
    return {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string"},
        "ce_source": {"type": "string"},
        "ce_type": {"type": "string"},
        "ce_time": {"type": "string", "format": "date-time"},
        "content-type": {"const": "application/json"},
    }


def _short(message: type[Message]) -> str:
    return message.schema_name.removeprefix("penstock.")


def _first_line(documented: type[Message]) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


def _messages(topic: Topic) -> list[type[Message]]:
    claims = claimable(topic.name) or topic.name in RETRIES.values()
    return [*(MESSAGES[name] for name in topic.messages), *([Claim] if claims else [])]


def _channel(topic: Topic) -> dict[str, Any]:
    messages = _messages(topic)
    return {
        "address": topic.name,
        "description": topic.description,
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {_short(one): {"$ref": f"#/components/messages/{_short(one)}"} for one in messages},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {
                    "cleanup.policy": topic.cleanup.split(","),
                    "retention.ms": topic.retention_hours * 3_600_000 if topic.retention_hours else -1,
                    "max.message.bytes": topic.max_message_bytes,
                },
                "bindingVersion": BINDING_VERSION,
            }
        },
        "x-penstock-restricted": topic.restricted,
    }


def _message(message: type[Message]) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "schemaFormat": SCHEMA_FORMAT,
        "schema": {"$ref": f"./schemas/{schema_file(message)}"},
    }
    rendered: dict[str, Any] = {
        "name": message.schema_ref(),
        "title": message.__name__,
        "summary": _first_line(message),
        "contentType": "application/json",
        "payload": payload,
        "bindings": {"kafka": {"key": _KEY, "bindingVersion": BINDING_VERSION}},
    }
    if message is DeadLetter:
        # the record's value is the original one, whatever it was
        return rendered | {
            "contentType": "application/octet-stream",
            "payload": {"description": "The original bytes, untouched."},
            "headers": {"$ref": "#/components/schemas/dead-letter-headers"},
        }
    if message is StateEntry:
        return rendered | {"bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": BINDING_VERSION}}}
    if message is Cancel:
        return rendered | {"bindings": {"kafka": {"key": _CONTROL_KEY, "bindingVersion": BINDING_VERSION}}}
    if message is Claim:
        return rendered | {"headers": {"$ref": "#/components/schemas/claim-headers"}}
    kind = "request" if message is CompletionRequest else "event"
    return rendered | {"headers": {"$ref": f"#/components/schemas/{kind}-headers"}}


def _operations(topic: Topic) -> list[tuple[str, dict[str, Any] | None]]:
    return [
        (f"{service}-{action}-{topic.name}", _operation(topic, service, action) if service in parties else None)
        for action, parties in (("send", topic.written_by), ("receive", topic.read_by))
        for service in SERVICES
    ]


def _operation(topic: Topic, service: str, action: str) -> dict[str, Any]:
    messages = _messages(topic)
    operation: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "title": f"{service} {'publishes to' if action == 'send' else 'consumes'} {topic.name}",
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/{_short(one)}"} for one in messages],
    }
    if action == "receive":
        purpose = {StateEntry.schema_name: "-state", Cancel.schema_name: "-control"}.get(topic.message, "")
        purpose = "-retry" if topic.name in RETRIES.values() else purpose
        lane = "-bulk" if lane_of(topic.name) == "bulk" else ""
        group = {"type": "string", "const": f"penstock-{service}{purpose}{lane}"}
        operation["bindings"] = {"kafka": {"groupId": group, "bindingVersion": BINDING_VERSION}}
    return operation
