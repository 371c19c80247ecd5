"""Who is started next: lanes, tenants in turn, keys in order."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from penstock.contracts.events import Priority
from penstock.runtime.window import BULK_EVERY, Ticket, Window


def ticket(
    item: str, tenant: str = "t", *, lane: Priority = "interactive", key: bytes | None = None, cost: int = 10
) -> Ticket[str]:
    return Ticket(item, lane, tenant, key, cost)


def window(*tickets: Ticket[str], weights: dict[str, float] | None = None, quantum: int = 10) -> Window[str]:
    made: Window[str] = Window(weights or {}, quantum)
    for one in tickets:
        made.put(one)
    return made


def taken(waiting: Window[str], count: int, *, bulk: bool = True) -> list[Ticket[str]]:
    found = []
    for _ in range(count):
        one = waiting.take(bulk=bulk)
        if one is None:
            break
        found.append(one)
        waiting.done(one)
    return found


def test_a_tenant_that_sends_a_hundred_times_as_much_gets_half() -> None:
    waiting = window(*(ticket(f"a{n}", "a") for n in range(1_000)), *(ticket(f"b{n}", "b") for n in range(10)))
    assert Counter(one.tenant for one in taken(waiting, 20)) == {"a": 10, "b": 10}
    assert len(waiting) == 990


def test_turns_are_worth_cost_not_count() -> None:
    waiting = window(
        *(ticket(f"long{n}", "long", cost=100) for n in range(50)),
        *(ticket(f"short{n}", "short", cost=10) for n in range(500)),
        quantum=100,
    )
    cost = Counter[str]()
    for one in taken(waiting, 110):
        cost[one.tenant] += one.cost
    assert cost == {"long": 1_000, "short": 1_000}


def test_a_weight_is_a_share() -> None:
    waiting = window(
        *(ticket(f"a{n}", "a") for n in range(100)), *(ticket(f"b{n}", "b") for n in range(100)), weights={"a": 3.0}
    )
    assert Counter(one.tenant for one in taken(waiting, 40)) == {"a": 30, "b": 10}


def test_a_call_dearer_than_a_turn_waits_for_several_turns_and_is_served() -> None:
    waiting = window(ticket("dear", "a", cost=1_000), *(ticket(f"b{n}", "b") for n in range(200)))
    order = [one.item for one in taken(waiting, 201)]
    assert 90 <= order.index("dear") <= 110


def test_an_idle_tenant_saves_up_nothing() -> None:
    waiting = window(*(ticket(f"b{n}", "b") for n in range(100)))
    taken(waiting, 50)
    for number in range(50):
        waiting.put(ticket(f"a{number}", "a"))
    assert Counter(one.tenant for one in taken(waiting, 20)) == {"a": 10, "b": 10}


def test_interactive_goes_first_and_bulk_never_starves() -> None:
    waiting = window(
        *(ticket(f"b{n}", lane="bulk") for n in range(100)), *(ticket(f"i{n}") for n in range(BULK_EVERY * 5))
    )
    lanes = [one.lane for one in taken(waiting, BULK_EVERY * 5)]
    assert lanes.count("bulk") == 5
    assert lanes[: BULK_EVERY - 1] == ["interactive"] * (BULK_EVERY - 1)


def test_bulk_waits_where_the_last_places_are_kept_for_interactive() -> None:
    waiting = window(ticket("b", lane="bulk"))
    assert waiting.take(bulk=False) is None
    assert len(waiting) == 1


def test_one_key_runs_one_at_a_time_and_in_order() -> None:
    waiting = window(*(ticket(f"k{n}", key=b"k") for n in range(3)), ticket("other", key=b"o"))
    first = waiting.take()
    assert first is not None and first.item == "k0"
    second = waiting.take()
    assert second is not None and second.item == "other"
    assert waiting.take() is None
    waiting.done(first)
    third = waiting.take()
    assert third is not None and third.item == "k1"
    assert len(waiting) == 1


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([b"1", b"2", None]), st.integers(1, 500)), max_size=60),
    st.sets(st.integers(0, 59)),
    st.randoms(use_true_random=False),
)
def test_nothing_is_lost_or_given_twice(
    puts: list[tuple[str, bytes | None, int]], unwanted: set[int], chosen: random.Random
) -> None:
    waiting = window(quantum=50)
    running: list[Ticket[str]] = []
    found: list[str] = []
    for number, (tenant, key, cost) in enumerate(puts):
        lane: Priority = chosen.choice(["interactive", "bulk"])
        waiting.put(ticket(str(number), tenant, lane=lane, key=key, cost=cost))
        if chosen.random() < 0.3 and (one := waiting.take()) is not None:
            running.append(one)
            found.append(one.item)
        if running and chosen.random() < 0.3:
            waiting.done(running.pop(chosen.randrange(len(running))))
    dropped = waiting.drop(lambda item: int(item) in unwanted)
    while running or len(waiting):
        while (one := waiting.take()) is not None:
            running.append(one)
            found.append(one.item)
        assert len({(one.lane, one.key) for one in running if one.key}) == sum(bool(one.key) for one in running)
        waiting.done(running.pop(chosen.randrange(len(running))))
    assert sorted([*dropped, *found], key=int) == [str(number) for number in range(len(puts))]
