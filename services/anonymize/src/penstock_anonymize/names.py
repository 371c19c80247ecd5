"""Names of persons, places and organisations, addresses, dates of birth: what has no form, found by a model.

The model is the head of personal data of a folder of heads (`penstock.heads`). How sure it has to be is the folder's
matter, or a setting's. Where it fails a text counts as unsearched, never as clean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from penstock.contracts.errors import BackendUnavailable
from penstock.heads.kept import Kept
from penstock_anonymize.scanners import Span, touching

SETTING: Final = "PENSTOCK_ANONYMIZE_NAMES_MODEL"

_WORD = re.compile(r"[^\W_]")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


class Names(Protocol):
    """What finds names."""

    @property
    def types(self) -> tuple[str, ...]:
        """The entity types it finds."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever what it finds may change."""
        ...

    def find(self, text: str) -> Sequence[Span]:
        """Disjoint spans in order; raises BackendUnavailable where the text could not be searched."""
        ...


class ModelNames:
    """Implements `Names` with a folder of heads. Used by one thread."""

    def __init__(
        self,
        folder: Path,
        *,
        threads: int = 1,
        threshold: float | None = None,
        entities: Sequence[str] | None = None,
    ) -> None:
        """Open a folder; raises ConfigurationError that names the setting.

        `threshold`: the probability from which a token counts, instead of the folder's own for each type. `entities`
        limits what is looked for; types that the model does not know are left to others.
        """
        from penstock.heads.runtime import Heads  # noqa: PLC0415  # and with it a runtime that only a model needs

        self._heads = Heads(folder, threads, needs=("pii",), setting=SETTING)
        self.known = self._heads.names
        """Every type the model can find."""
        self.types: tuple[str, ...] = tuple(name for name in self.known if entities is None or name in entities)
        self._threshold = threshold
        given = "" if threshold is None else f" from {threshold:g}"
        self._kept = Kept(self._ask)
        self.version = f"names/{self._heads.digest} {','.join(self.types)}{given}"

    def find(self, text: str) -> Sequence[Span]:
        """As of `Names`. Numbers alone are left to the recognizers; a text that comes again costs nothing."""
        if not _WORD.search(text) or _NUMBER.fullmatch(text):
            return ()
        try:
            return self._kept(text)
        except Exception as error:  # noqa: BLE001  # whatever it raises, the text counts as unsearched
            # `from None`: the runtime's message may quote the text
            raise BackendUnavailable(
                f"the model of names failed on {len(text)} characters ({type(error).__name__})",
                code="names_failed",
                field=SETTING,
            ) from None

    def _ask(self, text: str) -> list[Span]:
        (spans,) = self._heads.pii([text], self._threshold, self.types)
        return [Span(span.start, span.end, span.label, span.score) for span in spans]


def apart(spans: Sequence[Span], taken: Sequence[Span], text: str) -> list[Span]:
    """The pieces of `spans` outside of `taken`, without the white space at their ends; both are disjoint, in order."""
    left: list[Span] = []
    for span in spans:
        start = span.start
        for other in touching(taken, span.start, span.end):
            left += _piece(span, start, other.start, text)
            start = other.end
        left += _piece(span, start, span.end, text)
    return left


def _piece(span: Span, start: int, end: int, text: str) -> list[Span]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return [Span(start, end, span.entity, span.score)] if _WORD.search(text, start, max(start, end)) else []
