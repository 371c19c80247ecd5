"""The model that is promoted, loaded and followed: a thread loads the next beside the one that runs.

Which of several takes a request is `switching`'s work; what a revision is, the registry's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from penstock.models.entries import Entry
from penstock.models.errors import ModelDamaged
from penstock.models.following import Count, Following
from penstock.models.registry import Registry
from penstock.models.watch import Watch
from penstock.runtime.logging import frames
from penstock_inference.backend import Backend, EngineName, Prompts
from penstock_inference.opening import open_folder
from penstock_inference.prefixes import Counted, count_nothing
from penstock_inference.runner import Limits
from penstock_inference.switching import Loaded, SwitchingBackend

_log = structlog.get_logger()

LoadModel = Callable[[Entry], Backend]
_ENDING_S = 5.0
_FAILED_S = 30.0
"""How long a model that cannot be loaded is left alone."""


class Models:
    """Whatever an alias points at, loaded in `backend`, which ends the thread that follows it when it is closed."""

    def __init__(
        self,
        registry: Registry,
        reference: str,
        load: LoadModel,
        *,
        count: Count = lambda _: None,
        poll_s: float = 1.0,
        linger_s: float = 60.0,
        alone: bool = False,
    ) -> None:
        """Load what `reference` points at now; raises ConfigurationError where that cannot be.

        `alone`: nothing is loaded for a prompt but what `reference` points at or pointed at before.
        """
        self._registry = registry
        self._reference = reference
        self._open = load
        self._alone = alone
        self._count = count
        self._poll_s = poll_s
        self._following = Following(Watch(registry, reference), self._load, count)
        self._failed: dict[Prompts, float] = {}
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self.backend = SwitchingBackend(self._following.value, linger_s=linger_s, ask=self._wake.set, ended=self.close)
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; a model that it is loading may take longer than a process has to stop."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(_ENDING_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._poll_s)
            self._wake.clear()
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001  # what is served goes on, and the next look may succeed
                _log.error("inference.models.failed", error_type=type(error).__name__, frames=frames(error))

    def _turn(self) -> None:
        if self._following.look():
            self.backend.take(self._following.value, promoted=True)
            self._failed.clear()
        for prompts in self.backend.wanted():
            if time.monotonic() - self._failed.get(prompts, -_FAILED_S) >= _FAILED_S:
                self._load_for(prompts)
        for reference in self.backend.retire():
            _log.info("inference.model.retired", model=reference)

    def _load_for(self, prompts: Prompts) -> None:
        """Load a model for prompts that were rendered for another than the promoted one."""
        entry = self._with(prompts)
        if entry is None:
            self.backend.unknown(prompts)
            return
        try:
            loaded = self._load(entry)
        except Exception as error:  # noqa: BLE001  # its requests go on waiting, the others go on
            self._failed[prompts] = time.monotonic()
            self._count("refused")
            _log.error("inference.model.refused", model=entry.reference, error_type=type(error).__name__)
            return
        self._count("loaded")
        _log.info("inference.model.recalled", model=entry.reference)
        self.backend.take(loaded, promoted=False)

    def _with(self, prompts: Prompts) -> Entry | None:
        """The revision for these prompts that was promoted last, else the newest."""
        entries = [entry for entry in self._registry.entries() if entry.manifest.format == "onnx-genai"]
        found = {entry.reference: entry for entry in entries if prompts.suit(_prompts(entry))}
        alias = self._registry.aliases().aliases.get(self._reference)
        promoted = (alias.current, *reversed(alias.before)) if alias is not None else ()
        for reference in promoted:
            if reference in found:
                return found[reference]
        if self._alone:
            return None
        return max(found.values(), key=lambda entry: entry.manifest.added_ms, default=None)

    def _load(self, entry: Entry) -> Loaded:
        return Loaded(entry.reference, self._open(entry), _prompts(entry))


def load_local(
    entry: Entry,
    limits: Limits,
    counted: Counted = count_nothing,
    engine: EngineName = "penstock",
    registry: Registry | None = None,
) -> Backend:
    """Open a revision; raises ModelDamaged where its files are not those that were added.

    `registry` has the model's adapters.
    """
    backend = open_folder(entry.folder, limits, counted, engine, registry)
    if backend.versions["model"] != entry.manifest.answers:
        raise ModelDamaged(f"{entry.reference} has changed since it was added; `penstock models verify` says where")
    return backend


def _prompts(entry: Entry) -> Prompts:
    return Prompts(entry.manifest.tokenizer, entry.manifest.chat_template, entry.manifest.answers)
