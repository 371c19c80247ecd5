"""Noticing that an alias points elsewhere, at the price of one `stat` a look."""

from __future__ import annotations

from penstock.models.aliases import ALIASES_FILE
from penstock.models.registry import Entry, Registry

_Stamp = tuple[int, int, int]


class Watch:
    """One alias of a registry, as a service follows it. Used by one thread."""

    def __init__(self, registry: Registry, reference: str) -> None:
        """`reference` is an alias, or a model, which then never changes."""
        self._registry = registry
        self._reference = reference
        self._stamp: _Stamp | None = None

    def first(self) -> Entry:
        """Where it points now; raises ModelError."""
        self._stamp = self._look()
        return self._registry.find(self._reference)

    def changed(self, serving: str) -> Entry | None:
        """Where it points, once after each change that leads away from `serving`; raises ModelError, once likewise."""
        stamp = self._look()
        if stamp == self._stamp:
            return None
        self._stamp = stamp  # before reading: a change that comes meanwhile is seen at the next look
        entry = self._registry.find(self._reference)
        return entry if entry.reference != serving else None

    def _look(self) -> _Stamp | None:
        try:
            found = (self._registry.root / ALIASES_FILE).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size
