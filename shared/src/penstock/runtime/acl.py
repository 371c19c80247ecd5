"""Which ACLs each service needs, derived from `topics.toml`, and bringing a broker to them.

One principal for each party, `User:penstock-<party>`, of one Kafka cluster. Nothing is ever taken away: what is
too much is reported by `compare`, for a person to remove. Users and their passwords are left to the broker's owner.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from penstock.contracts.errors import BackendUnavailable
from penstock.contracts.lanes import base_of
from penstock.contracts.topics import DEAD_LETTERS, EVENTS, REQUESTS, Party, Topic, load_topics
from penstock.runtime.kafka import Names

PARTIES: Final[tuple[Party, ...]] = get_args(Party)
SERVICES: Final = tuple(party for party in PARTIES if party not in ("upstream", "operator"))
PRINCIPAL_PREFIX: Final = "penstock-"
TIMEOUT_S = 20.0

_READS = frozenset({"READ", "ALL"})


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One ACL that allows something. Names are the broker's own, in capitals."""

    principal: str
    resource: str
    """TOPIC, GROUP, TRANSACTIONAL_ID, CLUSTER."""
    name: str
    pattern: str
    """LITERAL or PREFIXED."""
    operation: str
    host: str = "*"

    def covers(self, name: str) -> bool:
        """Whether this grant's pattern takes in a resource of that name."""
        if self.pattern == "PREFIXED":
            return name.startswith(self.name)
        return self.name in (name, "*")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a broker's ACLs stand to those that are needed."""

    missing: tuple[Grant, ...]
    excess: tuple[Grant, ...]
    """Allowed to a party of ours without need, or to anybody a restricted topic."""

    @property
    def ok(self) -> bool:
        """Exactly what is needed."""
        return not self.missing and not self.excess


def principal_of(party: str, principal_prefix: str = PRINCIPAL_PREFIX) -> str:
    """The principal a party runs as."""
    return f"User:{principal_prefix}{party}"


def plan(prefix: str = "", principal_prefix: str = PRINCIPAL_PREFIX) -> tuple[Grant, ...]:
    """Every grant that is needed, by party; `prefix` is that of the topics."""
    names = Names(prefix)
    return tuple(grant for party in PARTIES for grant in _of_party(party, names, principal_prefix))


def _of_party(party: Party, names: Names, principal_prefix: str) -> Iterator[Grant]:
    who = principal_of(party, principal_prefix)
    for topic in load_topics():
        name = names.topic(topic.name)
        # each brings Describe with it
        if party in topic.read_by:
            yield Grant(who, "TOPIC", name, "LITERAL", "READ")
        if party in topic.written_by or (party == "operator" and _redriven(topic)):
            yield Grant(who, "TOPIC", name, "LITERAL", "WRITE")
    own = names.group(party)
    if party == "operator":
        yield Grant(who, "TRANSACTIONAL_ID", names.group("redrive"), "LITERAL", "WRITE")
    else:
        yield Grant(who, "GROUP", own, "LITERAL", "READ")
        # the readers of state, outside the group; and whatever an instance's slot is called
        yield Grant(who, "GROUP", f"{own}-", "PREFIXED", "READ")
        yield Grant(who, "TRANSACTIONAL_ID", f"{own}-", "PREFIXED", "WRITE")
    if party in ("operator", "upstream"):
        yield Grant(who, "GROUP", "penstock-cli-", "PREFIXED", "READ")


def _redriven(topic: Topic) -> bool:
    """Whether `penstock dlq redrive` writes there: records to where they were read, markers beside the letters."""
    return base_of(topic.name) in (REQUESTS, DEAD_LETTERS, *EVENTS)


def apply(options: Mapping[str, Any], wanted: Iterable[Grant]) -> list[Grant]:
    """Create what is missing; what was created. Raises BackendUnavailable and KafkaException."""
    admin = AdminClient(dict(options))
    needed = set(wanted)
    missing = sorted(needed - _present(admin))
    if not missing:
        return []
    for future in admin.create_acls([_binding(grant) for grant in missing], request_timeout=TIMEOUT_S).values():
        future.result()
    _await(admin, needed)
    return missing


def _await(admin: AdminClient, needed: set[Grant]) -> None:
    """Brokers learn of new ACLs a moment later; a service that is started at once should find them."""
    until = time.monotonic() + TIMEOUT_S
    while needed - _present(admin):
        if time.monotonic() > until:
            raise BackendUnavailable(f"the broker did not show the new ACLs within {TIMEOUT_S:.0f} s")
        time.sleep(0.05)


def check(
    options: Mapping[str, Any], wanted: Iterable[Grant], *, prefix: str = "", principal_prefix: str = PRINCIPAL_PREFIX
) -> Comparison:
    """Compare a broker's ACLs with those wanted. Raises BackendUnavailable and KafkaException."""
    restricted = [Names(prefix).topic(topic.name) for topic in load_topics() if topic.restricted]
    ours = [principal_of(party, principal_prefix) for party in PARTIES]
    return compare(wanted, _present(AdminClient(dict(options))), restricted, ours)


def compare(
    wanted: Iterable[Grant], present: Iterable[Grant], restricted: Sequence[str], ours: Sequence[str]
) -> Comparison:
    """What is missing, and what is too much: for the principals `ours`, and for all on the topics `restricted`."""
    needed, there = set(wanted), set(present)

    def too_much(grant: Grant) -> bool:
        reads = grant.resource == "TOPIC" and grant.operation in _READS
        return grant.principal in ours or (reads and any(grant.covers(name) for name in restricted))

    excess = {grant for grant in there - needed if too_much(grant)}
    return Comparison(tuple(sorted(needed - there)), tuple(sorted(excess)))


def _present(admin: AdminClient) -> set[Grant]:
    everything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ALLOW
    )
    try:
        found = admin.describe_acls(everything, request_timeout=TIMEOUT_S).result()
    except KafkaException as error:
        if error.args[0].retriable():
            raise BackendUnavailable(f"the broker did not tell its ACLs ({error.args[0].name()}); try again") from None
        raise
    return {_grant(binding) for binding in found}


def _grant(binding: Any) -> Grant:
    return Grant(
        binding.principal,
        "CLUSTER" if binding.restype == ResourceType.BROKER else binding.restype.name,
        binding.name,
        binding.resource_pattern_type.name,
        binding.operation.name,
        binding.host,
    )


def _binding(grant: Grant) -> AclBinding:
    return AclBinding(
        ResourceType[grant.resource],
        grant.name,
        ResourcePatternType[grant.pattern],
        grant.principal,
        grant.host,
        AclOperation[grant.operation],
        AclPermissionType.ALLOW,
    )
