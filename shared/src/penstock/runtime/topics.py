"""Bringing a broker to `topics.toml`: idempotent, never destructive."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from penstock.contracts.errors import BackendUnavailable, ConfigurationError
from penstock.contracts.topics import Topic, load_topics

TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that `apply` did."""

    topic: str
    what: str


def apply(
    bootstrap: str,
    prefix: str = "",
    *,
    replication: int = -1,
    options: Mapping[str, Any] | None = None,
    partitions: int | None = None,
) -> list[Change]:
    """Create what is missing, correct settings that differ, add partitions.

    replication -1 takes the broker's default; `partitions` overrides the file's for all topics alike.
    Raises ConfigurationError where a topic has more partitions than declared (they cannot be taken away)
    and BackendUnavailable where no broker answers.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, **(options or {})})
    declared = {f"{prefix}{topic.name}": _with_partitions(topic, partitions) for topic in load_topics()}
    existing = _partitions(admin, bootstrap)
    changes = _create(admin, [(name, t) for name, t in declared.items() if name not in existing], replication)
    present = {name: topic for name, topic in declared.items() if name in existing}
    changes += _grow(admin, present, existing)
    if changes:
        _await(admin, bootstrap, declared)
    changes += _configure(admin, present)
    return changes


def _await(admin: AdminClient, bootstrap: str, declared: Mapping[str, Topic]) -> None:
    """Brokers learn of new partitions a moment later; a client that comes at once should find them."""
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        existing = _partitions(admin, bootstrap)
        if all(existing.get(name) == topic.partitions for name, topic in declared.items()):
            return
        time.sleep(0.05)
    raise BackendUnavailable(f"the broker at {bootstrap} did not show the new topics within {TIMEOUT_S:.0f} s")


def describe(bootstrap: str, prefix: str = "", options: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Declared topics that exist on the broker -> their partitions."""
    existing = _partitions(AdminClient({"bootstrap.servers": bootstrap, **(options or {})}), bootstrap)
    names = [f"{prefix}{topic.name}" for topic in load_topics()]
    return {name: existing[name] for name in names if name in existing}


def _with_partitions(topic: Topic, partitions: int | None) -> Topic:
    return topic if partitions is None else topic.model_copy(update={"partitions": partitions})


def _partitions(admin: AdminClient, bootstrap: str) -> dict[str, int]:
    try:
        metadata = admin.list_topics(timeout=TIMEOUT_S)
    except KafkaException as error:
        raise BackendUnavailable(
            f"no Kafka broker answers at {bootstrap} within {TIMEOUT_S:.0f} s ({error.args[0].name()}); "
            "start one with `penstock up` or name another with --bootstrap"
        ) from None
    return {name: len(topic.partitions) for name, topic in metadata.topics.items()}


def _create(admin: AdminClient, missing: Sequence[tuple[str, Topic]], replication: int) -> list[Change]:
    if not missing:
        return []
    futures = admin.create_topics(
        [
            NewTopic(name, num_partitions=t.partitions, replication_factor=replication, config=t.broker_config())
            for name, t in missing
        ],
        operation_timeout=TIMEOUT_S,
    )
    changes = []
    for name, topic in missing:
        try:
            futures[name].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:  # another `apply` was faster
                continue
            raise
        changes.append(Change(name, f"created with {topic.partitions} partitions"))
    return changes


def _grow(admin: AdminClient, declared: Mapping[str, Topic], existing: Mapping[str, int]) -> list[Change]:
    wanted = []
    for name, topic in declared.items():
        have = existing[name]
        if have > topic.partitions:
            raise ConfigurationError(
                f"topic {name} has {have} partitions, topics.toml declares {topic.partitions}; Kafka cannot take "
                "partitions away: declare as many, or move to another topic prefix"
            )
        if have < topic.partitions:
            wanted.append((name, have, topic.partitions))
    if not wanted:
        return []
    for future in admin.create_partitions([NewPartitions(name, total) for name, _, total in wanted]).values():
        future.result()
    return [Change(name, f"partitions {have} -> {total}") for name, have, total in wanted]


def _configure(admin: AdminClient, declared: Mapping[str, Topic]) -> list[Change]:
    if not declared:
        return []
    current = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in declared])
    changes, resources = [], []
    for resource, future in current.items():
        actual: Mapping[str, Any] = future.result()
        differing = {
            key: value
            for key, value in declared[resource.name].broker_config().items()
            if _canonical(actual[key].value) != _canonical(value)
        }
        if not differing:
            continue
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in differing.items()
        ]
        resources.append(ConfigResource(ResourceType.TOPIC, resource.name, incremental_configs=entries))
        changes += [Change(resource.name, f"{k} {actual[k].value} -> {v}") for k, v in differing.items()]
    if resources:
        for future in admin.incremental_alter_configs(resources).values():
            future.result()
    return changes


def _canonical(value: str) -> str:
    return ",".join(sorted(value.split(",")))
