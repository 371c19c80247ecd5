"""Servers and a local model beside them, on a real broker with all five services: failover, cancelling, budgets."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from confluent_kafka import Producer
from tests.support.chat_server import ChatServer, Reply
from tests.support.kafka import Publishing
from tests.support.stack import Stack, wait_until
from tests.support.targets import target

from penstock.contracts import topics
from penstock.contracts.control import Cancel
from penstock.contracts.events import CompletionGenerated, TokensGenerated
from penstock.contracts.results import RequestFinished

pytestmark = [pytest.mark.broker, pytest.mark.timeout(400)]
KEY = "sk-never-shown-0123456789"
EMAIL = "maddy.lindqvist@example.org"
HELD = 4
"""Answers that stand still in the middle when the target dies."""


@dataclass
class Backends:
    """The services, and the servers that inference calls: each tenant has one of its own, and all share the spare."""

    stack: Stack
    mortal: ChatServer
    frail: ChatServer
    steady: ChatServer
    spare: ChatServer


@pytest.fixture(scope="module")
def backends(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    with ExitStack() as open_:
        names = ("mortal", "frail", "steady", "spare")
        mortal, frail, steady, spare = (open_.enter_context(ChatServer(name)) for name in names)
        config = {
            "targets": [
                target("mortal", mortal, tenants=["flock"], max_in_flight=HELD, api_key_env="TARGET_KEY"),
                target("frail", frail, tenants=["homely"], max_in_flight=HELD),
                target("steady", steady, tenants=["thrifty", "patient"], price={"output": 1000}),
                {"name": "own", "local": "champion", "role": "fallback", "tenants": ["homely"]},
                target("spare", spare, role="fallback"),
            ],
            "budgets": {"tenants": {"thrifty": {"day": 20}}},
        }
        environment = {"PENSTOCK_INFERENCE_TARGETS": json.dumps(config), "TARGET_KEY": KEY}
        folder = tmp_path_factory.mktemp("backends")
        stack = open_.enter_context(Stack(bootstrap, f"b{time.time_ns()}.", folder, environment=environment))
        yield Backends(stack, mortal, frail, steady, spare)


def _request(request_id: str, tenant: str, text: str, **more: object) -> Publishing:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 32, **more}
    return Publishing(json.dumps(body).encode(), [("request-id", request_id.encode()), ("tenant", tenant.encode())])


def _answer(result: RequestFinished) -> str:
    (choice,) = result.choices
    return choice.message.content


def test_a_target_that_dies_in_the_middle_of_its_answers_loses_and_doubles_nothing(backends: Backends) -> None:
    stack, mortal, spare = backends.stack, backends.mortal, backends.spare
    mortal.choose = lambda _: Reply(hold_after=3)
    ids = [f"flock-{number}" for number in range(12)]
    places = stack.send(_request(one, "flock", f"Note {one}: write to {EMAIL} soon", stream=True) for one in ids)
    wait_until(lambda: sum(seen.held.is_set() for seen in mortal.seen) == HELD, "answers in the middle")
    mortal.die()
    finished = stack.wait_results(places)

    assert Counter(result.id for result in stack.results() if result.tenant == "flock") == Counter(ids)
    for result in finished.values():
        assert result.status == "completed", result.error
        assert _answer(result) == f"You said: Note {result.id}: write to {EMAIL} soon"
        assert result.versions["model"] == "spare:spare-model@fp"
        assert result.versions["targets"].startswith("sha256:")
    asked = [seen.said for seen in spare.seen if "flock" in seen.said]
    assert len(asked) == len(set(asked)) == len(ids), "each is asked once of the target that answers"
    assert len(mortal.seen) == HELD

    completions = [CompletionGenerated.model_validate_json(one.value()) for one in stack.read(topics.COMPLETIONS)]
    texts = {one.context.request_id: one.completion.text for one in completions if one.context.tenant == "flock"}
    assert sorted(texts) == sorted(ids)
    streams: dict[str, list[TokensGenerated]] = defaultdict(list)
    for message in stack.read(topics.TOKENS):
        piece = TokensGenerated.model_validate_json(message.value())
        streams[piece.request_id].append(piece)
    for one in ids:
        assert [piece.sequence for piece in streams[one]] == list(range(len(streams[one])))
        assert "".join(piece.text for piece in streams[one]) == texts[one]
        assert [piece.finish_reason for piece in streams[one]][-2:] == [None, "stop"]

    everything = "".join(seen.raw for seen in [*mortal.seen, *spare.seen])
    assert "<EMAIL_ADDRESS_1>" in everything
    assert EMAIL not in everything
    assert {seen.headers["authorization"] for seen in mortal.seen} == {f"Bearer {KEY}"}
    assert KEY not in "".join([*stack.logs().values(), stack.metrics("inference")])
    assert 'gen_ai_client_operation_duration_seconds_count{error_type="connection_failed"' in stack.metrics("inference")


def test_a_server_that_dies_is_followed_by_the_model_in_the_process(backends: Backends) -> None:
    stack, frail = backends.stack, backends.frail
    frail.choose = lambda _: Reply(hold_after=3)
    ids = [f"homely-{number}" for number in range(8)]
    places = stack.send(_request(one, "homely", f"What is {one}?", stream=True) for one in ids)
    wait_until(lambda: sum(seen.held.is_set() for seen in frail.seen) == HELD, "answers in the middle")
    begun = {one for one in ids if any(one in seen.said for seen in frail.seen)}
    frail.die()
    finished = stack.wait_results(places)

    assert Counter(result.id for result in stack.results() if result.tenant == "homely") == Counter(ids)
    assert {result.status for result in finished.values()} == {"completed"}
    assert {result.versions["model"].split(":")[0] for result in finished.values()} == {"own"}
    assert not [seen for seen in backends.spare.seen if "homely" in seen.said]
    completions = [CompletionGenerated.model_validate_json(one.value()) for one in stack.read(topics.COMPLETIONS)]
    made = Counter(one.context.request_id for one in completions if one.context.tenant == "homely")
    assert made == Counter(ids)
    streamed = [TokensGenerated.model_validate_json(message.value()) for message in stack.read(topics.TOKENS)]
    for one in ids:
        pieces = [piece for piece in streamed if piece.request_id == one]
        assert [piece.sequence for piece in pieces] == list(range(len(pieces)))
        assert [piece.finish_reason is None for piece in pieces] == [True] * (len(pieces) - 1) + [False]
        assert (pieces[-1].finish_reason == "cancelled") == (one in begun), "what was told cannot be taken back"


def test_cancelling_closes_the_http_stream(backends: Backends) -> None:
    stack, steady = backends.stack, backends.steady
    steady.replies.append(Reply(hold_after=2))
    (place,) = stack.send([_request("patient-1", "patient", "Count to ten, patient one.")])
    wait_until(lambda: any("patient one" in seen.said for seen in steady.seen), "the call")
    (call,) = [seen for seen in steady.seen if "patient one" in seen.said]
    assert call.held.wait(60)
    command = Cancel(request_id="patient-1", issued_ms=time.time_ns() // 1_000_000)
    producer = Producer({"bootstrap.servers": stack.bootstrap})
    producer.produce(f"{stack.prefix}{topics.CONTROL}", value=command.encode(), key=command.key.encode())
    assert producer.flush(60) == 0
    assert stack.wait_results([place])[place].status == "cancelled"
    assert call.closed.wait(60)


def test_a_budget_outlives_its_process(backends: Backends) -> None:
    stack = backends.stack
    # 10 tokens of 20 are used, and 12 would be asked for
    (first,) = stack.send([_request("thrifty-1", "thrifty", "one two three four five six seven eight", max_tokens=12)])
    done = stack.wait_results([first])[first]
    assert done.status == "completed", done.error
    assert done.usage is not None
    assert done.usage.completion_tokens == 10
    stack.terminate("inference")
    stack.launch("inference")
    stack.wait_ready(["inference"])
    (second,) = stack.send([_request("thrifty-2", "thrifty", "one two three", max_tokens=12)])
    refused = stack.wait_results([second])[second]
    assert refused.status == "failed"
    assert refused.error is not None
    assert (refused.error.code, refused.error.field) == ("limit_exceeded", "budget")
    assert not refused.error.retriable
    assert not [seen for seen in backends.steady.seen if seen.said == "one two three"]
