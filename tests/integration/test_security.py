"""A broker with TLS, SCRAM and ACLs: the right services work on it, the wrong ones are refused and say why.

Two installations share the broker. On the first the services run; on the second a client of each user tries every
topic, group and transactional id.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from tests.support.certificates import Authority
from tests.support.secured import ADMIN, Secured, SecuredStack, run_process
from tests.support.stack import wait_until
from typer.testing import CliRunner

from penstock.cli.main import app
from penstock.contracts import topics as names
from penstock.contracts.topics import load_topics
from penstock.runtime import acl, kafka, topics
from penstock.runtime.kafka import Names
from penstock.runtime.outcomes import Output
from penstock.runtime.publisher import Publisher

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

LIVE, TRIED = "live.", "tried."
TRIED_USERS = "tried-"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with Secured(tmp_path_factory.mktemp("secured")) as secured:
        options = kafka.common(secured.settings(ADMIN, ""))
        for prefix, users in ((LIVE, acl.PRINCIPAL_PREFIX), (TRIED, TRIED_USERS)):
            secured.create(f"{users}{party}" for party in acl.PARTIES)
            topics.apply(secured.kafka.bootstrap_servers, prefix, replication=1, partitions=2, options=options)
            acl.apply(options, acl.plan(prefix, users))
        yield secured


# --- what works


def test_each_service_does_its_work_as_its_own_user(secured: Secured, tmp_path: Path) -> None:
    request = {
        "request_id": "r-1",
        "messages": [{"role": "user", "content": "Mail me: jo@example.com"}],
        "max_tokens": 4,
    }
    upstream = secured.environment("penstock-upstream", LIVE) | {"PENSTOCK_STATE_DIR": str(tmp_path)}
    with SecuredStack(secured, LIVE, tmp_path) as stack:
        sent = run_process(
            "penstock.cli", "send", "-", "--wait", "--json", environment=upstream, stdin=json.dumps(request)
        )
        said = [sent.stdout, sent.stderr, *stack.logs().values()]
    assert sent.returncode == 0, said
    (answered, summary) = (json.loads(line) for line in sent.stdout.splitlines())
    assert answered["result"]["status"] == "completed"
    assert summary["summary"]["statuses"] == {"completed": 1}
    assert not [password for password in secured.passwords if password in "".join(said)]


def test_acls_are_applied_once_and_compared(secured: Secured, tmp_path: Path) -> None:
    admin = secured.environment(ADMIN, "cli.") | {"PENSTOCK_STATE_DIR": str(tmp_path)}

    def run(word: str) -> tuple[int, dict[str, Any]]:
        done = CliRunner().invoke(app, ["acl", word, "--principal-prefix", "cli-", "--json"], env=admin)
        return done.exit_code, json.loads(done.stdout)

    status, before = run("check")
    assert (status, len(before["missing"]), before["excess"]) == (1, len(acl.plan()), [])
    status, applied = run("apply")
    assert (status, len(applied["created"])) == (0, len(acl.plan()))
    assert run("apply") == (0, {"created": []})
    assert run("check") == (0, {"ok": True, "missing": [], "excess": []})


# --- what is refused


def test_a_user_reads_the_topics_it_is_declared_to_read_and_no_other(secured: Secured) -> None:
    for party in acl.PARTIES:
        declared = {topic.name for topic in load_topics() if party in topic.read_by}
        assert readable(secured, party) == declared, party


def test_a_user_writes_the_topics_it_is_declared_to_write_and_no_other(secured: Secured) -> None:
    inputs = (names.REQUESTS, *names.EVENTS)
    redriven = {names.DEAD_LETTERS, *(sibling for name in inputs for sibling in names.siblings(name))}
    for party in acl.PARTIES:
        declared = {topic.name for topic in load_topics() if party in topic.written_by}
        assert writable(secured, party) == declared | (redriven if party == "operator" else set()), party


def test_a_service_takes_no_others_transactional_id(secured: Secured) -> None:
    for party, other in zip(acl.SERVICES, [*acl.SERVICES[1:], acl.SERVICES[0]], strict=True):
        settings = secured.settings(f"{TRIED_USERS}{party}", TRIED)
        for owner, expected in ((party, None), (other, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED")):
            producer = Producer(kafka.producer(settings, Names(TRIED).transactional_id(owner, "0")))
            assert refusal(partial(producer.init_transactions, 90)) == expected, (party, owner)


def test_a_transaction_that_an_acl_refuses_is_not_tried_again(secured: Secured) -> None:
    settings = secured.settings(f"{TRIED_USERS}safety", TRIED)
    publisher = Publisher(kafka.producer(settings, Names(TRIED).transactional_id("safety", "1")), Names(TRIED))
    publisher.start()
    try:
        own, other = (Output(name, b"key", b"tried", []) for name in (names.SCREENED, names.PREPROCESSED))
        publisher.commit([own], {}, [])
        assert refusal(partial(publisher.commit, [own, other], {}, [])) == "TOPIC_AUTHORIZATION_FAILED"
    finally:
        publisher.close()


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_a_service_joins_no_others_group(secured: Secured, protocol: str) -> None:
    for group, refused in (("safety", None), ("inference", "GROUP_AUTHORIZATION_FAILED")):
        settings = secured.settings(f"{TRIED_USERS}safety", TRIED).model_copy(update={"kafka_group_protocol": protocol})
        consumer = Consumer(kafka.consumer(settings, Names(TRIED).group(group)))
        try:
            assert joined(consumer, f"{TRIED}{names.ANONYMIZED}") == refused
        finally:
            consumer.close()


def test_one_grant_too_many_is_seen_by_client_and_check(secured: Secured) -> None:
    options = kafka.common(secured.settings(ADMIN, ""))
    topic = f"{TRIED}{names.REQUESTS}"
    whom = f"User:{TRIED_USERS}inference"
    where = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL)
    what = (AclOperation.READ, AclPermissionType.ALLOW)
    too_many = AclBinding(*where, whom, "*", *what)
    admin = AdminClient(options)

    def excess() -> list[tuple[str, str]]:
        found = acl.check(options, acl.plan(TRIED, TRIED_USERS), prefix=TRIED, principal_prefix=TRIED_USERS)
        return [(grant.principal, grant.name) for grant in found.excess]

    assert excess() == []
    for future in admin.create_acls([too_many]).values():
        future.result()
    try:
        wait_until(lambda: excess() == [(whom, topic)], "the new ACL", 60)
        declared = {topic.name for topic in load_topics() if "inference" in topic.read_by}
        assert readable(secured, "inference") == declared | {names.REQUESTS}
    finally:
        for future in admin.delete_acls([AclBindingFilter(*where, whom, "*", *what)]).values():
            future.result()
    wait_until(lambda: excess() == [], "the ACL's end", 60)


# --- what a refused service says


def test_a_service_under_anothers_user_ends_and_says_what_to_do(secured: Secured) -> None:
    done = run_process("penstock_safety", environment=secured.environment("penstock-inference", LIVE))
    assert done.returncode == 1, done.stderr
    failed = [event for event in events(done.stderr) if event["event"] == "runtime.process.failed"]
    assert [event["reason"] for event in failed] == ["TRANSACTIONAL_ID_AUTHORIZATION_FAILED"]
    assert "penstock-inference" in failed[0]["to_do"]
    assert "penstock acl check" in failed[0]["to_do"]


def test_a_service_without_its_acls_ends_and_says_what_to_do(secured: Secured) -> None:
    # at least once, so that it gets as far as its topics
    environment = secured.environment("penstock-inference", LIVE) | {"PENSTOCK_EXACTLY_ONCE": "false"}
    done = run_process("penstock_safety", environment=environment)
    assert done.returncode == 1, done.stderr
    failed = [event for event in events(done.stderr) if event["event"] == "runtime.process.failed"]
    assert failed[0]["reason"] in ("GROUP_AUTHORIZATION_FAILED", "TOPIC_AUTHORIZATION_FAILED")
    assert "penstock acl check" in failed[0]["to_do"]


@pytest.mark.parametrize(
    ("module", "arguments", "status"), [("penstock_safety", (), 2), ("penstock.cli", ("results",), 1)]
)
def test_a_wrong_password_is_told_and_not_shown(
    secured: Secured, tmp_path: Path, module: str, arguments: tuple[str, ...], status: int
) -> None:
    environment = secured.environment("penstock-safety", LIVE)
    file = tmp_path / "password"
    file.write_text("not-the-password\n")
    done = run_process(module, *arguments, environment=environment | {"PENSTOCK_KAFKA_SASL_PASSWORD_FILE": str(file)})
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == status, said
    assert "refused the user 'penstock-safety'" in said
    assert "PENSTOCK_KAFKA_SASL_PASSWORD" in said
    assert "not-the-password" not in said


@pytest.mark.parametrize(
    ("module", "arguments", "status"), [("penstock_safety", (), 2), ("penstock.cli", ("topics", "list"), 1)]
)
def test_an_untrusted_certificate_is_told(
    secured: Secured, tmp_path: Path, module: str, arguments: tuple[str, ...], status: int
) -> None:
    stranger = Authority(tmp_path, "stranger").file
    environment = secured.environment("penstock-safety", LIVE) | {"PENSTOCK_KAFKA_SSL_CA_LOCATION": str(stranger)}
    done = run_process(module, *arguments, environment=environment)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == status, said
    assert "no TLS connection with the broker" in said
    assert "PENSTOCK_KAFKA_SSL_CA_LOCATION" in said


def test_a_command_without_the_acl_says_what_to_do(secured: Secured, tmp_path: Path) -> None:
    environment = secured.environment("penstock-operator", LIVE) | {"PENSTOCK_STATE_DIR": str(tmp_path)}
    done = run_process("penstock.cli", "results", environment=environment)
    said = " ".join(done.stderr.split())
    assert done.returncode == 1, said
    assert "does not let the user penstock-operator" in said
    assert "penstock acl check" in said


# --- trying


def events(log: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def refusal(call: Callable[[], object]) -> str | None:
    """The name of the error that a call ends in."""
    try:
        call()
    except KafkaException as error:
        return str(error.args[0].name())
    return None


def readable(secured: Secured, party: str) -> set[str]:
    """The declared topics of the tried installation that a party's user can fetch from."""
    group = "penstock-cli-tried" if party == "operator" else f"{Names(TRIED).group(party)}-tried"
    consumer = Consumer(kafka.reader(secured.settings(f"{TRIED_USERS}{party}", TRIED), group))
    try:
        seen = [topic.name for topic in load_topics() if described(consumer, f"{TRIED}{topic.name}")]
        consumer.assign([TopicPartition(f"{TRIED}{name}", 0, 0) for name in seen])
        verdicts: dict[str, bool] = {}
        until = time.monotonic() + 60
        while len(verdicts) < len(seen):
            assert time.monotonic() < until, f"no word on {set(seen) - verdicts.keys()} for {party}"
            message = consumer.poll(0.5)
            if message is None:
                continue
            code = message.error().code() if message.error() is not None else None
            assert code in (None, KafkaError._PARTITION_EOF, KafkaError.TOPIC_AUTHORIZATION_FAILED), message.error()
            verdicts[Names(TRIED).plain(message.topic())] = code != KafkaError.TOPIC_AUTHORIZATION_FAILED
    finally:
        consumer.close()
    return {name for name, may in verdicts.items() if may}


def described(consumer: Consumer, topic: str) -> bool:
    """Whether the broker tells this user that there is such a topic."""
    error = consumer.list_topics(topic, timeout=30).topics[topic].error
    assert error is None or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED, error
    return error is None


def writable(secured: Secured, party: str) -> set[str]:
    """The declared topics of the tried installation that a party's user can produce to."""
    producer = Producer(kafka.producer(secured.settings(f"{TRIED_USERS}{party}", TRIED), None))
    verdicts: dict[str, KafkaError | None] = {}

    def delivered(error: KafkaError | None, message: Message) -> None:
        verdicts[Names(TRIED).plain(message.topic())] = error

    for topic in load_topics():
        producer.produce(f"{TRIED}{topic.name}", b"tried", b"key", partition=1, on_delivery=delivered)
    assert producer.flush(60) == 0
    refused = [error for error in verdicts.values() if error is not None]
    assert {error.code() for error in refused} <= {KafkaError.TOPIC_AUTHORIZATION_FAILED}, refused
    assert len(verdicts) == len(load_topics())
    return {name for name, error in verdicts.items() if error is None}


def joined(consumer: Consumer, topic: str) -> str | None:
    """None once a member of the group has partitions; else the name of the error that it was told."""
    consumer.subscribe([topic])
    until = time.monotonic() + 60
    while not consumer.assignment():
        assert time.monotonic() < until, "neither joined nor refused"
        message = consumer.poll(0.2)
        if message is not None and message.error() is not None:
            return str(message.error().name())
    return None
