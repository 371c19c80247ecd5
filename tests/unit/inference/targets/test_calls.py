"""Calls over real HTTP: answers, failures by kind, what is sent."""

from __future__ import annotations

from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest
from tests.support.chat_server import ChatServer, Reply
from tests.support.targets import bench, request_of, target

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
from penstock_inference.targets.client import messages_of
from penstock_inference.targets.faults import retry_after_s

SHORT = {"connect_s": 5, "first_token_s": 0.3, "idle_s": 0.3, "total_s": 60}
SAID = "You said: one two three"


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
    with bench(target("one", one)) as at:
        at.run(request_of(**given))
    refused = at.errors[1]
    assert isinstance(refused, InvalidRequest)
    assert (refused.code, refused.field) == ("unsupported_parameter", next(iter(given)))
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


def test_an_adapter_of_the_registry_is_refused_not_answered_without_it(one: ChatServer) -> None:
    asked = replace(request_of(), adapter="tone@3f2a91c07d15")
    with bench(target("one", one)) as at:
        at.run(asked)
        refused = at.errors[1]
    assert isinstance(refused, StageError)
    assert (refused.code, refused.field) == ("unknown_adapter", "model")
    assert not one.seen
