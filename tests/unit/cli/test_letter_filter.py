"""Which dead letters a filter takes."""

from __future__ import annotations

import pytest
import typer

from penstock.cli.dead_letters import Letter
from penstock.cli.letter_filter import parse
from penstock.contracts.events import Source
from penstock.contracts.results import DeadLetter, ErrorDetail

NOW_MS = 1_700_000_000_000  # 2023-11-14T22:13:20Z


def letter(*, code: str = "rate_limited", failed_ms: int = NOW_MS, attempts: int = 3) -> Letter:
    known = DeadLetter(
        request_id="r-1",
        tenant="acme",
        stage="safety",
        error=ErrorDetail(code=code, message="m", stage="safety"),
        attempts=attempts,
        source=Source(topic="llm.anonymized", partition=0, offset=0),
        original_timestamp_ms=failed_ms,
        failed_ms=failed_ms,
    )
    return Letter(0, 0, known, b"{}", ())


@pytest.mark.parametrize(
    ("texts", "taken"),
    [
        ((), True),
        (("code=rate_limited",), True),
        (("code=other",), False),
        (("code=other", "code=rate_limited"), True),
        (("code=rate_limited", "stage=inference"), False),
        (("stage=safety", "tenant=acme"), True),
        (("tenant=other",), False),
        (("attempts=3",), True),
        (("attempts=2",), False),
        (("attempts=2+",), True),
        (("attempts=4+",), False),
        (("since=2h",), True),
        (("until=2h",), False),
        (("since=2023-11-14T22:13:20",), True),
        (("since=2023-11-14T23:13:21+01:00",), False),
        (("until=2023-11-14T22:13:20Z",), False),
        (("since=1m", "until=0s"), False),
    ],
)
def test_all_keys_have_to_fit_and_one_of_a_keys_values(texts: tuple[str, ...], taken: bool) -> None:
    assert parse(texts, NOW_MS).takes(letter()) is taken


def test_a_window_of_time_is_closed_at_its_beginning_and_open_at_its_end() -> None:
    window = parse(["since=2h", "until=1h"], NOW_MS)
    hour = 3_600_000
    taken = [window.takes(letter(failed_ms=NOW_MS - ago)) for ago in (2 * hour + 1, 2 * hour, hour + 1, hour)]
    assert taken == [False, True, True, False]


@pytest.mark.parametrize(
    "text",
    ["code", "code=", "=x", "colour=red", "stage=nowhere", "attempts=many", "attempts=-1", "since=yesterday"],
)
def test_a_bad_filter_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="--filter"):
        parse([text], NOW_MS)


@pytest.mark.parametrize("key", ["since=1h", "until=1h", "attempts=1"])
def test_a_bound_is_given_once(key: str) -> None:
    with pytest.raises(typer.BadParameter, match="once"):
        parse([key, key], NOW_MS)
