"""The prompt side of the model that is promoted: read at start, and again when the alias points elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from penstock.models.following import Count, Following
from penstock.models.registry import Entry, Registry
from penstock.models.watch import Watch
from penstock_preprocess.model import PromptModel


class PromotedModel:
    """Called for the model to render for; any thread may. At most every `poll_s` it looks at the alias."""

    def __init__(
        self,
        registry: Registry,
        reference: str,
        *,
        count: Count = lambda _: None,
        poll_s: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read what `reference` points at now; raises ConfigurationError where that cannot be."""
        self._registry = registry
        self._reference = reference
        self._poll_s = poll_s
        self._monotonic = monotonic
        self._looking = threading.Lock()
        self._following = Following(Watch(registry, reference), self._load, count)
        self._looked = monotonic()

    def __call__(self) -> PromptModel:
        """The model now. One caller in `poll_s` looks, and reads a new one's files; others go on with the old."""
        if self._monotonic() - self._looked >= self._poll_s and self._looking.acquire(blocking=False):
            try:
                self._following.look()
                self._looked = self._monotonic()
            finally:
                self._looking.release()
        return self._following.value

    def _load(self, entry: Entry) -> PromptModel:
        return PromptModel.from_folder(entry.folder, entry.manifest.name, also=self._other_names())

    def _other_names(self) -> tuple[str, ...]:
        """The alias, and the names of what it pointed at before: requests that name them are still served."""
        alias = self._registry.aliases().aliases.get(self._reference)
        if alias is None:
            return (self._reference,) if "@" not in self._reference else ()
        before = (self._registry.name_of(reference) for reference in reversed(alias.before))
        return (self._reference, *(name for name in before if name is not None))
