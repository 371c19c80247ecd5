"""Durations as people write them: `500ms`, `30s`, `5m`, `2h`, `7d`; and as people read them."""

from __future__ import annotations

import re

_FORM = re.compile(r"^(\d{1,9}(?:\.\d{1,3})?)\s*(ms|s|m|h|d)?$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_duration(text: str) -> float:
    """Seconds; a bare number is in seconds. Raises ValueError with a sentence."""
    match = _FORM.match(text.strip().lower())
    if match is None:
        raise ValueError(f"expected a duration such as 500ms, 30s, 5m, 2h or 7d, got {text!r}")
    return float(match.group(1)) * _SECONDS[match.group(2) or "s"]


def show_ms(milliseconds: float) -> str:
    """A short form: `0.4 ms`, `12 ms`, `3.4 s`, `2 min 5 s`."""
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1_000:.1f} s"
    minutes, seconds = divmod(round(milliseconds / 1_000), 60)
    return f"{minutes} min {seconds} s"
