"""`penstock.contracts.topics`: the file is complete, and consistent with the messages and the path."""

from __future__ import annotations

import pytest

from penstock.contracts import topics
from penstock.contracts.base import Message
from penstock.contracts.claims import Claim
from penstock.contracts.lanes import base_of, lane_of
from penstock.contracts.results import DeadLetter, RequestFinished
from penstock.contracts.topics import EVENTS, MESSAGES, in_lane, load_topics, siblings, topic_of

BY_NAME = {topic.name: topic for topic in load_topics()}
ALL = ("preprocess", "anonymize", "safety", "inference", "postprocess")


def test_every_constant_is_declared_and_every_declaration_has_a_constant() -> None:
    constants = {value for value in vars(topics).values() if isinstance(value, str) and value.startswith("llm.")}
    assert constants == {base_of(name) for name in BY_NAME}
    assert len(load_topics()) == len(BY_NAME)


def test_every_topic_carries_a_known_message_and_every_event_its_own_topic() -> None:
    # a claim stands for another message, in that one's topic
    assert {topic.message for topic in load_topics()} == MESSAGES.keys() - {Claim.schema_name}
    for name, event in EVENTS.items():
        assert topic_of(event) == name
    assert topic_of(RequestFinished) == topics.RESULTS
    assert topic_of(DeadLetter) == topics.DEAD_LETTERS


def test_a_message_without_one_topic_of_its_own_is_an_error() -> None:
    class Stray(Message):
        schema_name = "penstock.stray"

    with pytest.raises(LookupError, match="0 topics"):
        topic_of(Stray)
    with pytest.raises(LookupError, match="5 topics"):
        topic_of(topics.StateEntry)


def test_what_may_hold_personal_data_in_clear_is_restricted() -> None:
    restricted = {topic.name for topic in load_topics() if topic.restricted}
    laned = {f"llm.{name}{suffix}" for name in ("requests", "preprocessed") for suffix in ("", ".bulk")}
    waiting = {"llm.retry.preprocess", "llm.retry.anonymize"}
    assert restricted == laned | waiting | {"llm.results", "llm.result-tokens", "llm.dead-letters", "llm.state.vaults"}


def test_only_state_and_commands_are_compacted() -> None:
    # a compacted topic keeps one record of a key: a conversation's other requests would be lost
    for topic in load_topics():
        assert ("compact" in topic.cleanup) == (topic.message in ("penstock.state-entry", "penstock.cancel"))


def test_a_dead_letter_has_room_for_the_largest_request() -> None:
    largest = max(topic.max_message_bytes for topic in load_topics() if topic.name != topics.DEAD_LETTERS)
    assert BY_NAME[topics.DEAD_LETTERS].max_message_bytes >= largest + 65_536


def test_each_topic_on_the_path_is_written_by_the_stage_before_its_reader_and_by_that() -> None:
    path = [topics.PREPROCESSED, topics.ANONYMIZED, topics.SCREENED, topics.COMPLETIONS, topics.SCREENED_COMPLETIONS]
    hops = [(BY_NAME[name].written_by, BY_NAME[name].read_by) for name in path]
    assert hops == [
        (("preprocess", "anonymize"), ("anonymize",)),
        (("anonymize", "safety"), ("safety",)),
        (("safety", "inference"), ("inference",)),
        (("inference", "safety"), ("safety",)),
        (ALL, ("postprocess",)),  # where delivery is at least once, requests that end before come here, too
    ]


def test_a_retry_topic_is_kept_like_what_waits_in_it_and_is_its_services_own() -> None:
    services = {party for topic in load_topics() for party in topic.read_by} - {"upstream", "operator"}
    assert topics.RETRIES.keys() == services
    for service, name in topics.RETRIES.items():
        waiting = BY_NAME[name]
        assert (waiting.written_by, waiting.read_by) == ((service,), (service,))
        inputs = [BY_NAME[one] for one in (topics.REQUESTS, *EVENTS) if service in BY_NAME[one].read_by]
        assert {topic.message for topic in inputs} == set(waiting.messages)
        for topic in inputs:
            assert service in topic.written_by
            kept = ("restricted", "retention_hours", "max_message_bytes", "partitions")
            assert [getattr(topic, what) for what in kept] == [getattr(waiting, what) for what in kept]


def test_each_topic_that_a_stage_consumes_has_a_bulk_sibling_alike_in_all_else() -> None:
    bulk = {name for name in BY_NAME if lane_of(name) == "bulk"}
    assert bulk == {f"{name}.bulk" for name in (topics.REQUESTS, *EVENTS)}
    for name in bulk:
        changes = {"name": name, "description": BY_NAME[name].description}
        assert BY_NAME[base_of(name)].model_copy(update=changes) == BY_NAME[name]


def test_a_topic_is_found_in_either_lane_and_one_without_lanes_stays_what_it_is() -> None:
    assert in_lane(topics.SCREENED, "bulk") == "llm.screened.bulk"
    assert in_lane("llm.screened.bulk", "interactive") == topics.SCREENED
    assert in_lane("llm.screened.bulk", "bulk") == "llm.screened.bulk"
    assert in_lane(topics.RESULTS, "bulk") == topics.RESULTS
    assert siblings(topics.SCREENED) == (topics.SCREENED, "llm.screened.bulk")
    assert siblings(topics.RESULTS) == (topics.RESULTS,)


def test_broker_settings() -> None:
    assert BY_NAME["llm.tokens"].broker_config() == {
        "cleanup.policy": "delete",
        "retention.ms": "3600000",
        "max.message.bytes": "4194304",
    }
    kept = BY_NAME["llm.tokens"].model_copy(update={"retention_hours": 0})
    assert kept.broker_config()["retention.ms"] == "-1"
