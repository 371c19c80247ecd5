"""How fast a run is and when it ends, from the clock it is given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

_WINDOW = 20


class Pace:
    """Tokens a second over the last reports, and the time that is left."""

    def __init__(self, done: int, total: int, clock: Callable[[], float] = monotonic) -> None:
        """Begin with `done` of `total` tokens; these say nothing of the rate."""
        self._total = total
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque([(clock(), done)], maxlen=_WINDOW)

    def report(self, done: int) -> dict[str, float]:
        """Fields of a log event: `tokens_per_second`, `seconds_left`, `done_percent`."""
        self._seen.append((self._clock(), done))
        (began, first), (now, _) = self._seen[0], self._seen[-1]
        rate = (done - first) / max(now - began, 1e-9)
        return {
            "tokens_per_second": round(rate),
            "seconds_left": round((self._total - done) / rate) if rate else -1,
            "done_percent": round(100 * done / self._total, 1),
        }
