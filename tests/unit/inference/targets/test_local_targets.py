"""A local model beside servers: fallback both ways, shares, shadows, cancelling; no step holds another target up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.support.chat_server import ChatServer, Reply
from tests.support.generation import local
from tests.support.targets import Bench, MemoryBook, bench, request_of, target

from penstock.contracts.errors import BackendTimeout, InvalidRequest, LimitExceeded, Overloaded, StageError
from penstock.contracts.events import OutputFormat
from penstock_inference.backend import GenerationRequest, Piece, RequestFault
from penstock_inference.targets.routing import draw

SAID = "You said: one two three"
TOKENS = 24


class Model:
    """A real backend whose steps a test can hold up, or have fail."""

    def __init__(self, rows: int = 4) -> None:
        self._backend = local(rows=rows)
        self.rows = rows
        self.versions: Mapping[str, str] = {**self._backend.versions, "engine": "x 1"}
        self.free = threading.Event()
        self.hold_at: int | None = None
        """Before this step it waits to be set free."""
        self.expected = 1
        """Steps count from where so many requests have come."""
        self.steps = 0
        self.before_step: Callable[[set[int]], None] = lambda keys: None
        self.keys: set[int] = set()
        self.added = 0
        self.closed = False

    def add(self, request: GenerationRequest) -> int:
        count = self._backend.add(request)
        self.keys.add(request.key)
        self.added += 1
        return count

    def step(self) -> Sequence[Piece]:
        if self.hold_at is not None and self.steps >= self.hold_at:
            self.free.wait(60)
        self.steps += self.added >= self.expected
        self.before_step(self.keys)
        pieces = self._backend.step()
        self.keys -= {piece.key for piece in pieces if piece.finish_reason is not None}
        return pieces

    def cancel(self, key: int) -> None:
        self._backend.cancel(key)
        self.keys.discard(key)

    def clear(self) -> None:
        self._backend.clear()
        self.keys.clear()

    def wake(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def own(name: str = "own", **more: Any) -> dict[str, Any]:
    return {"name": name, "local": "champion", "max_in_flight": 4, **more}


def _request(key: int = 1, **given: Any) -> GenerationRequest:
    return request_of(key, **{"max_tokens": TOKENS, **given})


def _alone(request: GenerationRequest) -> tuple[str, Piece]:
    """What the model says by itself."""
    backend = local(rows=4)
    backend.add(request)
    text = ""
    while True:
        for piece in backend.step():
            text += piece.text
            if piece.finish_reason is not None:
                return text, piece


def _model_of(at: Bench, key: int = 1) -> str:
    provenance = at.last(key).provenance
    assert provenance is not None
    return provenance.versions["model"].split(":")[0]


def test_a_local_model_answers_as_it_does_by_itself() -> None:
    model = Model()
    request = _request(temperature=0.8)
    with bench(own(price={"output": 1_000}), models={"own": model}) as at:
        at.run(request)
        text, last = _alone(request)
        assert at.text() == text
        assert (at.last().tokens, at.last().finish_reason) == (last.tokens, last.finish_reason)
        assert at.last().provenance is not None
        digest = model.versions["model"]
        assert at.last().provenance.versions == {"model": f"own:{digest}", "engine": "x 1"}
        assert (at.last().provenance.provider, at.last().provenance.address) == ("penstock", "")
        labels = {"target": "own", "gen_ai_request_model": "champion", "gen_ai_provider_name": "penstock"}
        assert at.sample("gen_ai_client_operation_duration_seconds_count", error_type="", **labels) == 1
        assert at.sample("penstock_target_cost_total", target="own") == TOKENS
    assert model.closed


def test_an_adapter_is_asked_of_local_targets_of_our_engine_alone(one: ChatServer) -> None:
    class Adapted(Model):
        def add(self, request: GenerationRequest) -> int:
            return super().add(replace(request, adapter=None))

    genai, ours = Adapted(), Adapted()
    targets = (own("genai", engine="genai"), target("one", one), own("ours", role="fallback"))
    with bench(*targets, models={"genai": genai, "ours": ours}) as at:
        at.run(replace(_request(), adapter="tone@3f2a91c07d15"))
        assert _model_of(at) == "ours"
    assert (genai.added, ours.added, one.seen) == (0, 1, [])


def test_a_server_that_dies_in_the_middle_is_followed_by_the_local_model(one: ChatServer) -> None:
    keys = range(1, 13)
    one.choose = lambda _: Reply(hold_after=3)
    model = Model()
    with bench(target("one", one, max_in_flight=4), own(role="fallback"), models={"own": model}) as at:
        at.add(*(_request(key) for key in keys))
        at.until(lambda: sum(seen.held.is_set() for seen in one.seen) == 4)
        at.until(lambda: sum(bool(at.text(key)) for key in keys) == 4)
        one.die()
        at.until(lambda: all(at.ended(key) for key in keys))
        assert at.errors == {}
        assert {key: at.text(key) for key in keys} == {key: _alone(_request(key))[0] for key in keys}
        assert [sum(piece.finish_reason is not None for piece in at.pieces[key]) for key in keys] == [1] * 12
        assert {_model_of(at, key) for key in keys} == {"own"}
        assert at.sample("penstock_target_in_flight") == 0
    assert model.added == 12


def test_a_local_model_that_fails_in_the_middle_is_followed_by_the_server(one: ChatServer) -> None:
    model = Model()
    model.hold_at, model.expected = 12, 2
    with bench(own(), target("one", one, role="fallback"), models={"own": model}) as at:
        at.add(_request(1, max_tokens=200), _request(2, max_tokens=200))
        at.until(lambda: bool(at.text(1) and at.text(2)))

        def broken(keys: set[int]) -> None:
            model.before_step = lambda keys: None
            raise MemoryError

        model.before_step = broken
        model.free.set()
        at.until(lambda: at.ended(1) and at.ended(2))
        assert (at.text(1), at.text(2), at.errors) == (SAID, SAID, {})
        assert at.sample("penstock_target_failovers_total", target="own", code="backend_unavailable") == 2
        # the model goes on with what comes next
        at.run(_request(3))
        assert _model_of(at, 3) == "own"
    assert len(one.seen) == 2


def test_a_fault_of_one_request_is_not_its_neighbours(one: ChatServer) -> None:
    model = Model()
    model.hold_at, model.expected = 12, 2
    with bench(own(), target("one", one, role="fallback"), models={"own": model}) as at:
        at.add(_request(1, max_tokens=200), _request(2, max_tokens=200))
        at.until(lambda: bool(at.text(1) and at.text(2)))

        def broken(keys: set[int]) -> None:
            model.before_step = lambda keys: None
            raise RequestFault(min(keys), RuntimeError("odd"))

        model.before_step = broken
        model.free.set()
        at.until(lambda: at.ended(1) and at.ended(2))
        assert sorted(_model_of(at, key) for key in (1, 2)) == ["one", "own"]
        assert at.sample("penstock_target_failovers_total", target="own", code="internal_error") == 1


def test_without_another_target_a_fault_ends_its_request() -> None:
    model = Model()

    def broken(keys: set[int]) -> None:
        raise RequestFault(min(keys), RuntimeError("odd"))

    model.before_step = broken
    with bench(own(), models={"own": model}) as at:
        at.run(_request())
    assert isinstance(at.errors[1], StageError)
    assert "odd" not in at.errors[1].message


def test_what_the_local_model_cannot_take_goes_to_the_server(one: ChatServer) -> None:
    model = Model()
    unfollowed = OutputFormat(type="json_schema", json_schema='{"not": {"type": "string"}}')
    with bench(own(), target("one", one, role="fallback"), models={"own": model}) as at:
        at.run(_request(1, output=unfollowed), _request(2, text="word " * 400))
        assert at.errors == {}
        assert {_model_of(at, key) for key in (1, 2)} == {"one"}
    assert model.added == 0


@pytest.mark.parametrize("local_is", ["canary", "primary"])
def test_a_canary_gets_its_share_and_its_tenants(one: ChatServer, local_is: str) -> None:
    share = {"role": "canary", "share": 0.3, "tenants": ["qa"]}
    of_local, of_server = (share, {}) if local_is == "canary" else ({}, share)
    canary = "own" if local_is == "canary" else "one"
    requests = [_request(key, max_tokens=1, request_id=f"request-{key}") for key in range(1, 41)]
    requests.append(_request(99, max_tokens=1, request_id="any", tenant="qa"))
    with bench(own(**of_local), target("one", one, max_in_flight=64, **of_server), models={"own": Model()}) as at:
        for request in requests:
            at.run(request)
        asked = {key for key in at.pieces if _model_of(at, key) == canary}
    drawn = {request.key for request in requests if draw(request.request_id, canary) < 0.3}
    assert asked == drawn | {99}
    assert 0 < len(drawn) < 40


def test_weights_share_the_work_between_a_model_and_a_server(one: ChatServer) -> None:
    with bench(own(weight=3), target("one", one), models={"own": Model()}) as at:
        for key in range(1, 41):
            at.run(_request(key, max_tokens=1))
        assert at.backend.rows == 12
        counts = [sum(_model_of(at, key) == name for key in range(1, 41)) for name in ("own", "one")]
    assert sum(counts) == 40
    assert counts[0] > counts[1] > 0


def test_a_local_shadow_is_never_heard(one: ChatServer) -> None:
    model = Model()
    book = MemoryBook()
    shadow = own(role="shadow", share=1, price={"output": 1_000})
    with bench(target("one", one), shadow, models={"own": model}, book=book, budgets={"total": {"day": 999}}) as at:
        at.run(_request(1), _request(2))
        at.until(lambda: at.sample("gen_ai_client_operation_duration_seconds_count", target="own") == 2)
        at.turn()
        assert [at.text(key) for key in (1, 2)] == [SAID] * 2
        assert {_model_of(at, key) for key in (1, 2)} == {"one"}
    assert model.added == 2
    assert list(book.amounts.values()) == [2 * TOKENS]


def test_a_local_shadow_that_hangs_or_fails_delays_nobody(one: ChatServer) -> None:
    model = Model()
    model.hold_at = 0
    with bench(target("one", one), own(role="shadow", share=1, max_in_flight=1), models={"own": model}) as at:
        for key in (1, 2, 3):
            at.run(_request(key))
            assert at.text(key) == SAID
        model.before_step = lambda keys: (_ for _ in ()).throw(MemoryError())
        model.free.set()
        at.until(lambda: at.sample("penstock_target_in_flight", target="own") == 0)
        assert at.errors == {}
    assert model.added == 1


def test_a_step_of_a_model_holds_no_server_up(one: ChatServer) -> None:
    model = Model()
    model.hold_at = 0
    with bench(own(tenants=["slow"]), target("one", one, tenants=["quick"]), models={"own": model}) as at:
        at.add(_request(1, tenant="slow"))
        at.run(_request(2, tenant="quick"))
        assert (at.text(2), at.pieces[1]) == (SAID, [])
        model.free.set()
        at.until(lambda: at.ended(1))
        assert at.text(1) == _alone(_request())[0]


def test_a_model_that_is_too_slow_is_followed_by_the_next(one: ChatServer) -> None:
    model = Model()
    model.hold_at = 0
    slow = own(timeouts={"first_token_s": 0.2})
    with bench(slow, target("one", one, role="fallback"), models={"own": model}) as at:
        at.run(_request())
        assert at.text() == SAID
        assert at.sample("penstock_target_failovers_total", target="own", code=BackendTimeout.default_code) == 1
        model.free.set()
        limit = time.monotonic() + 30
        while model.keys and time.monotonic() < limit:
            time.sleep(0.01)
        assert model.keys == set()


def test_cancelling_reaches_the_model_within_a_step() -> None:
    model = Model()
    model.hold_at = 12
    with bench(own(), models={"own": model}) as at:
        at.add(_request(1, max_tokens=200), _request(2))
        at.until(lambda: bool(at.text(1) and at.text(2)))
        at.backend.cancel(1)
        at.until(lambda: at.sample("penstock_target_in_flight", target="own") == 1)
        model.free.set()
        at.until(lambda: at.ended(2))
        assert model.keys == set()
        assert not at.ended(1)


def test_a_full_model_is_waited_for() -> None:
    model = Model(rows=2)
    with bench(own(max_in_flight=2), models={"own": model}) as at:
        requests = [_request(key) for key in range(1, 8)]
        at.run(*requests)
        assert {key: at.text(key) for key in at.pieces} == {each.key: _alone(each)[0] for each in requests}


def test_several_answers_and_likelihoods_are_asked_of_the_local_model_alone(one: ChatServer) -> None:
    model = Model()
    request = _request(1, n=3, temperature=1.0, logprobs=1)
    with bench(target("one", one), own(role="fallback"), models={"own": model}) as at:
        at.run(request)
        text, last = _alone(request)
        assert at.text() == text
        assert (at.last().others, at.last().logprobs, at.last().tokens) == (last.others, last.logprobs, last.tokens)
        early = tuple(each for piece in at.pieces[1][:-1] for each in piece.likelihoods)
        assert last.logprobs is not None
        assert early == last.logprobs[: len(early)]
        assert len(early) > 1, "they came at the end alone"
    assert one.seen == []
    with bench(target("one", one), models={}) as at:
        at.run(request)
    assert isinstance(at.errors[1], InvalidRequest)


def test_all_answers_of_a_request_are_paid_for() -> None:
    priced = own(price={"output": 1_000})
    with bench(priced, models={"own": Model()}, budgets={"total": {"day": 3 * TOKENS - 1}}) as at:
        at.run(_request(1, n=3))
        assert isinstance(at.errors[1], LimitExceeded)
        at.run(_request(2, n=2))
        assert at.last(2).tokens == 2 * TOKENS
        assert at.sample("penstock_target_cost_total", target="own") == 2 * TOKENS


def test_an_error_of_the_model_says_when_to_come_again() -> None:
    model = Model()

    def loading(request: GenerationRequest) -> int:
        raise Overloaded("loading", code="model_loading", retry_after_s=2.0)

    model.add = loading  # type: ignore[method-assign]  # one method of a test's own class
    with bench(own(), models={"own": model}) as at:
        at.run(_request())
    error = at.errors[1]
    assert isinstance(error, Overloaded)
    assert (error.code, error.retry_after_s) == ("model_loading", 2.0)


def test_a_model_whose_thread_has_ended_is_passed_over(one: ChatServer) -> None:
    model = Model()

    def broken(*_: object) -> None:
        raise MemoryError

    model.before_step = broken
    model.clear = broken  # type: ignore[method-assign]  # one method of a test's own class
    with bench(own(), target("one", one, role="fallback"), models={"own": model}) as at:
        for key in (1, 2):
            at.run(_request(key))
            assert at.text(key) == SAID
        assert at.sample("penstock_target_failovers_total", target="own", code="backend_unavailable") == 2
    assert model.added == 1


def test_closing_ends_the_models_thread_and_closes_it() -> None:
    model = Model()
    with bench(own(), models={"own": model}) as at:
        at.add(_request(1, max_tokens=200))
        at.until(lambda: bool(at.pieces[1]))
        assert "model own" in {thread.name for thread in threading.enumerate()}
    assert model.closed
    assert "model own" not in {thread.name for thread in threading.enumerate()}
