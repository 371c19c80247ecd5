"""What an alias points at, loaded: the new one beside the old, and the old one kept where the new cannot be loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import structlog

from penstock.contracts.errors import PenstockError
from penstock.models.entries import Entry
from penstock.models.watch import Watch

_log = structlog.get_logger()

T = TypeVar("T")
Outcome = Literal["loaded", "refused"]
Count = Callable[[Outcome], None]
"""Told of each revision that was loaded, or that could not be."""


class Following(Generic[T]):
    """One alias and what `load` makes of the revision it points at. Used by one thread."""

    def __init__(self, watch: Watch, load: Callable[[Entry], T], count: Count) -> None:
        """Loads what the alias points at now; raises what `load` raises."""
        self._watch = watch
        self._load = load
        self._count = count
        self.entry = watch.first()
        self.value = load(self.entry)
        self._say("loaded", self.entry.reference)

    def look(self) -> bool:
        """Load what the alias points at where that has changed; whether there is something new.

        What cannot be loaded is logged and counted, and tried again at the alias's next change.
        """
        reference = None
        try:
            entry = self._watch.changed(self.entry.reference)
            if entry is None:
                return False
            reference = entry.reference
            value = self._load(entry)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with a new model, the old one goes on
            self._say("refused", reference, error)
            return False
        self.entry, self.value = entry, value
        self._say("loaded", entry.reference)
        return True

    def _say(self, outcome: Outcome, reference: str | None, error: Exception | None = None) -> None:
        self._count(outcome)
        if error is None:
            _log.info("models.revision.loaded", model=reference)
            return
        reason = error.message if isinstance(error, PenstockError) else type(error).__name__
        _log.error("models.revision.refused", model=reference, serving=self.entry.reference, reason=reason)
