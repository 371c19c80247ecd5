"""Several models behind one backend: new requests go to the promoted one, those under way end where they began.

A request whose prompt was rendered for another tokenizer or chat template goes to a model that has them: one that
still runs, else one that `models` is asked to load, the request being put off meanwhile. It loads nothing itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock.contracts.errors import Overloaded, StageError
from penstock_inference.backend import Backend, GenerationRequest, Piece, Prompts, Provenance
from penstock_inference.spans import PROVIDER

RETRY_AFTER_S = 2.0


@dataclass(slots=True, eq=False)
class Loaded:
    """A model that runs, what its prompts are made with, and the requests it has."""

    reference: str
    backend: Backend
    prompts: Prompts
    keys: set[int] = field(default_factory=set)
    idle_since: float = 0.0
    recalled: bool = False
    """Whether it was loaded for requests that are still to come."""


class SwitchingBackend:
    """Implements `backend.Backend`. `take`, `wanted`, `unknown` and `retire` may come from another thread."""

    def __init__(
        self,
        first: Loaded,
        *,
        linger_s: float = 60.0,
        ask: Callable[[], None] = lambda: None,
        ended: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` says that a model is wanted; all but the promoted one are kept for `linger_s` after their last use."""
        self.rows = first.backend.rows
        self.versions: Mapping[str, str] = {}  # each answer says which model made it
        self._ask = ask
        self._ended = ended
        self._linger_s = linger_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._current = first
        self._loaded = [first]
        self._by_key: dict[int, Loaded] = {}
        self._wanted: set[Prompts] = set()
        self._unknown: set[Prompts] = set()
        self._turn = 0

    @property
    def promoted(self) -> str:
        """The revision that requests go to now."""
        with self._lock:
            return self._current.reference

    # --- for whoever generates

    def add(self, request: GenerationRequest) -> int:
        """Queue a request with its model; the number of its prompt's tokens.

        Raises Overloaded where its model must be loaded first, StageError where no known model has its tokenizer.
        """
        with self._lock:
            loaded = self._for(request.prompts)
            if loaded is not None:
                loaded.keys.add(request.key)
        if loaded is None:
            self._ask()
            raise Overloaded(
                "the model that the prompt was rendered for is being loaded",
                code="model_loading",
                retry_after_s=RETRY_AFTER_S,
            )
        self._by_key[request.key] = loaded
        try:
            return loaded.backend.add(request)
        except BaseException:
            self._forget(request.key)
            raise

    def step(self) -> Sequence[Piece] | None:
        """A step of one model; they take turns where several have requests."""
        with self._lock:
            busy = [loaded for loaded in self._loaded if loaded.keys]
        if not busy:
            return ()
        self._turn += 1
        loaded = busy[self._turn % len(busy)]
        pieces = loaded.backend.step()
        if pieces is None:
            return None
        return [self._end(loaded, piece) if piece.finish_reason is not None else piece for piece in pieces]

    def cancel(self, key: int) -> None:
        """Give a request up."""
        loaded = self._by_key.get(key)
        if loaded is not None:
            loaded.backend.cancel(key)
            self._forget(key)

    def clear(self) -> None:
        """Give all requests of all models up."""
        with self._lock:
            loaded = list(self._loaded)
        for one in loaded:
            one.backend.clear()
        for key in list(self._by_key):
            self._forget(key)

    def wake(self) -> None:
        """Have a step that waits return."""
        with self._lock:
            loaded = list(self._loaded)
        for one in loaded:
            one.backend.wake()

    def close(self) -> None:
        """Let go of all models, and end whoever loads."""
        self._ended()
        with self._lock:
            loaded = list(self._loaded)
        for one in loaded:
            one.backend.close()

    # --- for whoever loads

    def take(self, loaded: Loaded, *, promoted: bool) -> None:
        """Another model runs; new requests go to it where it was promoted."""
        with self._lock:
            loaded.idle_since = self._monotonic()
            loaded.recalled = not promoted
            self._loaded.append(loaded)
            self._wanted = {prompts for prompts in self._wanted if not prompts.suit(loaded.prompts)}
            if promoted:
                self._current.idle_since = self._monotonic()
                self._current = loaded
                self._unknown.clear()

    def wanted(self) -> list[Prompts]:
        """What prompts wait for a model."""
        with self._lock:
            return list(self._wanted)

    def unknown(self, prompts: Prompts) -> None:
        """Say that no model for these prompts is known."""
        with self._lock:
            self._wanted.discard(prompts)
            self._unknown.add(prompts)

    def retire(self) -> list[str]:
        """Let go of models that nobody uses any more; their references.

        One whose prompts the promoted model takes goes at once, others after their time.
        """
        now = self._monotonic()

        def superseded(loaded: Loaded) -> bool:
            return loaded.prompts.alike(self._current.prompts) and not loaded.recalled

        with self._lock:
            gone = [
                loaded
                for loaded in self._loaded
                if loaded is not self._current
                and not loaded.keys
                and (superseded(loaded) or now - loaded.idle_since >= self._linger_s)
            ]
            self._loaded = [loaded for loaded in self._loaded if loaded not in gone]
        return [loaded.reference for loaded in gone]

    # --- within

    def _for(self, prompts: Prompts | None) -> Loaded | None:
        """The model for a prompt; None where it must be loaded first, which is then wanted."""
        if prompts is None or prompts.suit(self._current.prompts):
            return self._current
        for loaded in reversed(self._loaded):
            if prompts.suit(loaded.prompts):
                return loaded
        if prompts not in self._unknown:
            self._wanted.add(prompts)
            return None
        if prompts.model is not None:
            raise StageError(
                "the request asks for an adapter whose base model is not in the registry any more",
                code="adapter_of_another_model",
                field="model",
            )
        if prompts.tokenizer == self._current.prompts.tokenizer:
            return self._current  # another template around the same tokens
        raise StageError(
            "the prompt was rendered for a model that is not in the registry; give preprocess and inference the same "
            "PENSTOCK_MODEL and PENSTOCK_MODELS_DIR",
            code="model_gone",
        )

    def _end(self, loaded: Loaded, piece: Piece) -> Piece:
        self._forget(piece.key)
        return replace(piece, provenance=Provenance(PROVIDER, loaded.reference, versions=loaded.backend.versions))

    def _forget(self, key: int) -> None:
        with self._lock:
            loaded = self._by_key.pop(key, None)
            if loaded is not None:
                loaded.keys.discard(key)
                loaded.idle_since = self._monotonic()
