"""Which batches are settled so soon that they need no thread of their own.

Two hand-offs between threads cost a fraction of a millisecond, which counts where a hop takes one. While the
loop's own thread works it does not poll: only what is known to be quick may be done there.
"""

from __future__ import annotations

from typing import Final

MOST_S: Final = 0.01
"""A batch that may take longer goes to the other thread."""
MOST_BYTES: Final = 65_536
"""So does a larger one: what small records take says nothing of it."""
FORGET: Final = 0.9
"""From one batch to the next the slowest of late counts this much less."""


class Quick:
    """What a record of a stage was seen to take: the slowest of late, not the mean."""

    def __init__(self) -> None:
        self._record_s: float | None = None

    def expects(self, records: int, size: int) -> bool:
        """Whether so many records of so many bytes in all will be settled at once; False until one was measured."""
        return self._record_s is not None and size <= MOST_BYTES and records * self._record_s <= MOST_S

    def took(self, seconds: float, records: int) -> None:
        """A batch of so many took this long."""
        last = 0.0 if self._record_s is None else self._record_s * FORGET
        self._record_s = max(last, seconds / records)
