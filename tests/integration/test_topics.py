"""`topics.apply` on a real broker: creates, corrects, grows, never shrinks."""

from __future__ import annotations

import time
import uuid

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from penstock.contracts.errors import BackendUnavailable, ConfigurationError
from penstock.contracts.topics import load_topics
from penstock.runtime import topics

pytestmark = pytest.mark.broker


@pytest.fixture
def fresh() -> str:
    return f"t{uuid.uuid4().hex[:10]}."


def test_apply_creates_every_topic_and_then_changes_nothing(bootstrap: str, fresh: str) -> None:
    made = topics.apply(bootstrap, fresh, replication=1)
    assert {change.topic for change in made} == {f"{fresh}{topic.name}" for topic in load_topics()}
    assert topics.apply(bootstrap, fresh, replication=1) == []
    assert topics.describe(bootstrap, fresh) == {f"{fresh}{topic.name}": topic.partitions for topic in load_topics()}


def test_apply_corrects_a_setting_that_was_changed_by_hand(bootstrap: str, fresh: str) -> None:
    topics.apply(bootstrap, fresh, replication=1)
    name = f"{fresh}llm.requests"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    entry = ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
    changed = admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])])
    for future in changed.values():
        future.result()
    until = time.monotonic() + 60
    changes: list[topics.Change] = []
    while not changes and time.monotonic() < until:  # brokers learn of a change a moment later
        changes = topics.apply(bootstrap, fresh, replication=1)
    (change,) = changes
    assert change == topics.Change(name, "retention.ms 1000 -> 86400000")


def test_apply_adds_partitions_and_refuses_to_take_them_away(bootstrap: str, fresh: str) -> None:
    topics.apply(bootstrap, fresh, replication=1, partitions=2)
    grown = topics.apply(bootstrap, fresh, replication=1, partitions=3)
    assert {change.what for change in grown} == {"partitions 2 -> 3"}
    with pytest.raises(ConfigurationError, match="has 3 partitions"):
        topics.apply(bootstrap, fresh, replication=1, partitions=1)


def test_no_broker_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "TIMEOUT_S", 0.5)
    with pytest.raises(BackendUnavailable, match=r"no Kafka broker answers at 127\.0\.0\.1:1 "):
        topics.apply("127.0.0.1:1")
