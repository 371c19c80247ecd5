"""`penstock.runtime.kafka`: names with the prefix, and the client options that guarantees rest on."""

from __future__ import annotations

import pytest

from penstock.contracts.lanes import LANES
from penstock.runtime import kafka
from penstock.runtime.kafka import Names
from penstock.runtime.settings import ServiceSettings

SETTINGS = ServiceSettings(kafka_bootstrap_servers="b:1", kafka_security_protocol="SSL", kafka_options={"debug": "tls"})


def test_names_carry_the_prefix() -> None:
    names = Names("eu.")
    assert names.topic("llm.requests") == "eu.llm.requests"
    assert names.plain("eu.llm.requests") == "llm.requests"
    assert names.group("safety") == "eu.penstock-safety"
    assert names.transactional_id("safety", "2") == "eu.penstock-safety-2"


def test_each_lane_has_a_group_and_an_id_of_its_own() -> None:
    names = Names("eu.")
    assert names.group("safety", "bulk") == "eu.penstock-safety-bulk"
    ids = {names.transactional_id("safety", slot, lane) for slot in ("2", "2-bulk") for lane in LANES}
    assert len(ids) == 4


def test_consumers_read_committed_and_never_commit_by_themselves() -> None:
    for config in (kafka.consumer(SETTINGS, "g"), kafka.reader(SETTINGS, "g")):
        assert config["isolation.level"] == "read_committed"
        assert config["enable.auto.commit"] is False
        assert config["auto.offset.reset"] == "earliest"


def test_producers_are_idempotent_and_wait_for_all_replicas() -> None:
    plain = kafka.producer(SETTINGS, None)
    assert (plain["enable.idempotence"], plain["acks"]) == (True, "all")
    assert "transactional.id" not in plain
    transactional = kafka.producer(SETTINGS, "t")
    assert transactional["transactional.id"] == "t"
    assert transactional["transaction.timeout.ms"] == SETTINGS.transaction_timeout_ms


def test_no_client_reports_metrics_to_the_broker_and_all_take_the_users_options() -> None:
    for config in (kafka.consumer(SETTINGS, "g"), kafka.reader(SETTINGS, "g"), kafka.producer(SETTINGS, None)):
        assert config["enable.metrics.push"] is False
        assert (config["security.protocol"], config["debug"]) == ("SSL", "tls")
        assert config["bootstrap.servers"] == "b:1"


def test_clients_connect_again_well_within_a_transactions_time_out() -> None:
    for config in (kafka.consumer(SETTINGS, "g"), kafka.reader(SETTINGS, "g"), kafka.producer(SETTINGS, "t")):
        assert config["reconnect.backoff.max.ms"] <= SETTINGS.transaction_timeout_ms / 4


def test_both_group_protocols() -> None:
    assert kafka.consumer(SETTINGS, "g")["group.protocol"] == "consumer"
    classic = kafka.consumer(SETTINGS.model_copy(update={"kafka_group_protocol": "classic"}), "g")
    assert classic["group.protocol"] == "classic"
    assert classic["partition.assignment.strategy"] == "cooperative-sticky"


def test_a_static_member_is_named_by_its_group_and_slot_where_so_set() -> None:
    assert "group.instance.id" not in kafka.consumer(SETTINGS, "g")
    static = SETTINGS.model_copy(update={"kafka_static_membership": True, "instance": "2"})
    for protocol in ("consumer", "classic"):
        config = kafka.consumer(static.model_copy(update={"kafka_group_protocol": protocol}), "eu.penstock-safety")
        assert config["group.instance.id"] == "eu.penstock-safety-2"


def test_consumers_fetch_little_at_once_and_look_again_soon_unless_the_user_says_otherwise() -> None:
    for build in (kafka.consumer, kafka.reader):
        config = build(SETTINGS, "g")
        assert config["fetch.message.max.bytes"] <= config["fetch.max.bytes"] <= 1_048_576
        assert config["fetch.queue.backoff.ms"] <= 50
        assert config["queued.max.messages.kbytes"] == SETTINGS.queue_max_kbytes
        assert config["queued.min.messages"] >= SETTINGS.batch_max_records
        far = SETTINGS.model_copy(update={"kafka_options": {"fetch.max.bytes": "8388608"}})
        assert build(far, "g")["fetch.max.bytes"] == "8388608"


def test_how_far_to_fetch_ahead_has_a_setting_and_is_no_option() -> None:
    with pytest.raises(ValueError, match="PENSTOCK_QUEUE_MAX_KBYTES"):
        ServiceSettings(kafka_options={"queued.max.messages.kbytes": "65536"})
