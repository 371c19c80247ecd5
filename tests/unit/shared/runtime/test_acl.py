"""`penstock.runtime.acl`: who may do what, derived from topics.toml; and comparing a broker with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.contracts.topics import load_topics
from penstock.runtime import acl
from penstock.runtime.acl import Grant, compare, plan, principal_of
from penstock.runtime.kafka import Names

RESTRICTED = [topic.name for topic in load_topics() if topic.restricted]


def allowed(resource: str, name: str, operation: str, prefix: str = "") -> set[str]:
    """The principals that some grant lets do this."""
    return {
        grant.principal
        for grant in plan(prefix)
        if (grant.resource, grant.operation) == (resource, operation) and grant.covers(name)
    }


@pytest.mark.parametrize("prefix", ["", "eu."])
def test_a_topic_is_read_by_exactly_those_it_names(prefix: str) -> None:
    assert RESTRICTED
    for topic in load_topics():
        found = allowed("TOPIC", f"{prefix}{topic.name}", "READ", prefix)
        assert found == {principal_of(party) for party in topic.read_by}, topic.name


def test_a_topic_is_written_by_exactly_those_it_names_and_by_redriving() -> None:
    operator = principal_of("operator")
    for topic in load_topics():
        found = allowed("TOPIC", topic.name, "WRITE")
        assert found - {operator} == {principal_of(party) for party in topic.written_by} - {operator}, topic.name
        redriven = topic.name == "llm.dead-letters" or (
            topic.message not in ("penstock.state-entry", "penstock.tokens-generated", "penstock.tokens-screened")
            and not topic.name.startswith("llm.retry.")
            and bool(set(topic.read_by) & set(acl.SERVICES))
        )
        assert (operator in found) == (redriven or "operator" in topic.written_by), topic.name


@pytest.mark.parametrize("prefix", ["", "eu."])
def test_groups_and_transactional_ids_are_one_services_own(prefix: str) -> None:
    names = Names(prefix)
    for service in acl.SERVICES:
        own = {principal_of(service)}
        assert allowed("GROUP", names.group(service), "READ", prefix) == own
        assert allowed("GROUP", f"{names.group(service)}-state", "READ", prefix) == own
        assert allowed("GROUP", f"{names.group(service)}-streams", "READ", prefix) == own
        assert allowed("TRANSACTIONAL_ID", names.transactional_id(service, "7"), "WRITE", prefix) == own
    assert allowed("TRANSACTIONAL_ID", f"{prefix}penstock-redrive", "WRITE", prefix) == {principal_of("operator")}


def test_nothing_but_reading_and_writing_is_granted() -> None:
    assert {grant.operation for grant in plan()} == {"READ", "WRITE"}
    assert {grant.resource for grant in plan()} == {"TOPIC", "GROUP", "TRANSACTIONAL_ID"}
    assert not [grant for grant in plan() if grant.name == "*"]
    assert len(set(plan())) == len(plan())


def test_another_principal_prefix() -> None:
    assert {grant.principal for grant in plan("", "eu-")} == {f"User:eu-{party}" for party in acl.PARTIES}


def comparison(*present: Grant) -> acl.Comparison:
    return compare(plan(), present, RESTRICTED, [principal_of(party) for party in acl.PARTIES])


def test_exactly_what_is_needed_is_in_order() -> None:
    assert comparison(*plan()).ok


def test_what_is_missing_is_named() -> None:
    found = comparison(*plan()[1:])
    assert (found.missing, found.excess, found.ok) == ((plan()[0],), (), False)


def test_a_grant_for_one_host_is_not_one_for_all() -> None:
    narrow = replace(plan()[0], host="10.0.0.1")
    found = comparison(narrow, *plan()[1:])
    assert (found.missing, found.excess) == ((plan()[0],), (narrow,))


@pytest.mark.parametrize(
    "grant",
    [
        Grant("User:penstock-inference", "TOPIC", "llm.requests", "LITERAL", "READ"),
        Grant("User:penstock-inference", "TOPIC", "llm.anonymized", "LITERAL", "WRITE"),
        Grant("User:penstock-safety", "TRANSACTIONAL_ID", "penstock-", "PREFIXED", "WRITE"),
        Grant("User:somebody", "TOPIC", "llm.results", "LITERAL", "READ"),
        Grant("User:somebody", "TOPIC", "llm.", "PREFIXED", "ALL"),
        Grant("User:*", "TOPIC", "*", "LITERAL", "READ"),
    ],
)
def test_what_allows_too_much_is_named(grant: Grant) -> None:
    found = comparison(*plan(), grant)
    assert (found.excess, found.ok) == ((grant,), False)


@pytest.mark.parametrize(
    "grant",
    [
        Grant("User:somebody", "TOPIC", "other.", "PREFIXED", "READ"),
        Grant("User:somebody", "TOPIC", "llm.tokens", "LITERAL", "READ"),
        Grant("User:somebody", "TOPIC", "llm.results", "LITERAL", "DESCRIBE"),
        Grant("User:somebody", "GROUP", "*", "LITERAL", "READ"),
    ],
)
def test_what_others_do_elsewhere_is_theirs(grant: Grant) -> None:
    assert comparison(*plan(), grant).ok
