"""`penstock.runtime.cancellations`: which command applies to which request, and what is forgotten."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from penstock.contracts.control import Cancel
from penstock.contracts.events import RequestContext, Source
from penstock.runtime.cancellations import Cancellations

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


class Clock:
    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


def context(
    request_id: str = "r1", conversation: str = "c1", tenant: str = "acme", sent_ms: int = NOW_MS
) -> RequestContext:
    return RequestContext(
        request_id=request_id,
        conversation_id=conversation,
        tenant=tenant,
        submitted_ms=sent_ms,
        source=Source(topic="llm.requests", partition=0, offset=0),
    )


def known(*commands: Cancel, most: int = 10, clock: Clock | None = None) -> Cancellations:
    cancellations = Cancellations(max_entries=most, max_age_ms=DAY_MS, clock_ms=clock or Clock())
    for command in commands:
        cancellations.put(command)
    return cancellations


BY_ID = Cancel(request_id="r1", issued_ms=NOW_MS)
BY_CONVERSATION = Cancel(conversation_id="c1", issued_ms=NOW_MS)
BY_TENANT = Cancel(tenant="acme", issued_ms=NOW_MS)


@pytest.mark.parametrize("command", [BY_ID, BY_CONVERSATION, BY_TENANT])
def test_applies_to_what_it_names_and_to_nothing_else(command: Cancel) -> None:
    assert known(command).match(context()) == command
    assert known(command).match(context("r2", "c2", "other")) is None
    # a name of one kind is none of another
    assert known(command).match(context("c1", "acme", "r1")) is None


@pytest.mark.parametrize("command", [BY_CONVERSATION, BY_TENANT])
def test_later_work_of_a_conversation_or_tenant_passes(command: Cancel) -> None:
    assert known(command).match(context(sent_ms=NOW_MS)) is not None
    assert known(command).match(context(sent_ms=NOW_MS + 1)) is None


def test_a_request_id_is_stopped_whenever_it_comes() -> None:
    assert known(BY_ID).match(context(sent_ms=NOW_MS + 60_000)) is not None


def test_a_later_command_takes_in_more_and_one_taken_back_nothing() -> None:
    later = BY_TENANT.model_copy(update={"issued_ms": NOW_MS + 10})
    cancellations = known(BY_TENANT, later)
    assert len(cancellations) == 1
    assert cancellations.match(context(sent_ms=NOW_MS + 5)) == later
    before = cancellations.generation
    cancellations.withdraw(later.key)
    assert cancellations.match(context()) is None
    assert cancellations.generation > before


def test_commands_older_than_the_topic_keeps_are_not_in_force() -> None:
    clock = Clock()
    cancellations = known(BY_ID, clock=clock)
    clock.now_ms += DAY_MS
    assert cancellations.match(context()) is not None
    clock.now_ms += 1
    assert cancellations.match(context()) is None
    cancellations.expire()
    assert len(cancellations) == 0
    cancellations.put(BY_TENANT)
    assert len(cancellations) == 0


def test_the_oldest_go_first_where_there_are_too_many() -> None:
    commands = [Cancel(request_id=f"r{number}", issued_ms=NOW_MS) for number in range(5)]
    cancellations = known(*commands, most=3)
    assert [cancellations.match(context(f"r{number}")) is not None for number in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_the_error_says_by_what_and_why() -> None:
    command = Cancel(conversation_id="c1", reason="user left", issued_ms=NOW_MS)
    error = known(command).error(context())
    assert error is not None
    assert (error.code, error.message, error.field) == (
        "cancelled",
        "cancelled by its conversation: user left",
        "conversation",
    )
    assert error.context == context()
    assert not error.retriable
    assert known().error(context()) is None


@pytest.mark.parametrize(
    "given",
    [{}, {"request_id": "r1", "tenant": "acme"}, {"request_id": "white space"}, {"tenant": "a", "reason": "x" * 300}],
)
def test_a_command_names_one_thing_in_the_form_of_an_id(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Cancel.model_validate({"issued_ms": NOW_MS, **given})


def test_keys_tell_kinds_apart() -> None:
    assert [command.key for command in (BY_ID, BY_CONVERSATION, BY_TENANT)] == [
        "request/r1",
        "conversation/c1",
        "tenant/acme",
    ]
