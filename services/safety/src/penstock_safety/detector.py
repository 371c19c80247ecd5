"""The detector interface: windows of text in, scored spans out.

A detector knows nothing of policies, tenants or events. It is deterministic, keeps no text, and answers for
every window it is given or raises: there is no result that means "not looked at".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Finding:
    """A scored span. `start` and `end` are character offsets within the window, score is in 0..1."""

    label: str
    score: float
    start: int
    end: int
    detector: str


class Detector(Protocol):
    """What a detector implements."""

    @property
    def name(self) -> str:
        """The name policies use."""
        ...

    @property
    def digest(self) -> str:
        """Changes whenever the answers may change: of the rules, or of the model's files."""
        ...

    @property
    def labels(self) -> frozenset[str]:
        """Every label its findings may carry."""
        ...

    def detect(self, windows: Sequence[str]) -> Sequence[Sequence[Finding]]:
        """The findings of each window, in the order of the windows. May raise anything; callers fail closed."""
        ...


def digest_of(parts: Iterable[str | bytes]) -> str:
    """A short digest of rules or file contents: `sha256:` and 16 hexadecimal digits."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return f"sha256:{state.hexdigest()[:16]}"
