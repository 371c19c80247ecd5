"""Calls over real HTTP: answers, failures by kind, failover, cancelling, mirroring, what is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
from tests.support.chat_server import ChatServer, Reply
from tests.support.remote import MemoryBook, bench, config, request_of, target

from penstock.contracts.errors import (
    BackendTimeout,
    BackendUnavailable,
    ConnectionFailed,
    InvalidRequest,
    LimitExceeded,
    Overloaded,
    PenstockError,
    RateLimited,
    StageError,
)
from penstock.contracts.events import OutputFormat, PromptPart
from penstock_inference.backend import GenerationRequest
from penstock_inference.remote import backend as remote_backend
from penstock_inference.remote.client import messages_of
from penstock_inference.remote.faults import retry_after_s

SHORT = {"connect_s": 5, "first_token_s": 0.3, "idle_s": 0.3, "total_s": 60}
PATIENT = {"first_token_s": 3_600, "idle_s": 3_600, "total_s": 3_600}
SAID = "You said: one two three"


@pytest.fixture
def one() -> Iterator[ChatServer]:
    with ChatServer("one") as server:
        yield server


@pytest.fixture
def two() -> Iterator[ChatServer]:
    with ChatServer("two") as server:
        yield server


def test_an_answer_comes_in_pieces_with_what_it_used_and_who_gave_it(one: ChatServer) -> None:
    with bench(target("one", one, price={"input": 1, "output": 2})) as at:
        at.run(request_of())
        last = at.last()
        assert at.text() == SAID
        assert len(at.pieces[1]) > 3
        assert (last.finish_reason, last.tokens) == ("stop", 5)
        assert last.prompt_tokens == len(one.seen[0].raw) // 4
        assert last.provenance is not None
        assert (last.provenance.provider, last.provenance.model) == ("openai", "one-model@fp")
        assert last.provenance.versions == {"model": "one:one-model@fp"}
        labels = {"target": "one", "gen_ai_request_model": "one-model", "server_address": "127.0.0.1"}
        assert at.sample("gen_ai_client_operation_duration_seconds_count", error_type="", **labels) == 1
        assert at.sample("gen_ai_client_operation_time_to_first_chunk_seconds_count", **labels) == 1
        assert at.sample("gen_ai_client_token_usage_sum", gen_ai_token_type="output", **labels) == 5
        assert at.sample("penstock_target_cost_total", target="one") == pytest.approx(
            last.prompt_tokens / 1000 + 2 * 5 / 1000
        )


def test_without_usage_the_chunks_are_counted(one: ChatServer) -> None:
    one.replies.append(Reply(usage=False))
    with bench(target("one", one)) as at:
        at.run(request_of())
    assert (at.last().tokens, at.last().prompt_tokens) == (5, 10)


def test_only_the_prompt_and_how_to_generate_is_sent(one: ChatServer) -> None:
    made = target("one", one, api_key_env="MY_KEY", limit_field="max_completion_tokens", extra={"top_k": 3})
    with bench(made, environment={"MY_KEY": "secret"}) as at:
        at.run(request_of(request_id="private-id", tenant="acme", stop=("END",), temperature=0.5))
    (seen,) = one.seen
    assert seen.body == {
        "model": "one-model",
        "messages": [{"role": "user", "content": "one two three"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "top_p": 1.0,
        "seed": 7,
        "max_completion_tokens": 64,
        "stop": ["END"],
        "top_k": 3,
    }
    assert seen.headers["authorization"] == "Bearer secret"
    assert seen.headers["user-agent"] == "penstock"
    everything = seen.raw + repr(seen.headers)
    assert "private-id" not in everything
    assert "acme" not in everything
    assert not [name for name in seen.headers if name.startswith(("x-stainless", "openai"))]


def test_what_a_server_does_not_take_is_left_out(one: ChatServer) -> None:
    with bench(target("one", one, omit=["seed", "temperature", "stream_options"])) as at:
        at.run(request_of())
    assert at.text() == SAID
    assert {"seed", "temperature", "stream_options"}.isdisjoint(one.seen[0].body)


def test_without_a_key_none_is_sent(one: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-another-program")
    monkeypatch.setenv("OPENAI_ORG_ID", "of-another-program")
    with bench(target("one", one)) as at:
        at.run(request_of())
    assert "authorization" not in one.seen[0].headers
    assert "of-another-program" not in repr(one.seen[0].headers)


@pytest.mark.parametrize(
    ("output", "sent"),
    [
        (OutputFormat(), None),
        (OutputFormat(type="json_object"), {"type": "json_object"}),
        (
            OutputFormat(type="json_schema", json_schema='{"type":"object"}'),
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
        ),
    ],
)
def test_the_format_is_asked_for(one: ChatServer, output: OutputFormat, sent: Any) -> None:
    with bench(target("one", one)) as at:
        at.run(request_of(output=output))
    assert one.seen[0].body.get("response_format") == sent


def test_sampling_parameters_are_sent_where_they_are_given_and_the_targets_own_win(one: ChatServer) -> None:
    given = {"presence_penalty": 0.5, "frequency_penalty": -0.5, "top_k": 9, "min_p": 0.1, "repetition_penalty": 1.1}
    with bench(target("one", one, extra={"top_k": 3})) as at:
        at.run(request_of(**given))
        assert given | {"top_k": 3} == {name: one.seen[0].body[name] for name in given}
    with bench(target("one", one, omit=["min_p", "presence_penalty"])) as at:
        at.run(request_of(**given))
        left = {"frequency_penalty", "top_k", "repetition_penalty"}
        assert given.keys() & one.seen[1].body.keys() == left


def test_the_wrapping_object_of_a_schema_is_sent_once(one: ChatServer) -> None:
    wrapped = OutputFormat(type="json_schema", json_schema='{"name": "mine", "schema": {"type": "object"}}')
    with bench(target("one", one)) as at:
        at.run(request_of(output=wrapped))
    assert one.seen[0].body["response_format"]["json_schema"] == {"name": "answer", "schema": {"type": "object"}}


@pytest.mark.parametrize("given", [{"n": 2}, {"logprobs": 0}])
def test_what_servers_are_not_asked_for_is_refused(one: ChatServer, given: dict[str, int]) -> None:
    with bench(target("one", one)) as at, pytest.raises(InvalidRequest) as refused:
        at.add(request_of(**given))
    assert (refused.value.code, refused.value.field) == ("unsupported_parameter", next(iter(given)))
    assert one.seen == []


def test_messages_are_the_requests_without_the_local_template() -> None:
    def text(role: str, message: int, text: str, **more: Any) -> PromptPart:
        return PromptPart(kind="text", text=text, role=role, message=message, **more)

    parts = [
        PromptPart(kind="template", text="<|im_start|>"),
        text("system", 0, "Be brief."),
        text("user", 1, "bob", field="name"),
        text("user", 1, "Hi <PERSON_1>"),
        text("assistant", 2, "Hello"),
        text("user", 3, "<PERSON_2>", field="name"),
        text("user", 3, "Bye"),
    ]
    assert messages_of(parts) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi <PERSON_1>", "name": "bob"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    with pytest.raises(StageError):
        messages_of(parts[:1])


def test_pieces_split_no_placeholder_and_no_stop_string(one: ChatServer) -> None:
    one.replies.append(Reply(text="Hi <PER SON_1> and <EMAIL_ADDRESS_1> now STOP HERE no".replace("PER SON", "PERSON")))
    with bench(target("one", one)) as at:
        at.run(request_of(stop=("STOP HERE",)))
    assert at.text() == "Hi <PERSON_1> and <EMAIL_ADDRESS_1> now "
    assert at.last().finish_reason == "stop"


@pytest.mark.parametrize(
    ("reply", "error", "code"),
    [
        (Reply(status=429, headers={"retry-after": "7"}), RateLimited, "rate_limited"),
        (Reply(status=503, headers={"retry-after": "7"}), Overloaded, "backend_overloaded"),
        (Reply(status=529), Overloaded, "backend_overloaded"),
        (Reply(status=500), BackendUnavailable, "backend_unavailable"),
        (Reply(status=401), BackendUnavailable, "backend_unavailable"),
        (Reply(status=404), BackendUnavailable, "backend_unavailable"),
        (Reply(status=504), BackendTimeout, "backend_timeout"),
        (Reply(status=400), InvalidRequest, "invalid_request"),
        (Reply(status=400, code="context_length_exceeded"), LimitExceeded, "context_length_exceeded"),
        (Reply(finish_reason="content_filter"), InvalidRequest, "invalid_request"),
        (Reply(cut_after=2), ConnectionFailed, "connection_failed"),
        (Reply(cut_after=2, clean=True), ConnectionFailed, "connection_failed"),
        (Reply(error_after=2), BackendUnavailable, "backend_unavailable"),
        (Reply(bare="data: {no JSON\n\n"), BackendUnavailable, "backend_unavailable"),
        (Reply(bare='data: {"choices": [{"delta": 3}]}\n\n'), BackendUnavailable, "backend_unavailable"),
        (Reply(bare="<html>nothing here</html>"), ConnectionFailed, "connection_failed"),
        (Reply(hold_after=0), BackendTimeout, "backend_timeout"),
        (Reply(hold_after=2), BackendTimeout, "backend_timeout"),
        (Reply(hold_after=2, comments=True), BackendTimeout, "backend_timeout"),
    ],
)
def test_each_failure_has_the_runtimes_error(
    one: ChatServer, reply: Reply, error: type[PenstockError], code: str
) -> None:
    one.replies.append(reply)
    # short times only where time must run out: a busy machine is slow
    timeouts = SHORT if reply.hold_after is not None else {}
    with bench(target("one", one, timeouts=timeouts)) as at:
        at.run(request_of(text="secret words"))
        raised = at.errors[1]
        assert type(raised) is error
        assert isinstance(raised, PenstockError)
        assert raised.code == code
        assert "secret" not in raised.message
        if "retry-after" in reply.headers:
            assert getattr(raised, "retry_after_s", None) == 7
        assert at.sample("gen_ai_client_operation_duration_seconds_count", error_type=code) == 1
        assert at.sample("penstock_target_in_flight") == 0


def test_a_server_that_is_not_there_is_a_failed_connection(one: ChatServer) -> None:
    one.stop()
    with bench(target("one", one)) as at:
        at.run(request_of())
    assert isinstance(at.errors[1], ConnectionFailed)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": formatdate(1_000_060, usegmt=True)}, 60.0),
        ({"retry-after": formatdate(999_000, usegmt=True)}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, 1_000_000) == seconds


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
    monkeypatch.setattr(remote_backend, "STEP_S", 3_600)
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
