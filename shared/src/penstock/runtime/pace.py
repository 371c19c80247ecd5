"""How long calls take, and so which of the records that wait cannot be answered before their deadlines.

Where more comes than can be done, those whose turn it is have waited nearly as long as they may. Begun all the same,
each uses up the backend and expires halfway, and hardly any is completed. Calls are measured in classes of like
`max_tokens`; the time that one is given is the smoothed time and four times its mean deviation (as RFC 6298 has it
for retransmissions). Pure: the clock comes in from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.contracts.base import Message
from penstock.contracts.errors import Expired
from penstock.contracts.events import RequestScreened
from penstock.runtime.calls import Work
from penstock.runtime.stage import Outcome

_MEAN_WEIGHT = 1 / 8
_DEVIATION_WEIGHT = 1 / 4
_DEVIATIONS = 4
_CUT_OFF = 1.5
"""A call that was cut off would have taken longer; how much, it does not say."""


@dataclass(slots=True)
class _Measured:
    mean_s: float
    deviation_s: float


class Pace:
    """The times of one stage's calls."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._classes: dict[int, _Measured] = {}

    def ended(self, work: Work, outcome: Outcome, seconds: float) -> None:
        """A call ended so long after its start. Answers tell, and what was cut off by its deadline; no others."""
        known = self._classes.get(_class_of(work))
        if isinstance(outcome, Message) and seconds > 0:  # an answer that the ledger had took no time
            self._learn(_class_of(work), seconds)
        elif isinstance(outcome, Expired) and known is not None and seconds > known.mean_s:
            self._learn(_class_of(work), _CUT_OFF * seconds)

    def enough_s(self, work: Work) -> float:
        """The time in which a call for a record ends, but for few; 0 where none like it was measured."""
        known = self._classes.get(_class_of(work))
        return 0.0 if known is None else known.mean_s + _DEVIATIONS * known.deviation_s

    def too_late(self, work: Work, now_ms: int) -> Expired | None:
        """What to end a record with that cannot be answered any more; None where it can, or has no deadline."""
        deadline_ms = None if work.inbound.event is None else work.inbound.event.context.deadline_ms
        if deadline_ms is None:
            return None
        enough_ms = int(1000 * self.enough_s(work))
        if now_ms + enough_ms <= deadline_ms:
            return None
        return Expired(
            f"{max(0, deadline_ms - now_ms)} ms before the deadline its turn came in stage {self._stage}, where "
            f"answers take up to {enough_ms} ms now; allow more time or send less at once",
            field="header deadline",
            limit=deadline_ms,
        )

    def _learn(self, size: int, seconds: float) -> None:
        known = self._classes.get(size)
        if known is None:
            self._classes[size] = _Measured(seconds, seconds / 2)
            return
        known.deviation_s += _DEVIATION_WEIGHT * (abs(seconds - known.mean_s) - known.deviation_s)
        known.mean_s += _MEAN_WEIGHT * (seconds - known.mean_s)


def passed(stage: str, deadline_ms: int) -> Expired:
    """What to end a record with whose deadline has passed while it was in a stage."""
    return Expired(
        f"the deadline passed in stage {stage}; allow more time or send less at once",
        field="header deadline",
        limit=deadline_ms,
    )


def _class_of(work: Work) -> int:
    """Likes have the same power of two below their `max_tokens`."""
    event = work.inbound.event
    return event.parameters.max_tokens.bit_length() if isinstance(event, RequestScreened) else 0
