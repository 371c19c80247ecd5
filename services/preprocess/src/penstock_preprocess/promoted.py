"""The prompt side of the model that is promoted: read at start, and again when the alias points elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from penstock.contracts.adapters import ADAPTER, ADAPTER_BASE, ADAPTER_DIGEST
from penstock.models.entries import Entry
from penstock.models.errors import ModelError
from penstock.models.following import Count, Following
from penstock.models.manifest import Manifest
from penstock.models.registry import Registry
from penstock.models.watch import Stamp, Watch, stamp
from penstock_preprocess.model import PromptModel

_log = structlog.get_logger()

Adapters = Mapping[str, Mapping[str, str]]


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
        self._stamp: Stamp | None = None
        self._adapters: Adapters = {}
        self._model = self._following.value
        self._take()
        self._looked = monotonic()

    def __call__(self) -> PromptModel:
        """The model now. One caller in `poll_s` looks, and reads a new one's files; others go on with the old."""
        if self._monotonic() - self._looked >= self._poll_s and self._looking.acquire(blocking=False):
            try:
                self._following.look()
                self._take()
                self._looked = self._monotonic()
            finally:
                self._looking.release()
        return self._model

    def _take(self) -> None:
        """Take over the model that was loaded, with its adapters, which are looked for where any alias was moved."""
        now = stamp(self._registry)
        if now != self._stamp:
            self._stamp = now
            try:
                found = self._registry.adapters(self._following.entry.manifest.answers)
            except ModelError as error:  # those known go on
                _log.error("preprocess.adapters.refused", reason=error.message)
            else:
                self._adapters = {name: _versions(entry.manifest) for name, entry in sorted(found.items())}
        plain = self._following.value
        self._model = replace(plain, adapters=self._adapters) if self._adapters else plain

    def _load(self, entry: Entry) -> PromptModel:
        return PromptModel.from_folder(entry.folder, entry.manifest.name, also=self._other_names())

    def _other_names(self) -> tuple[str, ...]:
        """The alias, and the names of what it pointed at before: requests that name them are still served."""
        alias = self._registry.aliases().aliases.get(self._reference)
        if alias is None:
            return (self._reference,) if "@" not in self._reference else ()
        before = (self._registry.name_of(reference) for reference in reversed(alias.before))
        return (self._reference, *(name for name in before if name is not None))


def _versions(adapter: Manifest) -> dict[str, str]:
    """What an event says of an adapter that its request asks for."""
    if adapter.adapter is None or adapter.answers is None:
        raise ValueError(f"{adapter.reference} is no adapter")
    return {
        ADAPTER: adapter.reference,
        ADAPTER_DIGEST: adapter.answers,
        ADAPTER_BASE: adapter.adapter.base_answers,
    }
