"""Durations, read and shown."""

from __future__ import annotations

import pytest

from penstock.cli.durations import parse_duration, show_ms


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("1.5", 1.5), (" 10 S ", 10)],
)
def test_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-3s", "5w", "1e9", "s", "9" * 40])
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("milliseconds", "shown"), [(0.42, "0.4 ms"), (12.3, "12 ms"), (3_449, "3.4 s"), (125_000, "2 min 5 s")]
)
def test_shown(milliseconds: float, shown: str) -> None:
    assert show_ms(milliseconds) == shown
