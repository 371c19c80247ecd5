"""The claim check on a real broker: large messages through a stage, and each way to fail."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from tests.support.kafka import committed_offsets, header
from tests.support.retrying import Process
from tests.support.s3 import S3Server
from tests.support.stack import wait_until
from tests.support.toy import Harness, ids_of

from penstock.contracts import headers as names_of
from penstock.contracts import topics
from penstock.contracts.claims import CLAIM, Claim
from penstock.contracts.events import (
    GenerationParameters,
    PromptPart,
    RequestAnonymized,
    RequestContext,
    RequestPreprocessed,
    Source,
)
from penstock.contracts.results import DeadLetter, RequestFinished
from penstock.runtime.claims import Claims
from penstock.runtime.stage import Inbound, Outcome

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

PARAMETERS = GenerationParameters(model="m", max_tokens=1)
KIB = 1024


def noise(size: int) -> str:
    """Text that no compression makes smaller than half."""
    return random.Random(size).randbytes(size // 2).hex()


class Echo:
    """Passes prompts on; what stands in `grow` comes out longer."""

    name = "toy"
    versions: ClassVar[dict[str, str]] = {"toy": "1"}

    def __init__(self, grow: dict[str, int] | None = None) -> None:
        self.seen: list[str] = []
        self._grow = grow or {}

    def process(self, batch: Sequence[Inbound]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for inbound in batch:
            event = inbound.expect(RequestPreprocessed)
            request_id = event.context.request_id
            self.seen.append(request_id)
            grown = self._grow.get(request_id)
            prompt = event.prompt if grown is None else (PromptPart(kind="text", text=noise(grown)),)
            outcomes.append(RequestAnonymized(context=event.context, prompt=prompt, parameters=PARAMETERS))
        return outcomes


def event_of(request_id: str, text: str) -> RequestPreprocessed:
    context = RequestContext(
        request_id=request_id,
        conversation_id=request_id,
        submitted_ms=1,
        source=Source(topic="llm.requests", partition=0, offset=0),
    )
    return RequestPreprocessed(context=context, prompt=(PromptPart(kind="text", text=text),), parameters=PARAMETERS)


def publish(harness: Harness, claims: Claims, texts: dict[str, str]) -> dict[str, bytes]:
    """Publish events as the stage before would; request id -> the value as it stands in the topic."""
    producer = Producer({"bootstrap.servers": harness.settings.kafka_bootstrap_servers})
    values = {}
    for request_id, text in texts.items():
        event = event_of(request_id, text)
        kept = claims.check_in(topics.PREPROCESSED, event.encode(), time.time_ns() // 1_000_000)
        headers = [*names_of.of_context(event.context, event.schema_ref()), *kept.headers]
        producer.produce(harness.names.topic(topics.PREPROCESSED), kept.value, request_id.encode(), headers=headers)
        values[request_id] = kept.value
    assert producer.flush(30) == 0
    return values


def claims_of(harness: Harness) -> Claims:
    return claims_in(harness.settings.claim_store, harness)


def claims_in(store: str | Path, harness: Harness) -> Claims:
    """With another store than the stage has."""
    settings = harness.settings
    return Claims.open(str(store), threshold=settings.claim_threshold_bytes, most=settings.claim_max_bytes)


def by_id(messages: Sequence[Message]) -> dict[str, Message]:
    return {(header(message, "request-id") or b"").decode(): message for message in messages}


def finished(message: Message) -> RequestFinished:
    return RequestFinished.model_validate_json(message.value())


def reason(message: Message) -> DeadLetter:
    return DeadLetter.model_validate_json(header(message, names_of.DEAD_LETTER) or b"")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "claims"
    folder.mkdir()
    return folder


@pytest.fixture(params=["folder", "s3"])
def address(request: pytest.FixtureRequest, store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "folder":
        yield store.as_uri()
        return
    with S3Server(store) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("claims")
        yield "s3://claims/penstock"


def test_large_values_travel_as_claims_and_small_ones_as_they_are(bootstrap: str, prefix: str, address: str) -> None:
    harness = Harness(bootstrap, prefix, claim_store=address)
    claims = claims_of(harness)
    texts = {"large": noise(5 * KIB * KIB), "small": "hello", "fitting": noise(100 * KIB)}
    publish(harness, claims, texts)
    with harness.working(Echo()):
        found = by_id(harness.read(topics.ANONYMIZED, 3))
    assert found.keys() == texts.keys()
    assert header(found["large"], CLAIM) == b"penstock.claim/1"
    assert len(found["large"].value()) < KIB
    assert json.loads(found["large"].value())["object"].startswith("open/llm.anonymized/")
    # what routing needs is as readable as ever
    assert header(found["large"], names_of.SCHEMA) == b"penstock.request-anonymized/1"
    assert header(found["large"], names_of.TENANT) == b"default"
    assert header(found["small"], CLAIM) is header(found["fitting"], CLAIM) is None
    for request_id, message in found.items():
        value = claims.resolve(topics.ANONYMIZED, message.value(), message.headers())
        event = RequestAnonymized.model_validate_json(value or b"")
        assert event.prompt[0].text == texts[request_id]


def test_what_the_store_does_not_have_as_claimed_is_never_processed(bootstrap: str, prefix: str, store: Path) -> None:
    harness = Harness(bootstrap, prefix, claim_store=str(store), claim_threshold_bytes=2 * KIB)
    claims = claims_of(harness)
    texts = {request_id: f"{request_id} " * 2_000 for request_id in ("lost", "changed", "cut", "good")}
    values = publish(harness, claims, texts)
    objects = {request_id: Claim.model_validate_json(value).object for request_id, value in values.items()}
    (store / objects["lost"]).unlink()
    changed = (store / objects["changed"]).read_bytes()
    (store / objects["changed"]).write_bytes(changed.replace(b"changed ", b"CHANGED ", 1))
    (store / objects["cut"]).write_bytes(b"{}")
    stage = Echo()
    with harness.working(stage):
        assert ids_of(harness.read(topics.ANONYMIZED, 1)) == Counter(["good"])
        results = {finished(message).id: finished(message) for message in harness.read(topics.RESULTS, 3)}
        letters = by_id(harness.read(topics.DEAD_LETTERS, 3))
    assert stage.seen == ["good"]
    codes = {"lost": "claim_missing", "changed": "claim_mismatch", "cut": "claim_mismatch"}
    assert {request_id: result.error and result.error.code for request_id, result in results.items()} == codes
    for request_id, letter in letters.items():
        assert letter.value() == values[request_id], "a dead letter keeps the record as it stood in the topic"
        assert header(letter, CLAIM) == b"penstock.claim/1"
        assert reason(letter).error.code == codes[request_id]


def test_a_store_that_comes_back_is_waited_for_on_both_ways(bootstrap: str, prefix: str, store: Path) -> None:
    own = {"claim_threshold_bytes": 2 * KIB, "retry_attempts": 100, "retry_backoff_max_ms": 500}
    harness = Harness(bootstrap, prefix, claim_store=str(store), **own)
    away = store.with_name("away")

    def retries() -> float:
        labels = {"stage": "toy", "how": "in_place", "code": "claim_store_unavailable"}
        return harness.metrics.registry.get_sample_value("penstock_retries_total", labels) or 0.0

    with harness.working(Echo(grow={"out": 4 * KIB})):
        for request_id, text in (("in", noise(6 * KIB)), ("out", "short")):
            before = retries()
            store.rename(away)
            publish(harness, claims_in(away, harness), {request_id: text})
            wait_until(lambda before=before: retries() > before, "an attempt beyond the first")  # type: ignore[misc]  # bound now
            away.rename(store)
            assert request_id in ids_of(harness.read(topics.ANONYMIZED, 1 if request_id == "in" else 2))
        assert harness.read(topics.RESULTS, 0, seconds=0) == []


def test_over_the_hard_limit_is_a_typed_end_on_both_ways(bootstrap: str, prefix: str, store: Path) -> None:
    harness = Harness(bootstrap, prefix, claim_store=str(store), claim_max_bytes=1_048_576)
    generous = Claims.open(str(store), most=8_388_608)
    texts = {"in": noise(2 * KIB * KIB), "out": "short", "good": noise(800 * KIB)}
    values = publish(harness, generous, texts)
    stage = Echo(grow={"out": 3 * KIB * KIB})
    with harness.working(stage):
        assert ids_of(harness.read(topics.ANONYMIZED, 1)) == Counter(["good"])
        results = {finished(message).id: finished(message) for message in harness.read(topics.RESULTS, 2)}
        letters = by_id(harness.read(topics.DEAD_LETTERS, 2))
    assert set(stage.seen) == {"out", "good"}
    for request_id in ("in", "out"):
        error = results[request_id].error
        assert error is not None
        assert (error.code, error.limit) == ("limit_exceeded", 1_048_576)
        assert "PENSTOCK_CLAIM_MAX_BYTES" in error.message
        assert letters[request_id].value() == values[request_id]


def test_without_a_store_what_the_topic_does_not_take_is_a_typed_end(bootstrap: str, prefix: str) -> None:
    harness = Harness(bootstrap, prefix)
    publish(harness, Claims(), {"a": "short", "out": "short", "b": "short"})
    with harness.working(Echo(grow={"out": 5 * KIB * KIB})):
        assert ids_of(harness.read(topics.ANONYMIZED, 2)) == Counter(["a", "b"])
        (result,) = harness.read(topics.RESULTS, 1)
        (letter,) = harness.read(topics.DEAD_LETTERS, 1)
    error = finished(result).error
    assert error is not None
    assert error.code == reason(letter).error.code == "limit_exceeded"
    assert "PENSTOCK_CLAIM_STORE" in error.message


def lower_limit(bootstrap: str, topic: str, size: int) -> None:
    """Make a topic take less than it declares, as an operator may."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)


@pytest.mark.parametrize("size", [2 * KIB * KIB, 200 * KIB], ids=["alone-in-its-batch", "among-others"])
def test_what_the_broker_refuses_for_its_size_ends_that_one_request(bootstrap: str, prefix: str, size: int) -> None:
    harness = Harness(bootstrap, prefix)
    lower_limit(bootstrap, harness.names.topic(topics.ANONYMIZED), 150_000)
    ids = [f"r{number}" for number in range(40)]
    publish(harness, Claims(), {request_id: noise(8 * KIB) for request_id in [*ids[:20], "out", *ids[20:]]})
    with harness.working(Echo(grow={"out": size})):
        assert ids_of(harness.read(topics.ANONYMIZED, 40)) == Counter(ids)
        (result,) = harness.read(topics.RESULTS, 1)
        (letter,) = harness.read(topics.DEAD_LETTERS, 1)
        # the stream goes on
        publish(harness, Claims(), {"next": "short"})
        assert "next" in ids_of(harness.read(topics.ANONYMIZED, 41))
    error = finished(result).error
    assert (finished(result).id, error and error.code) == ("out", "record_too_large")
    assert RequestPreprocessed.model_validate_json(letter.value()).context.request_id == "out"
    offsets = committed_offsets(bootstrap, prefix, "toy", topics.PREPROCESSED)
    assert sum(offsets.values()) >= 42


def test_a_claimed_record_comes_back_from_the_retry_topic(
    bootstrap: str, prefix: str, store: Path, tmp_path: Path
) -> None:
    harness = Harness(bootstrap, prefix, claim_store=str(store), claim_threshold_bytes=2 * KIB)
    request_id, text = "rate.1.1.large", noise(6 * KIB)
    values = publish(harness, claims_of(harness), {request_id: text})
    own = {"claim_store": str(store), "claim_threshold_bytes": str(2 * KIB), "retry_in_place_max_ms": "0"}
    with Process(bootstrap, prefix, tmp_path, **own) as service:
        (done,) = harness.read(topics.ANONYMIZED, 1)
        calls = len(service.calls.of(request_id))
    assert ids_of([done]) == Counter([request_id])
    assert calls == 2
    (waited,) = harness.read(topics.RETRY_ANONYMIZE, 1)
    first, back = harness.read(topics.PREPROCESSED, 2)
    for message in (waited, back):
        assert message.value() == values[request_id] == first.value()
        assert message.headers()[: len(first.headers())] == first.headers()
    assert claims_of(harness).resolve(topics.PREPROCESSED, back.value(), back.headers()) is not None
