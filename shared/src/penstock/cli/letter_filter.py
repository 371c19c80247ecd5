"""Choosing dead letters by what is known of them: `code=`, `stage=`, `tenant=`, `since=`, `until=`, `attempts=`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import typer

from penstock.cli.dead_letters import Letter
from penstock.cli.durations import parse_duration
from penstock.contracts.topics import EVENTS, REQUESTS, load_topics, siblings

INPUTS = tuple(name for base in (REQUESTS, *EVENTS) for name in siblings(base))
"""The topics that stages read; a letter goes to one of them."""
STAGES = tuple(dict.fromkeys(stage for topic in load_topics() if topic.name in INPUTS for stage in topic.read_by))
HELP = (
    "Those with KEY=VALUE: code, stage, tenant, since and until (a time, or how long ago: 2h), attempts (3, 3+). "
    "Repeat it; values of one key are alternatives."
)

_ATTEMPTS = re.compile(r"(\d{1,9})(\+?)")


@dataclass(frozen=True, slots=True)
class Filter:
    """What letters have to be; an empty one takes all."""

    codes: frozenset[str] = field(default_factory=frozenset)
    stages: frozenset[str] = field(default_factory=frozenset)
    tenants: frozenset[str] = field(default_factory=frozenset)
    since_ms: int | None = None
    """Of the failure; inclusive."""
    until_ms: int | None = None
    """Exclusive."""
    attempts: tuple[int, int | None] = (0, None)
    """Fewest and most; None is no bound."""

    def takes(self, letter: Letter) -> bool:
        """Whether the letter is meant."""
        known = letter.metadata
        fewest, most = self.attempts
        return (
            (not self.codes or known.error.code in self.codes)
            and (not self.stages or known.stage in self.stages)
            and (not self.tenants or known.tenant in self.tenants)
            and (self.since_ms is None or known.failed_ms >= self.since_ms)
            and (self.until_ms is None or known.failed_ms < self.until_ms)
            and known.attempts >= fewest
            and (most is None or known.attempts <= most)
        )


def parse(texts: Iterable[str], now_ms: int) -> Filter:
    """The filter that the options say; a bad one is a usage error that names it."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not value or key not in ("code", "stage", "tenant", "since", "until", "attempts"):
            raise typer.BadParameter(
                f"--filter: expected code, stage, tenant, since, until or attempts, then = and a value, got {text!r}"
            )
        found.setdefault(key, []).append(value)
    for key in ("since", "until", "attempts"):
        if len(found.get(key, [])) > 1:
            raise typer.BadParameter(f"--filter: {key} can be given once")
    for stage in found.get("stage", []):
        if stage not in STAGES:
            raise typer.BadParameter(f"--filter stage: expected one of {', '.join(STAGES)}")
    return Filter(
        codes=frozenset(found.get("code", [])),
        stages=frozenset(found.get("stage", [])),
        tenants=frozenset(found.get("tenant", [])),
        since_ms=_instant("since", found, now_ms),
        until_ms=_instant("until", found, now_ms),
        attempts=_attempts(found["attempts"][0]) if "attempts" in found else (0, None),
    )


def _attempts(text: str) -> tuple[int, int | None]:
    match = _ATTEMPTS.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"--filter attempts: expected a number such as 3, or 3+, got {text!r}")
    number = int(match[1])
    return number, None if match[2] else number


def _instant(key: str, found: dict[str, list[str]], now_ms: int) -> int | None:
    """Milliseconds since the epoch of a time in ISO 8601 (UTC unless it says), or of a duration ago."""
    if key not in found:
        return None
    text = found[key][0]
    try:
        return now_ms - round(parse_duration(text) * 1000)
    except ValueError:
        pass  # then it is a time
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"--filter {key}: expected a time such as 2026-11-21T13:00 or how long ago, such as 2h, got {text!r}"
        ) from None
    return round((time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp() * 1000)
