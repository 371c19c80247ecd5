"""The `penstock` command as a process against a real broker: topics, sending, results, dead letters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer
from tests.support.kafka import Follower, read_all, settings

from penstock.contracts import topics as names
from penstock.contracts.events import Source
from penstock.contracts.headers import DEAD_LETTER, REQUEST_ID, RequestHeaders
from penstock.contracts.results import DeadLetter, ErrorDetail, RequestFinished, Status
from penstock.runtime import kafka

pytestmark = pytest.mark.broker

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command with a state folder of the test's own."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "OTEL_", "COLUMNS"))
    }
    environment["PENSTOCK_STATE_DIR"] = str(tmp_path / "state")

    def run(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "penstock.cli", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=90, env=environment)
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def at(bootstrap: str, prefix: str) -> tuple[str, ...]:
    """The options that name the test's broker and topics."""
    return ("--bootstrap", bootstrap, "--prefix", prefix)


class Answering:
    """Stands for the services: answers each request on `llm.requests` with a result, but for ids it leaves out."""

    def __init__(self, bootstrap: str, prefix: str, leaves_out: str = "") -> None:
        self._bootstrap, self._prefix, self._leaves_out = bootstrap, prefix, leaves_out
        self._producer = Producer(kafka.producer(settings(bootstrap, prefix), None))
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._answer)

    def __enter__(self) -> Answering:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _answer(self) -> None:
        with Follower(self._bootstrap, self._prefix, [names.REQUESTS]) as follower:
            while not self._stop.is_set():
                for message in follower.poll(0.1):
                    request_id = header(message, REQUEST_ID).decode()
                    if request_id not in self._seen and not (self._leaves_out and self._leaves_out in request_id):
                        self._seen.add(request_id)
                        write_result(self._producer, self._prefix, result(request_id))
                self._producer.flush(5)


def header(message: Message, name: str) -> bytes:
    value = dict(message.headers() or ())[name]
    assert isinstance(value, bytes)
    return value


def result(request_id: str, status: Status = "completed", created: int = 0) -> RequestFinished:
    return RequestFinished(
        id=request_id,
        created=created,
        status=status,
        conversation_id=request_id,
        tenant="default",
        priority="interactive",
        source=Source(topic=names.REQUESTS, partition=0, offset=0),
    )


def write_result(producer: Producer, prefix: str, finished: RequestFinished) -> None:
    producer.produce(
        f"{prefix}{names.RESULTS}", finished.encode(), finished.id, headers=[(REQUEST_ID, finished.id.encode())]
    )


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """A shell starts what runs in the background deaf to interrupts, and its children are born so too."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_topics_are_applied_once_and_listed(run: Run, bootstrap: str) -> None:
    at = ("--bootstrap", bootstrap, "--prefix", f"a{uuid.uuid4().hex[:8]}.")
    listed = json.loads(run("topics", "list", *at, "--json").stdout)
    assert {row["partitions"] for row in listed} == {None}
    first = run("topics", "apply", *at, "--replication", "1", "--json")
    assert first.returncode == 0
    assert len(json.loads(first.stdout)["changes"]) == len(names.load_topics())
    assert json.loads(run("topics", "apply", *at, "--json").stdout) == {"changes": []}
    listed = json.loads(run("topics", "list", *at, "--json").stdout)
    assert all(row["partitions"] == row["declared_partitions"] for row in listed)


def test_sent_lines_carry_ids_keys_headers_and_a_trace(
    run: Run, at: tuple[str, ...], bootstrap: str, prefix: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.jsonl"
    first, second, third = b'{"request_id":"r-1","conversation_id":"c-1","prompt":"hi"}', b"not JSON", b'{"prompt":"x"}'
    file.write_bytes(first + b"\n" + second + b"\n\n" + third + b"\n")
    before = time.time_ns() // 1_000_000
    done = run("send", str(file), "--tenant", "acme", "--priority", "bulk", "--deadline", "30s", *at)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 records delivered" in done.stdout
    assert read_all(bootstrap, prefix, names.REQUESTS) == []
    bulk = names.in_lane(names.REQUESTS, "bulk")
    by_value = {message.value(): message for message in read_all(bootstrap, prefix, bulk)}
    assert set(by_value) == {first, second, third}
    parsed = {value: RequestHeaders.parse(message.headers()) for value, message in by_value.items()}
    assert parsed[first].request_id == "r-1"
    assert by_value[first].key() == b"c-1"
    run_mark = str(parsed[second].request_id).removeprefix("mine-002-")
    assert parsed[third].request_id == f"mine-004-{run_mark}"
    for value, found in parsed.items():
        assert (found.tenant, found.priority) == ("acme", "bulk")
        assert before + 30_000 <= (found.deadline_ms or 0) <= before + 60_000
        assert header(by_value[value], "traceparent").startswith(b"00-")
    assert len({header(message, "traceparent")[3:35] for message in by_value.values()}) == 3


def test_standard_input_is_read(run: Run, at: tuple[str, ...], bootstrap: str, prefix: str) -> None:
    done = run("send", "-", *at, stdin=b'{"prompt": "hi"}')
    assert done.returncode == 0, done.stderr
    (message,) = read_all(bootstrap, prefix, names.REQUESTS)
    assert header(message, REQUEST_ID).startswith(b"stdin-001-")


def test_a_line_over_the_hard_limit_is_refused_at_once_and_the_others_go_on(
    run: Run, at: tuple[str, ...], bootstrap: str, prefix: str, tmp_path: Path
) -> None:
    file = tmp_path / "large.jsonl"
    file.write_bytes(b'{"prompt":"' + b"x" * 17_000_000 + b'"}\n{"prompt":"small"}\n')
    done = run("send", str(file), "--json", *at)
    assert done.returncode == 1
    summary = json.loads(done.stdout)["summary"]
    assert (summary["lines"], summary["delivered"]) == (2, 1)
    (refused,) = summary["refused"]
    assert (refused["line"], refused["code"]) == (1, "record_too_large")
    assert "16777216" in refused["message"]
    assert len(read_all(bootstrap, prefix, names.REQUESTS)) == 1


def test_the_largest_line_that_is_composed_is_also_taken_by_the_broker(
    run: Run, at: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "large.jsonl"
    # no compression helps: the limit must hold for the bytes as they are
    noise = os.urandom(8_387_000).hex().encode()
    file.write_bytes(b'{"prompt":"' + noise + b'"}\n')
    done = run("send", str(file), *at)
    assert done.returncode == 0, done.stdout + done.stderr


def test_waiting_prints_each_result_and_ends_with_the_last(
    run: Run, at: tuple[str, ...], bootstrap: str, prefix: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(
        b'{"request_id":"a","prompt":"x"}\n{"request_id":"b","prompt":"x"}\n{"request_id":"a","prompt":"y"}\n'
    )
    with Answering(bootstrap, prefix):
        done = run("send", str(file), "--wait", "--timeout", "60s", "--unique-ids", "--json", *at)
        again = run("send", str(file), "--wait", "--timeout", "60s", "--unique-ids", "--json", *at)
    for one in (done, again):
        assert one.returncode == 0, one.stdout + one.stderr
        *found, last = lines(one.stdout)
        assert sorted(int(str(entry["line"])) for entry in found) == [1, 2]
        assert last["summary"] == {
            "lines": 3,
            "delivered": 3,
            "refused": [],
            "duplicates": 1,
            "statuses": {"completed": 2},
            "missing": [],
            "repeated": 0,
        }


def test_what_gets_no_result_in_time_is_named_and_the_status_is_1(
    run: Run, at: tuple[str, ...], bootstrap: str, prefix: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(b'{"request_id":"a","prompt":"x"}\n{"request_id":"lost","prompt":"x"}\n')
    with Answering(bootstrap, prefix, leaves_out="lost"):
        done = run("send", str(file), "--wait", "--timeout", "6s", *at)
    assert done.returncode == 1
    assert "1 without a terminal result in time: lost (line 2)" in done.stdout
    assert "completed a " in done.stdout


def test_results_are_the_newest_and_read_committed(run: Run, at: tuple[str, ...], bootstrap: str, prefix: str) -> None:
    producer = Producer(kafka.producer(settings(bootstrap, prefix), f"{prefix}writer"))
    producer.init_transactions(30)
    for number in range(12):
        producer.begin_transaction()
        write_result(producer, prefix, result(f"r-{number}", created=number))
        producer.commit_transaction(30)
    producer.begin_transaction()
    write_result(producer, prefix, result("r-aborted"))
    producer.flush(10)
    producer.abort_transaction(30)
    found = lines(run("results", "--limit", "5", "--json", *at).stdout)
    assert [entry["id"] for entry in found] == [f"r-{number}" for number in range(7, 12)]
    assert len(lines(run("results", "--limit", "100", "--json", *at).stdout)) == 12
    (one,) = lines(run("results", "--request-id", "r-3", "--json", *at).stdout)
    assert one["id"] == "r-3"
    absent = run("results", "--request-id", "r-aborted", *at)
    assert (absent.returncode, absent.stdout) == (1, "")


def test_following_shows_what_comes_and_ends_with_an_interrupt(
    at: tuple[str, ...], bootstrap: str, prefix: str
) -> None:
    producer = Producer(kafka.producer(settings(bootstrap, prefix), None))
    write_result(producer, prefix, result("before"))
    assert producer.flush(20) == 0
    command = [sys.executable, "-m", "penstock.cli", "results", "--follow", "--json", *at]
    with heeding_interrupts(), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout is not None
            assert json.loads(following.stdout.readline())["id"] == "before"
            write_result(producer, prefix, result("after"))
            assert producer.flush(20) == 0
            assert json.loads(following.stdout.readline())["id"] == "after"
            following.send_signal(signal.SIGINT)
            assert following.wait(60) == 0
        finally:
            following.kill()


@pytest.fixture
def letters(bootstrap: str, prefix: str) -> Iterator[bytes]:
    """A dead letter of request d-1 with these bytes, and one of a tombstone."""
    original = b'{"prompt": "\xff broken \x00'
    producer = Producer(kafka.producer(settings(bootstrap, prefix), None))
    for request_id, value in (("d-1", original), ("d-2", None)):
        letter = DeadLetter(
            request_id=request_id,
            tenant="default",
            stage="preprocess",
            error=ErrorDetail(code="invalid_utf8", message="body: not UTF-8", stage="preprocess", field="body"),
            attempts=1,
            source=Source(topic=names.REQUESTS, partition=0, offset=7),
            original_timestamp_ms=1_700_000_000_000,
            failed_ms=1_700_000_000_500,
        )
        producer.produce(
            f"{prefix}{names.DEAD_LETTERS}",
            value,
            request_id,
            headers=[("tenant", b"default"), (DEAD_LETTER, letter.encode())],
        )
    assert producer.flush(20) == 0
    yield original


def test_dead_letters_are_listed_without_their_bytes(run: Run, at: tuple[str, ...], letters: bytes) -> None:
    listed = json.loads(run("dlq", "list", "--json", *at).stdout)
    assert {(row["request_id"], row["bytes"]) for row in listed} == {("d-1", len(letters)), ("d-2", None)}
    table = run("dlq", "list", *at).stdout
    assert "invalid_utf8" in table
    assert "broken" not in table


def test_a_dead_letter_is_shown_by_id_and_place_and_its_bytes_on_demand(
    run: Run, at: tuple[str, ...], letters: bytes, tmp_path: Path
) -> None:
    shown = run("dlq", "show", "d-1", *at)
    assert "invalid_utf8: body: not UTF-8" in shown.stdout
    assert "broken" not in shown.stdout
    place = json.loads(run("dlq", "show", "d-1", "--json", *at).stdout)["place"]
    command = [sys.executable, "-m", "penstock.cli", "dlq", "show", place, "--body", *at]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert done.stdout == letters
    assert b"personal data" in done.stderr
    absent = run("dlq", "show", "d-9", *at)
    assert absent.returncode == 1
    assert "penstock dlq list" in absent.stderr


def test_a_missing_topic_and_a_missing_broker_say_what_to_do(run: Run, bootstrap: str) -> None:
    missing = run("results", "--bootstrap", bootstrap, "--prefix", "absent.")
    assert missing.returncode == 1
    assert "penstock topics apply" in missing.stderr
    nobody = run("results", "--bootstrap", "127.0.0.1:1")
    assert nobody.returncode == 1
    assert "no Kafka broker answers at 127.0.0.1:1" in nobody.stderr
    nowhere = run("results")
    assert nowhere.returncode == 1
    assert "penstock up" in nowhere.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "no-such-file.jsonl", "--bootstrap", "127.0.0.1:1"),
        ("send", "-", "--priority", "urgent", "--bootstrap", "127.0.0.1:1"),
        ("send", "-", "--deadline", "soon", "--bootstrap", "127.0.0.1:1"),
        ("results", "--bootstrap", "nonsense"),
        ("results", "--limit", "-1", "--bootstrap", "127.0.0.1:1"),
        ("no-such-command",),
    ],
)
def test_wrong_usage_ends_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
