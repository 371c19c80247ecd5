"""The claim check on the whole path: every record of the five services is a claim, and the command reads them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.kafka import Publishing, Slot, header
from tests.support.stack import Stack, wait_until

from penstock.contracts import topics
from penstock.contracts.claims import CLAIM, Claim
from penstock.contracts.results import RequestFinished
from penstock.runtime.claims import Claims

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

KIB = 1024
MIB = KIB * KIB
BODY_LIMIT = 3 * MIB
HARD_LIMIT = 4 * MIB


class Installation:
    """The five services with a claim store, and the command on their topics."""

    def __init__(self, stack: Stack, store: Path, folder: Path) -> None:
        self.stack = stack
        self.store = store
        self.claims = Claims.open(str(store), threshold=2 * KIB, most=HARD_LIMIT)
        base = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "OTEL_"))}
        self._environment = {**base, **settings_of(store), "PENSTOCK_STATE_DIR": str(folder / "state")}

    def command(self, *arguments: str, store: bool = True) -> subprocess.CompletedProcess[bytes]:
        environment = dict(self._environment)
        if not store:
            del environment["PENSTOCK_CLAIM_STORE"]
        at = ("--bootstrap", self.stack.bootstrap, "--prefix", self.stack.prefix)
        command = [sys.executable, "-m", "penstock.cli", *arguments, *at]
        return subprocess.run(command, capture_output=True, check=False, timeout=300, env=environment)

    def result(self, request_id: str, seconds: float = 240) -> RequestFinished:
        """The result of a request, its claim resolved."""
        found: list[RequestFinished] = []

        def there() -> bool:
            for message in self.stack.read(topics.RESULTS):
                if header(message, "request-id") == request_id.encode():
                    value = self.claims.resolve(topics.RESULTS, message.value(), message.headers())
                    found.append(RequestFinished.model_validate_json(value or b""))
            return bool(found)

        wait_until(there, f"the result of {request_id}", seconds)
        return found[-1]


def settings_of(store: Path) -> dict[str, str]:
    return {
        "PENSTOCK_CLAIM_STORE": store.as_uri(),
        "PENSTOCK_CLAIM_THRESHOLD_BYTES": "1",  # every record of the path is a claim
        "PENSTOCK_CLAIM_MAX_BYTES": str(HARD_LIMIT),
        "PENSTOCK_PREPROCESS_MAX_BODY_BYTES": str(BODY_LIMIT),
    }


@pytest.fixture(scope="module")
def path(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("path")
    store = folder / "claims"
    store.mkdir()
    with Stack(bootstrap, f"c{uuid.uuid4().hex[:10]}.", folder, environment=settings_of(store)) as stack:
        yield Installation(stack, store, folder)


def request_of(request_id: str, size: int, content: str = "What is a river?") -> bytes:
    """A request whose body has exactly so many bytes, most of them white space between fields."""
    body = {"request_id": request_id, "messages": [{"role": "user", "content": content}], "max_tokens": 4}
    text = json.dumps(body).encode()
    return text[:-1] + b" " * (size - len(text)) + b"}"


def claimed(path: Installation, request_id: str, body: bytes) -> Publishing:
    """The record of a producer that stores what it sends."""
    kept = path.claims.check_in(topics.REQUESTS, body, time.time_ns() // 1_000_000)
    return Publishing(kept.value, [("request-id", request_id.encode()), *kept.headers], request_id.encode())


def test_the_whole_path_works_on_claims_and_the_command_reads_them(path: Installation, tmp_path: Path) -> None:
    request_id = f"large-{uuid.uuid4().hex}"
    file = tmp_path / "large.jsonl"
    file.write_bytes(request_of(request_id, 2 * MIB) + b"\n")
    sent = path.command("send", str(file), "--wait", "--timeout", "4m", "--json")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    first = json.loads(sent.stdout.splitlines()[0])["result"]
    assert (first["id"], first["status"]) == (request_id, "completed")
    assert first["choices"][0]["message"]["content"]
    for topic in (topics.REQUESTS, *topics.EVENTS, topics.RESULTS):
        (message,) = [one for one in path.stack.read(topic) if header(one, "request-id") == request_id.encode()]
        assert header(message, CLAIM) == b"penstock.claim/1", topic
        assert len(message.value()) < KIB
    shown = path.command("results", "--request-id", request_id, "--json")
    assert json.loads(shown.stdout)["choices"] == first["choices"]
    # what may hold personal data in clear is kept apart
    folders = {one.parent.parent.relative_to(path.store).as_posix() for one in path.store.rglob("*") if one.is_file()}
    declared = {topic.name: topic.restricted for topic in topics.load_topics()}
    assert {f"{'restricted' if declared[name] else 'open'}/{name}" for name in topics.CLAIMABLE} <= folders
    # without the store, the command says what is missing
    blind = path.command("results", "--request-id", request_id, store=False)
    assert blind.returncode == 1
    assert b"PENSTOCK_CLAIM_STORE" in blind.stderr


def test_requests_over_the_limits_end_typed_at_once(path: Installation, tmp_path: Path) -> None:
    over_body, over_hard = f"body-{uuid.uuid4().hex}", f"hard-{uuid.uuid4().hex}"
    path.stack.send([claimed(path, over_body, request_of(over_body, BODY_LIMIT + 1))])
    digest = hashlib.sha256(b"").hexdigest()
    lie = Claim(object=f"restricted/llm.requests/20261121/{digest}", bytes=HARD_LIMIT + 1, sha256=digest)
    headers = [("request-id", over_hard.encode()), (CLAIM, b"penstock.claim/1")]
    path.stack.send([Publishing(lie.encode(), headers)])
    for request_id, limit in ((over_body, BODY_LIMIT), (over_hard, HARD_LIMIT)):
        error = path.result(request_id).error
        assert error is not None
        assert (error.code, error.limit, error.stage) == ("limit_exceeded", limit, "preprocess")
    # the command refuses before sending
    file = tmp_path / "huge.jsonl"
    file.write_bytes(request_of(f"cli-{uuid.uuid4().hex}", HARD_LIMIT + 1) + b"\n")
    refused = path.command("send", str(file), "--json")
    assert refused.returncode == 1
    (why,) = json.loads(refused.stdout.splitlines()[-1])["summary"]["refused"]
    assert why["code"] == "record_too_large"


def test_a_dead_letter_of_a_claim_is_shown_and_sent_again(path: Installation) -> None:
    request_id = f"letter-{uuid.uuid4().hex}"
    body = request_of(request_id, 2 * MIB).replace(b'"max_tokens": 4', b'"max_token": 44')
    (place,) = path.stack.send([claimed(path, request_id, body)])
    assert path.result(request_id).status == "failed"
    described = json.loads(path.command("dlq", "show", request_id, "--json").stdout)
    assert described["bytes"] == 2 * MIB
    assert path.command("dlq", "show", request_id, "--body").stdout == body
    kept = path.store / described["claim"]["object"]
    os.utime(kept, (0, 0))
    again = path.command("dlq", "redrive", request_id, "--json")
    assert again.returncode == 0, again.stderr
    assert time.time() - kept.stat().st_mtime < 600, "the object is young again: another record leads to it"
    found = lambda: [r for r in results_at(path, request_id) if r != place]  # noqa: E731  # a condition to wait for
    wait_until(lambda: bool(found()), "the second result", 240)
    kept.unlink()
    gone = path.command("dlq", "redrive", request_id, "--again")
    assert gone.returncode == 1
    assert b"not in the claim store" in gone.stderr


def results_at(path: Installation, request_id: str) -> list[Slot]:
    """Where the requests stood that the results of an id are about."""
    slots = []
    for message in path.stack.read(topics.RESULTS):
        if header(message, "request-id") == request_id.encode():
            value = path.claims.resolve(topics.RESULTS, message.value(), message.headers())
            source = RequestFinished.model_validate_json(value or b"").source
            slots.append(Slot(source.topic, source.partition, source.offset))
    return slots
