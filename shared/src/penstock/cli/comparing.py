"""The outcomes of a stage's records, live and replayed, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.cli.outcomes import Key, Outcome, Outcomes

SAME, CHANGED, ONLY_LIVE, ONLY_REPLAY, NEITHER = "same", "changed", "only_live", "only_replay", "neither"
KINDS = (SAME, CHANGED, ONLY_LIVE, ONLY_REPLAY, NEITHER)


@dataclass(frozen=True, slots=True)
class Pair:
    """One record's outcomes."""

    key: Key
    live: Outcome | None
    replayed: Outcome | None

    @property
    def aspects(self) -> tuple[str, ...]:
        """What was changed, where it has both outcomes."""
        return () if self.live is None or self.replayed is None else self.replayed.differs(self.live)

    @property
    def kind(self) -> str:
        """One of KINDS."""
        if self.live is None:
            return NEITHER if self.replayed is None else ONLY_REPLAY
        if self.replayed is None:
            return ONLY_LIVE
        return CHANGED if self.aspects else SAME

    def described(self) -> dict[str, Any]:
        """For programs."""
        sides = {"live": self.live, "replay": self.replayed}
        return {
            "request_id": self.key.request_id,
            "topic": self.key.topic,
            "kind": self.kind,
            "changed": list(self.aspects),
            **{name: None if one is None else _described(one) for name, one in sides.items()},
        }


@dataclass(slots=True)
class Comparison:
    """The figures."""

    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Topic and kind."""
    transitions: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Topic, status live, status replayed: of what has both outcomes and another status."""
    aspects: Counter[str] = field(default_factory=Counter)
    labels: dict[str, Counter[str]] = field(default_factory=lambda: {"live": Counter(), "replay": Counter()})
    """Side -> verdict's label -> records that have it, of what has both outcomes."""
    repeated: int = 0
    """Records whose request id another record of the same topic has too; they are compared once."""

    def count(self, kind: str) -> int:
        """In all topics."""
        return sum(number for (_, one), number in self.kinds.items() if one == kind)

    @property
    def differs(self) -> bool:
        """Whether anything is not the same."""
        return any(number for (_, kind), number in self.kinds.items() if kind != SAME)

    def add(self, pair: Pair) -> None:
        """Count one."""
        self.kinds[pair.key.topic, pair.kind] += 1
        if pair.live is None or pair.replayed is None:
            return
        self.aspects.update(pair.aspects)
        if pair.live.status != pair.replayed.status:
            self.transitions[pair.key.topic, pair.live.status, pair.replayed.status] += 1
        self.labels["live"].update(set(pair.live.labels))
        self.labels["replay"].update(set(pair.replayed.labels))

    def figures(self) -> dict[str, Any]:
        """For programs."""
        known = sorted({*self.labels["live"], *self.labels["replay"]})
        return {
            "records": sum(self.kinds.values()),
            **{kind: self.count(kind) for kind in KINDS},
            "repeated": self.repeated,
            "changed_in": dict(self.aspects),
            "transitions": {f"{topic}: {old} to {new}": n for (topic, old, new), n in self.transitions.items()},
            "labels": {label: {side: self.labels[side][label] for side in ("live", "replay")} for label in known},
        }


def pairs(keys: Mapping[Key, int], live: Outcomes, replayed: Outcomes) -> Iterator[Pair]:
    """One for each record, by topic and request id."""
    for key in sorted(keys):
        yield Pair(key, live.of.get(key), replayed.of.get(key))


def versions(live: Outcomes, replayed: Outcomes) -> dict[str, dict[str, list[str]]]:
    """What was of other versions: part -> side -> versions met."""
    parts = sorted({*live.versions, *replayed.versions})
    sides = {
        part: {"live": sorted(live.versions.get(part, ())), "replay": sorted(replayed.versions.get(part, ()))}
        for part in parts
    }
    return {part: found for part, found in sides.items() if found["live"] != found["replay"]}


def _described(one: Outcome) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "status": one.status,
        "code": one.code,
        "verdicts": list(one.labels),
        "text_sha256": one.digest,
        "tokens": one.tokens,
    }
    return shown if one.text is None else {**shown, "text": one.text}
