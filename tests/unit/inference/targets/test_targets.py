"""Several targets over real HTTP: failover, breakers, waiting, cancelling, mirroring, budgets."""

from __future__ import annotations

import threading
import time

import pytest
from tests.support.chat_server import ChatServer, Reply
from tests.support.targets import MemoryBook, bench, config, request_of, target

from penstock.contracts.errors import (
    InvalidRequest,
    LimitExceeded,
    Overloaded,
)
from penstock_inference.backend import GenerationRequest
from penstock_inference.targets import backend as targets_backend

PATIENT = {"first_token_s": 3_600, "idle_s": 3_600, "total_s": 3_600}
SAID = "You said: one two three"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500),
        Reply(status=429),
        Reply(status=400, code="context_length_exceeded"),
        Reply(cut_after=3),
        Reply(cut_after=3, clean=True),
        Reply(error_after=3),
    ],
)
def test_a_target_that_fails_is_followed_by_the_next(one: ChatServer, two: ChatServer, reply: Reply) -> None:
    one.replies.append(reply)
    with bench(target("one", one), target("two", two, role="fallback")) as at:
        at.run(request_of())
        assert at.text() == SAID
        assert at.last().provenance is not None
        assert at.last().provenance.versions == {"model": "two:two-model@fp"}
        assert at.last().tokens == 5
        assert (len(one.seen), len(two.seen)) == (1, 1)
        assert at.sample("penstock_target_failovers_total", target="one") == 1


def test_a_refused_request_goes_to_no_other_target(one: ChatServer, two: ChatServer) -> None:
    one.replies.append(Reply(status=422))
    with bench(target("one", one), target("two", two, role="fallback")) as at:
        at.run(request_of())
    assert isinstance(at.errors[1], InvalidRequest)
    assert two.seen == []


def test_where_all_fail_the_error_is_the_one_that_allows_the_next_attempt_first(
    one: ChatServer, two: ChatServer
) -> None:
    one.replies.append(Reply(status=429, headers={"retry-after": "2000"}))
    two.replies.append(Reply(status=503, headers={"retry-after": "500"}))
    with bench(target("one", one), target("two", two, role="fallback")) as at:
        at.run(request_of())
        error = at.errors[1]
        assert isinstance(error, Overloaded)
        assert error.retry_after_s == 500
        # both rest: the next request asks neither, and says when
        at.run(request_of(2))
        resting = at.errors[2]
    assert isinstance(resting, Overloaded)
    assert resting.retry_after_s is not None
    assert 0 < resting.retry_after_s < 500
    assert (len(one.seen), len(two.seen)) == (1, 1)


def test_an_open_breaker_spares_the_target(one: ChatServer, two: ChatServer) -> None:
    one.choose = lambda _: Reply(status=500)
    figures = {"window": 5, "failures": 2, "open_s": 600}
    with bench(target("one", one, breaker=figures), target("two", two, role="fallback")) as at:
        for key in range(1, 6):
            at.run(request_of(key))
            assert at.text(key) == SAID
        assert (len(one.seen), len(two.seen)) == (2, 5)
        assert at.sample("penstock_target_breaker", target="one") == 2


def test_a_full_target_is_waited_for_and_cancelling_closes_the_stream(one: ChatServer) -> None:
    one.replies.append(Reply(hold_after=2))
    with bench(target("one", one, max_in_flight=1, timeouts=PATIENT)) as at:
        assert at.backend.rows == 1
        at.add(request_of(1))
        at.until(lambda: len(at.pieces[1]) == 2)
        at.add(request_of(2))
        at.turn()
        assert len(one.seen) == 1
        at.backend.cancel(1)
        assert one.seen[0].closed.wait(30)
        at.until(lambda: at.ended(2))
        assert at.text(2) == SAID
        assert at.sample("penstock_target_in_flight", target="one") == 0


def test_a_request_that_waits_can_be_given_up(one: ChatServer) -> None:
    one.replies.append(Reply(hold_after=2))
    with bench(target("one", one, max_in_flight=1)) as at:
        at.add(request_of(1), request_of(2))
        at.until(lambda: bool(at.pieces[1] or at.pieces[2]))
        waiting = 2 if at.pieces[1] else 1
        at.backend.cancel(waiting)
        one.release.set()
        at.until(lambda: at.ended(3 - waiting))
        assert len(one.seen) == 1


def test_a_shadow_sees_the_request_and_is_never_heard(one: ChatServer, two: ChatServer) -> None:
    two.choose = lambda _: Reply(text="something else")
    with bench(target("one", one), target("two", two, role="shadow", share=1)) as at:
        at.run(request_of())
        at.until(lambda: at.sample("gen_ai_client_operation_duration_seconds_count", target="two") == 1)
        assert at.text() == SAID
        assert two.seen[0].body["messages"] == one.seen[0].body["messages"]


def test_a_shadow_that_fails_or_hangs_delays_nobody(one: ChatServer, two: ChatServer) -> None:
    two.replies.extend([Reply(status=500), Reply(hold_after=0)])
    with bench(target("one", one), target("two", two, role="shadow", share=1, max_in_flight=1)) as at:
        for key in (1, 2, 3):
            at.run(request_of(key))
            assert at.text(key) == SAID
            if key == 1:
                at.until(lambda: at.sample("penstock_target_in_flight", target="two") == 0)
        at.until(lambda: len(two.seen) == 2)
        assert at.errors == {}


def test_a_shadow_is_paid_for_by_the_total_alone(one: ChatServer, two: ChatServer) -> None:
    book = MemoryBook()
    priced = target("two", two, role="shadow", share=1, price={"output": 1_000})
    with bench(
        target("one", one), priced, book=book, budgets={"total": {"day": 999}, "tenants": {"*": {"day": 9}}}
    ) as at:
        at.run(request_of())
        at.until(lambda: at.sample("penstock_target_cost_total", target="two") == 5)
        assert at.text() == SAID
    spent = {key.partition("/")[2]: amount for key, amount in book.amounts.items()}
    assert spent == {"total": 5, "tenant/default": 0}


def test_a_budget_is_reserved_before_the_call_and_settled_after(one: ChatServer) -> None:
    one.replies.append(Reply(hold_after=1))
    # 64 tokens at most: 64 reserved; 5 used
    priced = target("one", one, price={"output": 1_000})
    with bench(priced, budgets={"tenants": {"acme": {"day": 100}}}) as at:
        at.add(request_of(1, tenant="acme"))
        at.until(lambda: bool(at.pieces[1]))
        at.run(request_of(2, tenant="acme"))
        refused = at.errors[2]
        assert isinstance(refused, LimitExceeded)
        assert (refused.code, refused.field, refused.limit) == ("limit_exceeded", "budget", 100)
        assert len(one.seen) == 1
        at.run(request_of(3, tenant="other"))
        one.release.set()
        at.until(lambda: at.ended(1))
        at.run(request_of(4, tenant="acme"))
        assert at.text(4) == SAID
        assert at.sample("penstock_budget_refusals_total") == 1


def test_a_tenant_that_no_target_serves_is_told_so(one: ChatServer) -> None:
    with bench(target("one", one, tenants=["acme"])) as at:
        at.run(request_of(1, tenant="acme"), request_of(2, tenant="other"))
    assert at.text(1) == SAID
    error = at.errors[2]
    assert isinstance(error, InvalidRequest)
    assert error.field == "header tenant"


def test_a_step_that_waits_is_woken(one: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets_backend, "STEP_S", 3_600)
    one.replies.append(Reply(hold_after=0))
    with bench(target("one", one)) as at:
        at.add(request_of())
        timer = threading.Timer(0.01, at.backend.wake)
        timer.start()
        assert at.backend.step() is None
        timer.join()


def test_many_requests_share_the_targets_and_each_has_its_own_answer(one: ChatServer, two: ChatServer) -> None:
    requests = [request_of(key, text=f"number {key}") for key in range(1, 41)]
    with bench(target("one", one, max_in_flight=4), target("two", two, max_in_flight=4, weight=3)) as at:
        at.run(*requests)
        assert {key: at.text(key) for key in at.pieces} == {key: f"You said: number {key}" for key in range(1, 41)}
    assert len(one.seen) + len(two.seen) == 40
    assert one.seen
    assert two.seen


def test_closing_ends_the_thread_and_what_hangs(one: ChatServer) -> None:
    one.replies.append(Reply(hold_after=1))
    before = threading.active_count()
    with bench(target("one", one)) as at:
        at.add(request_of())
        at.until(lambda: bool(at.pieces[1]))
    assert one.seen[0].closed.wait(30)
    limit = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < limit:
        time.sleep(0.01)
    assert "targets" not in {thread.name for thread in threading.enumerate()}


def test_the_same_key_twice_is_a_bug(one: ChatServer) -> None:
    one.replies.append(Reply(hold_after=0))
    with bench(target("one", one)) as at:
        at.add(request_of())
        with pytest.raises(ValueError, match="already"):
            at.backend.add(request_of())


def test_rows_are_the_primary_targets_places() -> None:
    made = config(target("a", max_in_flight=3), target("b", max_in_flight=4), target("c", role="fallback"))
    assert sum(one.max_in_flight for one in made.of("primary")) == 7
    assert isinstance(request_of(), GenerationRequest)
