"""Which targets a request meets, and in which order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tests.support.targets import config, target

from penstock_inference.targets.config import Target
from penstock_inference.targets.routing import Routing

IDS = [f"request-{number}" for number in range(4_000)]


def _routing(*targets: dict[str, Any], busy: dict[str, int] | None = None, **more: Any) -> Routing:
    def in_flight(one: Target) -> int:
        return (busy or {}).get(one.name, 0)

    return Routing(config(*targets, **more), in_flight)


def _order(routing: Routing, request_id: str, tenant: str = "default") -> list[str]:
    return [one.name for tier in routing.tiers(request_id, tenant) for one in tier.targets]


def test_first_choices_follow_the_weights_and_so_do_second_ones() -> None:
    routing = _routing(target("a", weight=6), target("b", weight=3), target("c", weight=1))
    orders = [_order(routing, request_id) for request_id in IDS]
    first = Counter(order[0] for order in orders)
    assert {name: count / len(IDS) for name, count in first.items()} == pytest.approx(
        {"a": 0.6, "b": 0.3, "c": 0.1}, abs=0.03
    )
    # where a is not available, b and c share its part as 3 to 1
    second = Counter(order[1] for order in orders if order[0] == "a")
    assert second["b"] / first["a"] == pytest.approx(0.75, abs=0.03)


def test_the_order_of_a_request_is_the_same_whenever_it_is_asked() -> None:
    made = (target("a"), target("b"), target("c"))
    ids = IDS[:500]
    assert [_order(_routing(*made), one) for one in ids] == [_order(_routing(*made), one) for one in ids]


def test_a_target_that_is_taken_away_moves_only_its_own_requests() -> None:
    three, two = _routing(target("a"), target("b"), target("c")), _routing(target("a"), target("b"))
    for request_id in IDS:
        if (before := _order(three, request_id)[0]) != "c":
            assert _order(two, request_id)[0] == before


def test_least_busy_goes_by_calls_under_way_for_each_weight() -> None:
    made = (target("a"), target("b", weight=4))
    assert _order(_routing(*made, balance="least_busy", busy={"a": 1, "b": 3}), "x")[0] == "b"
    assert _order(_routing(*made, balance="least_busy", busy={"a": 0, "b": 5}), "x")[0] == "a"


def test_equally_busy_targets_share_by_the_request() -> None:
    routing = _routing(target("a"), target("b"), balance="least_busy")
    first = Counter(_order(routing, request_id)[0] for request_id in IDS)
    assert first["a"] / len(IDS) == pytest.approx(0.5, abs=0.04)


def test_fallbacks_come_after_in_the_files_order() -> None:
    routing = _routing(target("z", role="fallback"), target("a"), target("b", role="fallback"))
    assert _order(routing, "x") == ["a", "z", "b"]
    assert [tier.waits for tier in routing.tiers("x", "default")] == [True, True, True]


def test_a_canary_takes_its_share_first_and_the_same_requests_each_time() -> None:
    routing = _routing(target("a"), target("next", role="canary", share=0.1))
    taken = [request_id for request_id in IDS if _order(routing, request_id)[0] == "next"]
    assert len(taken) / len(IDS) == pytest.approx(0.1, abs=0.02)
    assert taken == [request_id for request_id in IDS if _order(routing, request_id)[0] == "next"]
    tier = routing.tiers(taken[0], "default")[0]
    assert not tier.waits
    assert _order(routing, taken[0]) == ["next", "a"]
    assert _order(_routing(target("a"), target("next", role="canary", share=0.2)), taken[0])[0] == "next"


def test_a_canary_takes_all_requests_of_its_tenants() -> None:
    routing = _routing(target("a"), target("next", role="canary", tenants=["acme"]))
    assert {_order(routing, request_id, "acme")[0] for request_id in IDS[:50]} == {"next"}
    assert {_order(routing, request_id, "other")[0] for request_id in IDS[:50]} == {"a"}


def test_a_shadow_is_in_no_order() -> None:
    routing = _routing(target("a"), target("dark", role="shadow", share=0.25, tenants=["acme"]))
    assert _order(routing, "x") == ["a"]
    mirrored = [one for one in IDS if routing.shadows(one, "default")]
    assert len(mirrored) / len(IDS) == pytest.approx(0.25, abs=0.03)
    assert all(routing.shadows(one, "acme") for one in IDS[:50])


def test_targets_of_some_tenants_serve_these_alone() -> None:
    routing = _routing(target("a", tenants=["acme"]), target("b", role="fallback", tenants=["acme", "other"]))
    assert _order(routing, "x", "acme") == ["a", "b"]
    assert _order(routing, "x", "other") == ["b"]
    assert routing.tiers("x", "third") == []
