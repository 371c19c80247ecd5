"""Which dead letters are sent again, why not the others, and what goes out."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from penstock.cli.dead_letters import Letter, Marks, is_letter, letter_of
from penstock.cli.errors import CommandError
from penstock.cli.letter_filter import Filter
from penstock.cli.main import app
from penstock.cli.reading import Read
from penstock.cli.redrive import Candidate, Wish, compose, demand, weigh
from penstock.cli.redrive import _marked as marked
from penstock.contracts.events import Source
from penstock.contracts.headers import RequestHeaders
from penstock.contracts.ingress import request_id_of
from penstock.contracts.results import DeadLetter, ErrorDetail, Redriven
from penstock.runtime.kafka import Names

NOW_MS = 1_700_000_000_000
NAMES = Names("p.")
BODY = b'{"prompt": "\xff'


def record(
    *,
    request_id: str = "r-1",
    code: str = "unknown_model",
    stage: str = "preprocess",
    topic: str = "p.llm.requests",
    value: bytes | None = BODY,
    headers: tuple[tuple[str, bytes | None], ...] = (),
    offset: int = 17,
) -> Read:
    letter = DeadLetter(
        request_id=request_id,
        tenant="default",
        stage=stage,
        error=ErrorDetail(code=code, message="m", stage=stage),
        attempts=1,
        source=Source(topic=topic, partition=2, offset=5),
        original_timestamp_ms=NOW_MS - 10,
        failed_ms=NOW_MS - 5,
    )
    return Read(3, offset, NOW_MS, value, (*headers, ("dead-letter", letter.encode())), b"key")


def weighed(one: Read, wish: Wish | None = None) -> Candidate:
    return weigh(one, letter_of(one), wish or Wish(), NAMES, NOW_MS)


def reason(one: Candidate) -> str | None:
    return None if one.refusal is None else one.refusal.reason


def marker(place: str = "3/17") -> Read:
    mark = Redriven(dead_letter=place, to="p.llm.requests", at_ms=NOW_MS)
    return Read(3, 18, NOW_MS, None, (("redriven", mark.model_dump_json().encode()),), b"key")


def test_the_record_goes_out_as_it_came_but_for_how_it_got_here() -> None:
    kept = (("tenant", b"acme"), ("foreign", b"\xff"), ("foreign", None), ("request-id", b"r-1"))
    gone = (
        ("attempt", b"2"),
        ("traceparent", b"00-1"),
        ("tracestate", b"a=b"),
        ("deadline", b"17"),
        ("redrive-of", b"p.llm.requests/2/1"),
    )
    one = record(headers=(*kept[:2], *gone, *kept[2:]))
    out = compose(one, letter_of(one), "llm.requests", Wish(), names=NAMES, now_ms=NOW_MS, body=one.value)
    assert (out.topic, out.partition, out.key, out.value) == ("llm.requests", 2, b"key", BODY)
    assert out.headers == [*kept, ("attempt", b"3"), ("redrive-of", b"p.llm.requests/2/5")]
    assert RequestHeaders.parse(out.headers).redrive_of == "p.llm.requests/2/5"


def test_a_new_deadline_takes_the_old_ones_place() -> None:
    one = record(headers=(("deadline", b"17"),))
    out = compose(
        one, letter_of(one), "llm.requests", Wish(allowed_ms=30_000), names=NAMES, now_ms=NOW_MS, body=one.value
    )
    assert [value for name, value in out.headers if name == "deadline"] == [str(NOW_MS + 30_000).encode()]
    assert weighed(one).had_deadline


@pytest.mark.parametrize(("value", "added"), [(BODY, True), (b'{"request_id": "x"}', False), (b"[1]", True)])
def test_a_derived_request_id_is_kept(value: bytes, added: bool) -> None:
    derived = request_id_of(Source(topic="p.llm.requests", partition=2, offset=5))
    one = record(request_id=derived, value=value)
    out = compose(one, letter_of(one), "llm.requests", Wish(), names=NAMES, now_ms=NOW_MS, body=one.value)
    assert ("request-id" in dict(out.headers)) == added
    assert dict(out.headers).get("request-id") == (derived.encode() if added else None)


def test_an_events_headers_keep_the_deadline_that_is_in_its_bytes() -> None:
    value = json.dumps({"context": {"deadline_ms": NOW_MS + 1}}).encode()
    one = record(topic="p.llm.preprocessed", stage="anonymize", value=value, headers=(("deadline", b"17"),))
    assert reason(weighed(one)) is None
    out = compose(one, letter_of(one), "llm.preprocessed", Wish(), names=NAMES, now_ms=NOW_MS, body=one.value)
    assert ("deadline", b"17") in out.headers
    assert reason(weighed(one, Wish(allowed_ms=5))) == "deadline"


def test_an_event_whose_deadline_passed_is_not_sent() -> None:
    value = json.dumps({"context": {"deadline_ms": NOW_MS}}).encode()
    assert reason(weighed(record(topic="p.llm.preprocessed", value=value))) == "expired"


@pytest.mark.parametrize("topic", ["llm.requests", "q.llm.requests", "p.llm.results", "p.other"])
def test_a_record_of_a_topic_that_no_stage_here_reads_is_not_sent(topic: str) -> None:
    assert reason(weighed(record(topic=topic))) == "foreign topic"


def test_a_duplicate_is_never_sent() -> None:
    candidate = weighed(record(code="duplicate_request"), Wish(again=True))
    assert candidate.refusal is not None
    assert "first record's result stands" in candidate.refusal.sentence


def test_a_bulk_record_goes_back_to_the_bulk_lane_to_whichever_stage() -> None:
    bulk = record(topic="p.llm.requests.bulk", headers=(("deadline", b"17"),))
    assert weighed(bulk).topic == "llm.requests.bulk"
    assert weighed(bulk, Wish(to="preprocess")).topic == "llm.requests.bulk"
    wish = Wish(allowed_ms=9)
    out = compose(bulk, letter_of(bulk), "llm.requests.bulk", wish, names=NAMES, now_ms=NOW_MS, body=bulk.value)
    assert (out.partition, dict(out.headers)["deadline"]) == (2, str(NOW_MS + 9).encode())
    strayed = record(topic="p.llm.anonymized.bulk", headers=(("schema", b"penstock.completion-generated/1"),))
    assert weighed(strayed, Wish(to="safety")).topic == "llm.completions.bulk"


def test_to_another_stage_only_where_the_schema_fits() -> None:
    assert weighed(record(), Wish(to="preprocess")).topic == "llm.requests"
    wrong = weighed(record(), Wish(to="safety"))
    assert (wrong.topic, reason(wrong)) == (None, "schema")
    strayed = record(headers=(("schema", b"penstock.completion-generated/1"),))
    assert weighed(strayed, Wish(to="safety")).topic == "llm.completions"
    assert reason(weighed(strayed, Wish(to="preprocess"))) == "schema"


def test_a_marked_letter_is_left_but_for_again() -> None:
    marks = Marks()
    (letter,) = marks.letters([record(), marker()])
    candidate = weighed(letter)
    assert reason(marked(candidate, marks.of("3:17"), Wish())) == "redriven before"
    assert reason(marked(candidate, marks.of("3:17"), Wish(again=True))) is None
    assert reason(marked(candidate, marks.of("3:18"), Wish())) is None


def test_a_marker_is_no_letter_and_a_letter_with_its_header_is_one() -> None:
    assert not is_letter(marker())
    assert is_letter(record(headers=(("redriven", b"x"),)))
    broken = Read(3, 18, NOW_MS, None, (("redriven", b"{"),))
    with pytest.raises(CommandError, match="redriven header"):
        list(Marks().letters([broken]))


@pytest.mark.parametrize(
    ("wish", "selected"),
    [
        (Wish(), True),
        (Wish(which=("r-1",)), True),
        (Wish(which=("3:017",)), True),
        (Wish(which=("r-2", "3:18")), False),
        (Wish(filter=Filter(codes=frozenset({"unknown_model", "other"}))), True),
        (Wish(filter=Filter(codes=frozenset({"unknown_model"}), stages=frozenset({"safety"}))), False),
    ],
)
def test_selection(wish: Wish, selected: bool) -> None:
    letter: Letter = letter_of(record())
    assert wish.selects(letter) == selected


def test_a_named_letter_that_cannot_go_stops_all() -> None:
    good, bad = weighed(record()), weighed(record(request_id="r-2", code="duplicate_request", offset=18))
    with pytest.raises(CommandError, match=r"3:18: .*accepted before.*Nothing was sent"):
        demand([good, bad], Wish(which=("r-1", "r-2")))


def test_an_id_stands_for_the_one_letter_that_can_go() -> None:
    good, twin = weighed(record()), weighed(record(code="duplicate_request", offset=18))
    assert demand([good, twin], Wish(which=("r-1", "3:17"))) == [good]
    with pytest.raises(CommandError, match="3:17, 3:19"):
        demand([good, weighed(record(offset=19))], Wish(which=("r-1",)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say which"),
        (("r-1", "--all"), "not both"),
        (("--all", "--to", "nowhere"), "--to"),
        (("--filter", "stage=nowhere"), "stage"),
        (("--filter", "colour=red"), "--filter"),
        (("--filter", "code=x", "--edit"), "--edit"),
        (("r-1", "--edit", "--dry-run"), "--edit"),
        (("--all", "--deadline", "soon"), "duration"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, ["dlq", "redrive", *arguments, "--bootstrap", "127.0.0.1:1"])
    assert done.exit_code == 2
    assert said in done.output


def test_an_edited_body_is_no_claim_whatever_the_original_was() -> None:
    one = record(headers=(("claim", b"penstock.claim/1"), ("tenant", b"acme")))
    edited = b'{"request_id": "r-1"}'
    for wish, value, kept in ((Wish(), BODY, True), (Wish(edited=edited), edited, False)):
        out = compose(one, letter_of(one), "llm.requests", wish, names=NAMES, now_ms=NOW_MS, body=value)
        assert (out.value, "claim" in dict(out.headers)) == (value, kept)
