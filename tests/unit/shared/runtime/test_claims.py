"""`penstock.runtime.claims`: large values become claims, claims become the same bytes again, or a typed error."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from penstock.contracts import topics
from penstock.contracts.claims import CLAIM, Claim
from penstock.contracts.errors import BackendUnavailable, LimitExceeded, PenstockError, StageError
from penstock.runtime import claims as module
from penstock.runtime.claim_stores import FolderStore
from penstock.runtime.claims import Claims, claim_in, lifetime_hours
from penstock.runtime.kafka import RECORD_OVERHEAD_BYTES
from penstock.runtime.stage import Record

NOW_MS = 1_795_219_200_000
DAY = "20261121"
HEADER = ((CLAIM, b"penstock.claim/1"),)
VALUE = b"v" * 2_000


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


@pytest.fixture
def claims(store: FolderStore) -> Claims:
    return Claims(store, threshold=1_000, most=100_000)


def claim_of(value: bytes, **changes: object) -> Claim:
    digest = hashlib.sha256(value).hexdigest()
    fields = {"object": f"restricted/llm.requests/{DAY}/{digest}", "bytes": len(value), "sha256": digest}
    return Claim.model_validate(fields | changes)


def test_a_small_value_stays_in_its_record(claims: Claims, store: FolderStore) -> None:
    kept = claims.check_in(topics.REQUESTS, b"x" * 1_000, NOW_MS)
    assert (kept.value, kept.headers) == (b"x" * 1_000, ())
    assert list(store.list()) == []


@pytest.mark.parametrize(
    ("topic", "folder"), [(topics.REQUESTS, "restricted"), (topics.ANONYMIZED, "open"), (topics.RESULTS, "restricted")]
)
def test_a_large_value_goes_to_the_store_apart_by_class(
    claims: Claims, store: FolderStore, topic: str, folder: str
) -> None:
    kept = claims.check_in(topic, VALUE, NOW_MS)
    claim = Claim.model_validate_json(kept.value)
    digest = hashlib.sha256(VALUE).hexdigest()
    assert claim == Claim(object=f"{folder}/{topic}/{DAY}/{digest}", bytes=2_000, sha256=digest)
    assert kept.headers == HEADER
    assert store.get(claim.object, 2_000) == VALUE
    assert claims.resolve(topic, kept.value, kept.headers) == VALUE


def test_a_record_without_claim_is_left_alone(claims: Claims) -> None:
    assert claims.resolve(topics.REQUESTS, b"any", (("tenant", b"a"),)) == b"any"
    assert Claims().resolve(topics.REQUESTS, None, None) is None


def test_without_a_store_the_topics_limit_holds() -> None:
    limit = 4_194_304 - RECORD_OVERHEAD_BYTES
    assert Claims().check_in(topics.ANONYMIZED, b"x" * limit, NOW_MS).headers == ()
    with pytest.raises(LimitExceeded, match="PENSTOCK_CLAIM_STORE") as caught:
        Claims().check_in(topics.ANONYMIZED, b"x" * (limit + 1), NOW_MS)
    assert caught.value.limit == limit


def test_with_a_store_what_the_topic_does_not_take_is_stored_whatever_the_threshold(store: FolderStore) -> None:
    generous = Claims(store, threshold=16_000_000)
    assert generous.check_in(topics.ANONYMIZED, b"x" * 4_194_304, NOW_MS).headers == HEADER


def test_the_hard_limit_holds_on_the_way_out_and_nothing_is_stored(claims: Claims, store: FolderStore) -> None:
    with pytest.raises(LimitExceeded, match="PENSTOCK_CLAIM_MAX_BYTES") as caught:
        claims.check_in(topics.ANONYMIZED, b"x" * 100_001, NOW_MS)
    assert caught.value.limit == 100_000
    assert list(store.list()) == []


def test_the_hard_limit_holds_on_the_way_in_before_anything_is_fetched(claims: Claims) -> None:
    claim = claim_of(b"x", bytes=100_001)
    with pytest.raises(LimitExceeded) as caught:  # the object is not there: fetching it would be another error
        claims.resolve(topics.REQUESTS, claim.encode(), HEADER)
    assert caught.value.limit == 100_000


def refused(claims: Claims, topic: str, value: bytes | None, headers: object = HEADER) -> PenstockError:
    with pytest.raises(PenstockError) as caught:
        claims.resolve(topic, value, headers)  # type: ignore[arg-type]  # a test's shorthand
    return caught.value


def test_a_missing_object_is_a_typed_error_that_names_it(claims: Claims) -> None:
    claim = claim_of(VALUE)
    error = refused(claims, topics.REQUESTS, claim.encode())
    assert isinstance(error, StageError)
    assert error.code == "claim_missing"
    assert claim.object in error.message
    assert not error.retriable


@pytest.mark.parametrize("there", [b"w" * 2_000, b"v" * 1_999, b"v" * 2_001, b""])
def test_other_bytes_are_never_handed_on(claims: Claims, store: FolderStore, there: bytes) -> None:
    claim = claim_of(VALUE)
    store.put(claim.object, there)
    assert refused(claims, topics.REQUESTS, claim.encode()).code == "claim_mismatch"


@pytest.mark.parametrize(
    "changes",
    [
        {"object": f"restricted/llm.requests/{DAY}/{'0' * 64}"},
        {"object": f"restricted/llm.results/{DAY}/{hashlib.sha256(VALUE).hexdigest()}"},
        {"object": f"open/llm.anonymized/{DAY}/{hashlib.sha256(VALUE).hexdigest()}"},
        {"object": f"open/llm.requests/{DAY}/{hashlib.sha256(VALUE).hexdigest()}"},
    ],
)
def test_a_claim_leads_nowhere_but_to_its_own_topics_objects(
    claims: Claims, store: FolderStore, changes: dict[str, object]
) -> None:
    claim = claim_of(VALUE, **changes)
    store.put(claim.object, VALUE)
    assert refused(claims, topics.REQUESTS, claim.encode()).code == "invalid_claim"


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (None, HEADER),
        (b"", HEADER),
        (b"{}", HEADER),
        (b"\xff", HEADER),
        (b"[1]", HEADER),
        (b'{"object": "../../etc/passwd", "bytes": 1, "sha256": "%s"}' % (b"0" * 64), HEADER),
        (b'{"object": "restricted/llm.requests/../%s", "bytes": 1, "sha256": "%s"}' % (b"0" * 64, b"0" * 64), HEADER),
        (b" " * 2_000 + claim_of(VALUE).encode(), HEADER),
        (claim_of(VALUE).encode(), ((CLAIM, b"penstock.claim/3"),)),
        (claim_of(VALUE).encode(), ((CLAIM, b"\xff"),)),
        (claim_of(VALUE).encode(), ((CLAIM, None),)),
    ],
)
def test_what_is_no_claim_is_refused_without_quoting_it(claims: Claims, value: bytes | None, headers: object) -> None:
    error = refused(claims, topics.REQUESTS, value, headers)
    assert error.code == "invalid_claim"
    assert "passwd" not in error.message


def test_a_topic_without_claims_has_none() -> None:
    with pytest.raises(StageError, match="carries no claims"):
        claim_in(topics.TOKENS, claim_of(VALUE).encode(), HEADER)


def test_a_claim_without_a_store_may_be_read_later(claims: Claims) -> None:
    error = refused(Claims(), topics.REQUESTS, claim_of(VALUE).encode())
    assert isinstance(error, BackendUnavailable)
    assert error.code == "claim_store_unavailable"


def test_an_opened_record_keeps_what_stands_in_the_topic(claims: Claims) -> None:
    kept = claims.check_in(topics.REQUESTS, VALUE, NOW_MS)
    record = Record("p.llm.requests", 0, 1, NOW_MS, b"k", kept.value, kept.headers)
    opened = claims.opened(record, topics.REQUESTS)
    assert (opened.value, opened.original, record.original) == (VALUE, kept.value, kept.value)
    plain = Record("p.llm.requests", 0, 1, NOW_MS, b"k", b"v")
    assert claims.opened(plain, topics.REQUESTS) is plain


def test_records_are_cut_so_that_claimed_values_fit_in_memory(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTION_BYTES", 100)

    def record(offset: int, size: int | None) -> Record:
        if size is None:
            return Record("t", 0, offset, 0, None, b"plain" * 100)
        return Record("t", 0, offset, 0, None, claim_of(b"x", bytes=size).encode(), HEADER)

    sizes = [None, 60, 40, None, 1, 100, 500, None, 30]
    records = [record(offset, size) for offset, size in enumerate(sizes)]
    portions = list(claims.portions(records))
    assert [[one.offset for one in portion] for portion in portions] == [[0, 1, 2, 3], [4], [5], [6, 7], [8]]
    assert list(claims.portions([])) == [[]]


class Flaky(FolderStore):
    """Fails as often as it is told to."""

    failures = 0
    calls = 0

    def put(self, name: str, value: bytes) -> None:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise BackendUnavailable("down", code="claim_store_unavailable")
        super().put(name, value)


def test_a_store_that_fails_is_tried_again_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(tmp_path)
    monkeypatch.setattr(module, "open_store", lambda _: flaky)
    waits: list[int] = []
    claims = Claims.open("file:///x", threshold=1, attempts=3, waiting=waits.append)
    flaky.failures = 2
    claims.check_in(topics.REQUESTS, VALUE, NOW_MS)
    assert (flaky.calls, waits) == (3, [2, 3])
    flaky.failures = 4
    for calls in (6, 7):  # three attempts; then, while it is down, one for each value
        with pytest.raises(BackendUnavailable):
            claims.check_in(topics.REQUESTS, VALUE, NOW_MS)
        assert flaky.calls == calls
    claims.check_in(topics.REQUESTS, VALUE, NOW_MS)
    flaky.failures = 1
    claims.check_in(topics.REQUESTS, VALUE, NOW_MS)
    assert flaky.calls == 10


def test_objects_live_as_long_as_a_record_may_lead_to_them() -> None:
    assert lifetime_hours(topics.REQUESTS) == 24 + 24 + 336
    assert lifetime_hours(topics.ANONYMIZED) == 168 + 168 + 336
    assert lifetime_hours(topics.RESULTS) == 168


def test_both_lanes_share_their_objects(claims: Claims) -> None:
    bulk = topics.in_lane(topics.REQUESTS, "bulk")
    kept = claims.check_in(bulk, VALUE, NOW_MS)
    assert Claim.model_validate_json(kept.value).object.startswith("restricted/llm.requests/")
    assert claims.resolve(bulk, kept.value, kept.headers) == VALUE
    assert claims.resolve(topics.REQUESTS, kept.value, kept.headers) == VALUE
