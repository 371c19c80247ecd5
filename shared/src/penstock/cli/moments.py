"""Moments as people write them: ISO 8601, or a duration back from now."""

from __future__ import annotations

from datetime import UTC, datetime

from penstock.cli.durations import parse_duration


def parse_moment(text: str, now_ms: int) -> int:
    """Milliseconds since the epoch; without an offset the time is UTC. Raises ValueError with a sentence."""
    stated = text.strip()
    if stated == "now":
        return now_ms
    try:
        if stated.startswith("-"):
            return now_ms - round(parse_duration(stated[1:]) * 1000)
        moment = datetime.fromisoformat(stated)
    except ValueError:
        raise ValueError(
            f"expected a time such as 2026-05-04T22:00, 2026-05-04T22:00+02:00, -7d, -2h or now, got {text!r}"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def show_moment(milliseconds: int) -> str:
    """ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
