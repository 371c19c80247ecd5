"""The window, the copies, the prefix and the comparison of a replay, without a broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.comparing import Comparison, Pair, pairs, versions
from penstock.cli.main import app
from penstock.cli.moments import parse_moment, show_moment
from penstock.cli.outcomes import Key, Outcome, Outcomes, outcome_of, read_from
from penstock.cli.rates import described
from penstock.cli.reading import Read
from penstock.cli.replay_run import outputs_of
from penstock.cli.replays import check_prefix
from penstock.cli.window import Copy, copy_of, inputs_of, request_id_in
from penstock.contracts import topics
from penstock.contracts.events import Source, StageTiming
from penstock.contracts.ingress import request_id_of
from penstock.runtime.claim_stores import FolderStore
from penstock.runtime.claims import Claims

NOW_MS = 1_700_000_000_000
TRACED = (("traceparent", b"00-1"), ("deadline", b"5"), ("attempt", b"3"), ("tenant", b"acme"), ("foreign", b"\xff"))


def record(value: bytes | None, *headers: tuple[str, bytes | None]) -> Read:
    return Read(2, 5, NOW_MS, value, headers, b"key")


def copied(name: str, one: Read, topic: str) -> Copy:
    return copy_of(name, one, topic, Claims(), NOW_MS)


def claimed(claims: Claims, name: str, body: object, *headers: tuple[str, bytes | None]) -> Read:
    kept = claims.check_in(name, json.dumps(body).encode(), NOW_MS)
    assert kept.headers, "the body is large enough to be claimed"
    return record(kept.value, *headers, *kept.headers)


def outcome(status: str = "passed", **changed: object) -> Outcome:
    fields: dict[str, object] = {"code": None, "labels": (), "said": (), "digest": "d", "tokens": 7}
    return Outcome(status=status, **{**fields, **changed})  # type: ignore[arg-type]  # the test names the fields


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", NOW_MS),
        ("-2h", NOW_MS - 7_200_000),
        ("-7d", NOW_MS - 604_800_000),
        ("2023-11-14T22:13:20", NOW_MS),
        ("2023-11-14T22:13:20.250Z", NOW_MS + 250),
        ("2023-11-15T00:13:20+02:00", NOW_MS),
    ],
)
def test_moments(text: str, moment: int) -> None:
    assert parse_moment(text, NOW_MS) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "-", "-2 weeks", "7d", "2023-13-01"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time such as"):
        parse_moment(text, NOW_MS)


def test_a_moment_shown() -> None:
    assert show_moment(NOW_MS) == "2023-11-14T22:13:20+00:00"


def test_an_event_loses_deadline_attempts_and_trace_alone() -> None:
    body = {"context": {"request_id": "r", "deadline_ms": 5, "submitted_ms": 1}, "findings": {}, "text": "\u00e9"}
    copy = copied(topics.ANONYMIZED, record(json.dumps(body).encode(), *TRACED), "p.llm.anonymized")
    assert json.loads(copy.value or b"") == {**body, "context": {"request_id": "r", "submitted_ms": 1}}
    assert copy.headers == [("tenant", b"acme"), ("foreign", b"\xff"), ("replay-of", b"p.llm.anonymized/2/5")]


@pytest.mark.parametrize("value", [b'{"context": {"request_id":  "r"}}', b"\xff no JSON", b"[1]", None])
def test_what_has_no_deadline_is_copied_byte_for_byte(value: bytes | None) -> None:
    assert copied(topics.ANONYMIZED, record(value), "llm.anonymized").value == value


def test_a_request_without_an_id_is_given_the_one_it_had() -> None:
    derived = request_id_of(Source(topic="p.llm.requests", partition=2, offset=5))
    bare = record(b'{"prompt": "x"}')
    assert ("request-id", derived.encode()) in copied(topics.REQUESTS, bare, "p.llm.requests").headers
    assert request_id_in(topics.REQUESTS, bare, "p.llm.requests") == derived
    own = record(b'{"prompt": "x", "request_id": "mine"}')
    assert [name for name, _ in copied(topics.REQUESTS, own, "p.llm.requests").headers] == ["replay-of"]
    assert request_id_in(topics.REQUESTS, own, "p.llm.requests") == "mine"
    named = record(b"\xff", ("request-id", b"header"))
    assert request_id_in(topics.REQUESTS, named, "p.llm.requests") == "header"


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    return Claims(FolderStore(tmp_path), threshold=100)


def test_a_claimed_event_loses_its_deadline_in_an_object_of_its_own(claims: Claims) -> None:
    body = {"context": {"request_id": "r", "deadline_ms": 5}, "text": "x" * 200}
    one = claimed(claims, topics.ANONYMIZED, body, *TRACED)
    copy = copy_of(topics.ANONYMIZED, one, "p.llm.anonymized", claims, NOW_MS)
    assert copy.headers.count(("claim", b"penstock.claim/1")) == 1
    assert copy.value != one.value
    found = claims.resolve(topics.ANONYMIZED, copy.value, copy.headers)
    assert json.loads(found or b"") == {**body, "context": {"request_id": "r"}}
    assert json.loads(claims.resolve(topics.ANONYMIZED, one.value, one.headers) or b"") == body


def test_a_claimed_event_that_fits_without_its_deadline_is_no_claim_any_more(claims: Claims) -> None:
    body = {"context": {"deadline_ms": 5}, "text": "x" * 65}
    copy = copy_of(topics.ANONYMIZED, claimed(claims, topics.ANONYMIZED, body), "llm.anonymized", claims, NOW_MS)
    assert json.loads(copy.value or b"") == {**body, "context": {}}
    assert [name for name, _ in copy.headers] == ["replay-of"]


@pytest.mark.parametrize("gone", [True, False])
def test_a_claimed_event_without_deadline_or_object_is_copied_as_it_is(claims: Claims, gone: bool) -> None:
    body = {"context": {"deadline_ms": 5} if gone else {}, "text": "x" * 200}
    one = claimed(claims, topics.ANONYMIZED, body)
    if gone:
        assert claims.store is not None
        claims.store.delete(json.loads(one.value or b"")["object"])
    copy = copy_of(topics.ANONYMIZED, one, "llm.anonymized", claims, NOW_MS)
    assert (copy.value, copy.headers[0]) == (one.value, ("claim", b"penstock.claim/1"))


@pytest.mark.parametrize("inside", ["mine", None])
def test_a_claimed_requests_id_is_found_without_its_object(claims: Claims, inside: str | None) -> None:
    body = {"prompt": "x" * 200, "request_id": inside}
    one = claimed(claims, topics.REQUESTS, body)
    copy = copy_of(topics.REQUESTS, one, "p.llm.requests", claims, NOW_MS)
    expected = inside or request_id_of(Source(topic="p.llm.requests", partition=2, offset=5))
    assert copy.value == one.value
    assert request_id_in(topics.REQUESTS, record(copy.value, *copy.headers), "r.llm.requests") == expected


@pytest.mark.parametrize(("into", "live"), [("", "a."), ("a.", "a."), ("a b", ""), ("x" * 65, ""), ("\u00e9.", "")])
def test_prefixes_that_a_replay_cannot_have(into: str, live: str) -> None:
    assert check_prefix(into, live) is not None


def test_a_prefix_of_its_own() -> None:
    assert check_prefix("strict.", "") is None
    assert check_prefix("a.b.", "a.") is None


def test_every_stage_has_inputs_and_outputs() -> None:
    assert topics.COMPLETIONS in inputs_of("safety")
    assert topics.ANONYMIZED in inputs_of("safety")
    assert {topics.SCREENED, topics.SCREENED_COMPLETIONS, topics.RESULTS} <= set(outputs_of("safety"))
    assert topics.TOKENS not in outputs_of("inference")
    assert topics.STATE_VAULTS not in outputs_of("anonymize")


@pytest.mark.parametrize(
    ("stage", "before", "topic"),
    [
        ("safety", ("preprocess", "anonymize"), topics.ANONYMIZED),
        ("safety", ("preprocess", "anonymize", "safety", "inference"), topics.COMPLETIONS),
        ("safety", (), topics.ANONYMIZED),
        ("preprocess", (), topics.REQUESTS),
        ("postprocess", ("inference", "safety"), topics.SCREENED_COMPLETIONS),
    ],
)
def test_which_topic_an_outcome_came_by(stage: str, before: tuple[str, ...], topic: str) -> None:
    timings = tuple(StageTiming(stage=one, queued_ms=0, processing_ms=0) for one in before)
    assert read_from(stage, timings) == topic


@pytest.mark.parametrize(
    ("other", "aspects"),
    [
        (outcome(), ()),
        (outcome("blocked", digest=None, tokens=None), ("status",)),
        (outcome(labels=("prompt abuse flag",)), ("verdicts",)),
        (outcome(digest="e", tokens=8), ("text", "tokens")),
        (outcome("failed", code="internal_error"), ("status", "error")),
        (outcome(text="shown or not", said=("flag prompt: abuse 0.51",)), ()),
    ],
)
def test_in_what_outcomes_differ(other: Outcome, aspects: tuple[str, ...]) -> None:
    assert outcome().differs(other) == aspects


def test_counting() -> None:
    keys = {Key("t", name): 1 for name in ("same", "moved", "live", "replay", "neither")}
    live = Outcomes({Key("t", name): outcome() for name in ("same", "moved", "live")}, {"policy": {"1"}, "x": {"1"}})
    blocked = outcome("blocked", labels=("prompt abuse block", "prompt abuse block"))
    replayed = Outcomes(
        {Key("t", "same"): outcome(), Key("t", "moved"): blocked, Key("t", "replay"): outcome()},
        {"policy": {"2"}, "x": {"1"}},
    )
    comparison = Comparison()
    found: list[Pair] = list(pairs(keys, live, replayed))
    for pair in found:
        comparison.add(pair)
    figures = comparison.figures()
    assert {name: figures[name] for name in ("records", "same", "changed")} == {"records": 5, "same": 1, "changed": 1}
    assert (figures["only_live"], figures["only_replay"], figures["neither"]) == (1, 1, 1)
    assert figures["transitions"] == {"t: passed to blocked": 1}
    assert figures["labels"] == {"prompt abuse block": {"live": 0, "replay": 1}}
    assert comparison.differs
    assert versions(live, replayed) == {"policy": {"live": ["1"], "replay": ["2"]}}


def test_an_outcome_of_recorded_messages() -> None:

    recorded = Path(__file__).parents[2] / "contract/recorded"
    event = topics.EVENTS[topics.SCREENED_COMPLETIONS].model_validate_json(
        (recorded / "penstock.completion-screened.v1/full.json").read_bytes()
    )
    reduced = outcome_of(event)
    assert reduced.status == "passed"
    assert reduced.text is None
    assert outcome_of(event, text=True).text
    assert reduced.digest == outcome_of(event, text=True).digest


def test_how_far_it_is() -> None:
    assert described("replaying", 1200, 5000, 300.0) == "replaying: 1,200 of 5,000, 300/s, 12.7 s left"
    assert described("replaying", 0, 5000, 0.0) == "replaying: 0 of 5,000, 0/s"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--into"),
        (["--into", "x."], "--stage"),
        (["--into", "x.", "--stage", "gateway"], "--stage"),
        (["--into", "x.", "--stage", "safety"], "--from"),
        (["--into", "x.", "--stage", "safety", "--from", "soon"], "expected a time"),
        (["--into", "x.", "--stage", "safety", "--from", "-1h", "--to", "-2h"], "empty"),
        (["--into", "x.", "--stage", "safety", "--from", "-1h", "--input", "llm.screened"], "--input"),
        (["--into", "x.", "--stage", "inference", "--from", "-1h", "--policy", "x"], "--policy"),
        (["--into", "x.", "--stage", "safety", "--from", "-1h", "--policy", "/no/file"], "no file"),
        (["--into", "x.", "--stage", "safety", "--from", "-1h", "--set", "exactly_once=false"], "not for a replay"),
        (["--into", "x.", "--stage", "safety", "--from", "-1h", "--set", "kafka_options={}"], "not for a replay"),
        (["--into", "x.", "--stage", "preprocess", "--from", "-1h", "--tenant", "a"], "--tenant"),
        (["--into", "x.", "--resume", "--stage", "safety"], "--stage"),
        (["--remove", "x.", "--into", "y."], "stands alone"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_asked_of_a_broker(arguments: list[str], sentence: str) -> None:
    done = CliRunner().invoke(app, ["replay", "--bootstrap", "127.0.0.1:1", "--prefix", "live.", *arguments])
    assert done.exit_code == 2
    assert sentence in " ".join(done.stderr.replace("│", " ").split())
