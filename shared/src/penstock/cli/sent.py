"""What became of the lines of one run: delivered, refused, answered, still awaited. Plain bookkeeping."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from penstock.contracts.results import RequestFinished


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that did not get to the topic."""

    line: int
    code: str
    message: str


@dataclass(slots=True)
class Sent:
    """The state of one run."""

    lines: int = 0
    delivered: int = 0
    refused: list[Refused] = field(default_factory=list)
    line_of: dict[str, int] = field(default_factory=dict)
    """Request id -> the first line that bore it."""
    results: dict[str, RequestFinished] = field(default_factory=dict)
    repeated: int = 0
    """Results beyond the first for one request: 0 unless exactly-once is off or broken."""
    duplicates: int = 0
    """Lines whose request id an earlier line bore: the pipeline gives them no result of their own."""
    _copies: Counter[str] = field(default_factory=Counter)
    _awaited: set[str] = field(default_factory=set)

    def published(self, request_id: str, line: int) -> None:
        """A record was handed to the producer."""
        if self._copies[request_id]:
            self.duplicates += 1
        self._copies[request_id] += 1
        self.line_of.setdefault(request_id, line)
        if request_id not in self.results:
            self._awaited.add(request_id)

    def refuse(self, refused: Refused, request_id: str | None = None) -> None:
        """A line was not published, or (with its request id) was and could not be delivered."""
        self.refused.append(refused)
        if request_id is None:
            return
        self._copies[request_id] -= 1
        if not self._copies[request_id]:
            self._awaited.discard(request_id)

    def answered(self, result: RequestFinished) -> bool:
        """Take a result in; True where it is the first one of a request of this run."""
        if result.id not in self.line_of:
            return False
        if result.id in self.results:
            self.repeated += 1
            return False
        self.results[result.id] = result
        self._awaited.discard(result.id)
        return True

    @property
    def waiting(self) -> bool:
        """Whether a result is still to come."""
        return bool(self._awaited)

    @property
    def missing(self) -> list[str]:
        """Request ids without a terminal result, in the order of their lines."""
        return sorted(self._awaited, key=lambda request_id: self.line_of[request_id])

    @property
    def statuses(self) -> dict[str, int]:
        """Status -> how many results, the most frequent first."""
        return dict(Counter(result.status for result in self.results.values()).most_common())

    @property
    def ok(self) -> bool:
        """Everything was delivered, and nothing is missing or repeated."""
        return not self.refused and not self._awaited and not self.repeated
