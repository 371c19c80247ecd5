"""The local broker and trace viewer, started and stopped for real."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from penstock.local import (
    AlreadyRunningError,
    LocalKafka,
    LocalZipkin,
    PortInUseError,
    StartError,
    TestBroker,
    broker_for_tests,
)

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def local() -> Iterator[LocalKafka]:
    with LocalKafka() as broker:
        yield broker


def create_topic(bootstrap_servers: str, name: str, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(name, 2, 1, config=config)])[name].result(20)


def topics(bootstrap_servers: str) -> set[str]:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    return {name for name in admin.list_topics(timeout=60).topics if not name.startswith("__")}


def produce(bootstrap_servers: str, topic: str, value: bytes, **config: str | int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap_servers, **config})
    failures: list[object] = []
    producer.produce(topic, value, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(30) == 0
    if failures:
        raise KafkaException(failures[0])


def read_one(bootstrap_servers: str, topic: str) -> bytes:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": uuid.uuid4().hex,
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.message.max.bytes": 33_554_432,
        }
    )
    try:
        consumer.subscribe([topic])
        message = consumer.poll(30)
        assert message is not None, f"nothing came from {topic}"
        assert message.error() is None, message.error()
        value = message.value()
        assert isinstance(value, bytes)
        return value
    finally:
        consumer.close()


def test_a_transaction_is_read_by_a_read_committed_group(local: LocalKafka) -> None:
    create_topic(local.bootstrap_servers, "in-a-transaction")
    producer = Producer({"bootstrap.servers": local.bootstrap_servers, "transactional.id": uuid.uuid4().hex})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("in-a-transaction", b"aborted")
    producer.flush(30)
    producer.abort_transaction(30)
    producer.begin_transaction()
    producer.produce("in-a-transaction", b"committed")
    producer.commit_transaction(30)
    assert read_one(local.bootstrap_servers, "in-a-transaction") == b"committed"


def test_a_record_of_ten_megabytes_gets_through(local: LocalKafka) -> None:
    body = b"x" * 10_485_760
    create_topic(local.bootstrap_servers, "large", **{"max.message.bytes": "20971520"})
    produce(local.bootstrap_servers, "large", body, **{"message.max.bytes": 20_971_520})
    assert read_one(local.bootstrap_servers, "large") == body


def test_a_misspelt_topic_is_an_error(local: LocalKafka) -> None:
    with pytest.raises(KafkaException) as caught:
        produce(local.bootstrap_servers, "misspelt", b"lost?", **{"message.timeout.ms": 3000})
    assert caught.value.args[0].name() in ("_UNKNOWN_TOPIC", "_MSG_TIMED_OUT", "UNKNOWN_TOPIC_OR_PART")
    assert "misspelt" not in topics(local.bootstrap_servers)


def test_another_start_shares_nothing_with_the_first(local: LocalKafka) -> None:
    create_topic(local.bootstrap_servers, "of-the-first")
    with LocalKafka() as second:
        assert second.port != local.port
        assert second.pid != local.pid
        assert topics(second.bootstrap_servers) == set()
        cluster = [
            AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=60).cluster_id
            for broker in (local, second)
        ]
        assert cluster[0] != cluster[1]
        data_dir = second.data_dir
    assert not data_dir.exists()
    assert "of-the-first" in topics(local.bootstrap_servers)


def test_listens_on_loopback_alone(local: LocalKafka) -> None:
    config = (local.data_dir / "server.properties").read_text(encoding="utf-8")
    listeners = next(line for line in config.splitlines() if line.startswith("listeners="))
    hosts = {part.split("://")[1].rpartition(":")[0] for part in listeners.removeprefix("listeners=").split(",")}
    assert hosts == {"127.0.0.1"}


def test_a_port_in_use_is_refused(local: LocalKafka) -> None:
    with pytest.raises(PortInUseError, match=str(local.port)):
        LocalKafka(port=local.port).start()


def test_a_java_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    broker = LocalKafka(tmp_path / "data", jvm_options=("-XX:NoSuchOption=1",))
    with pytest.raises(StartError, match="NoSuchOption"):
        broker.start()
    assert not broker.running()


def test_a_broker_that_refuses_its_configuration_is_reported_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=99\n", encoding="utf-8")
    with pytest.raises(StartError, match="Stored node id 99"):
        LocalKafka(tmp_path).start()


def test_it_outlives_the_command_that_started_it_and_keeps_its_data(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    code = (
        "import sys; from pathlib import Path; from penstock.local import LocalKafka;"
        "LocalKafka(Path(sys.argv[1])).start()"
    )
    subprocess.run([sys.executable, "-c", code, str(data_dir)], check=True, timeout=120)
    broker = LocalKafka.attach(data_dir)
    assert broker is not None
    try:
        create_topic(broker.bootstrap_servers, "kept")
        produce(broker.bootstrap_servers, "kept", b"still here", acks="all")
        with pytest.raises(AlreadyRunningError, match="already runs"):
            LocalKafka(data_dir).start()
        broker.stop()
        assert LocalKafka.attach(data_dir) is None
        with LocalKafka(data_dir) as again:
            assert read_one(again.bootstrap_servers, "kept") == b"still here"
    finally:
        broker.stop()


def test_after_a_crash_it_comes_back_on_its_port_with_what_it_acknowledged() -> None:
    with LocalKafka() as broker:
        create_topic(broker.bootstrap_servers, "kept")
        produce(broker.bootstrap_servers, "kept", b"acknowledged", acks="all")
        port = broker.port
        broker.kill()
        assert not broker.running()
        broker.start()
        assert broker.port == port
        assert read_one(broker.bootstrap_servers, "kept") == b"acknowledged"


def test_tests_get_a_broker_that_works() -> None:
    with broker_for_tests() as broker:
        assert isinstance(broker, TestBroker)
        name = uuid.uuid4().hex
        create_topic(broker.bootstrap_servers, name)
        produce(broker.bootstrap_servers, name, b"hello")
        assert read_one(broker.bootstrap_servers, name) == b"hello"


def test_a_named_broker_is_used_and_left_running(local: LocalKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", local.bootstrap_servers)
    with broker_for_tests() as broker:
        assert broker == TestBroker(local.bootstrap_servers, "environment")
    assert local.running()


def test_the_viewer_takes_a_span_and_shows_it_again() -> None:
    trace_id = uuid.uuid4().hex
    span = {"traceId": trace_id, "id": trace_id[:16], "name": "send llm.requests", "timestamp": 1_700_000_000_000_000}
    with LocalZipkin() as viewer:
        assert viewer.endpoint == f"{viewer.url}/api/v2/spans"
        assert viewer.trace_url(trace_id).endswith(trace_id)
        connection = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=10)
        body = json.dumps([span])
        connection.request("POST", "/api/v2/spans", body, {"Content-Type": "application/json"})
        accepted = connection.getresponse()
        accepted.read()
        assert accepted.status == http.HTTPStatus.ACCEPTED
        connection.request("GET", f"/api/v2/trace/{trace_id}")
        shown = json.loads(connection.getresponse().read())
        connection.close()
        assert [part["name"] for part in shown] == ["send llm.requests"]
        log_file, port = viewer.log_file, viewer.port
        assert f"/127.0.0.1:{port}" in log_file.read_text(encoding="utf-8")
    assert not log_file.exists()
