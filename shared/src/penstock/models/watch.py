"""Noticing that an alias points elsewhere, at the price of one `stat` a look."""

from __future__ import annotations

from penstock.models.aliases import ALIASES_FILE
from penstock.models.entries import Entry
from penstock.models.errors import ModelRefused
from penstock.models.registry import Registry

Stamp = tuple[int, int, int]


def stamp(registry: Registry) -> Stamp | None:
    """Something that differs once any alias was moved; None where none ever was."""
    try:
        found = (registry.root / ALIASES_FILE).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


class Watch:
    """One alias of a registry, as a service follows it. Used by one thread."""

    def __init__(self, registry: Registry, reference: str) -> None:
        """`reference` is an alias, or a model, which then never changes."""
        self._registry = registry
        self._reference = reference
        self._stamp: Stamp | None = None

    def first(self) -> Entry:
        """Where it points now; raises ModelError."""
        self._stamp = stamp(self._registry)
        return self._find()

    def changed(self, serving: str) -> Entry | None:
        """Where it points, once after each change that leads away from `serving`; raises ModelError, once likewise."""
        now = stamp(self._registry)
        if now == self._stamp:
            return None
        self._stamp = now  # before reading: a change that comes meanwhile is seen at the next look
        entry = self._find()
        return entry if entry.reference != serving else None

    def _find(self) -> Entry:
        entry = self._registry.find(self._reference)
        if entry.known is not None and entry.known.adapter is not None:
            raise ModelRefused(f"{entry.reference} is an adapter: PENSTOCK_MODEL names its base, and requests name it")
        return entry
