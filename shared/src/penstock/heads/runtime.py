"""A finished folder of heads, opened and run.

Of long texts each window goes through the model; the highest probability of any window is the text's. A pass has one
window: int8 graphs scale their activations by all that is in a pass, so what goes through beside a text would change
its answer, and on processors a pass of several is no faster (docs/adr/0035). Lone surrogates, which have no bytes, are
read as replacement characters: offsets stay those of the text as it was given.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from penstock.contracts.errors import ConfigurationError
from penstock.embeddings import opening
from penstock.heads import config as configs
from penstock.heads.config import HeadsConfig
from penstock.heads.spans import Probabilities, Span, spans_of
from penstock.heads.windows import (
    FRAME_TOKENS,
    SEPARATOR_ID,
    START_ID,
    cuts,
    framed,
    pair_windows,
)
from penstock.models.digests import sha256_of

Head = Literal["safety", "pii", "entailment", "similarity"]

OUTPUTS: Final[dict[Head, tuple[str, ...]]] = {
    "safety": ("safety", "safety_tokens"),
    "pii": ("pii",),
    "entailment": ("entailment",),
    "similarity": ("embedding",),
}
_NEVER = 2.0
"""A threshold that no probability reaches."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_FRAME = {"[CLS]": START_ID, "[SEP]": SEPARATOR_ID}


@dataclass(frozen=True, slots=True)
class Screened:
    """What the safety head says of one window of a text."""

    offsets: Sequence[tuple[int, int]]
    """Of the window's tokens, in code points of the text."""
    probabilities: Probabilities
    """`[labels]` of the window."""
    tokens: Probabilities
    """`[tokens, labels]`."""


class Heads:
    """Encoder and heads. Used by one thread; `digest` names what makes the answers."""

    def __init__(
        self,
        folder: Path,
        threads: int = 1,
        *,
        needs: Sequence[Head] = (),
        setting: str | None = None,
        graph: Path | None = None,
    ) -> None:
        """Open a folder; raises ConfigurationError that says what is wrong, and names the `setting` that led there.

        `needs`: the heads that have to be there, with thresholds. `graph`: another one than the folder's, such as that
        in fp32, whose digest nobody wrote down. `threads` are those of a pass.
        """
        what = f"{setting}: the heads in {folder}" if setting else f"the heads in {folder}"
        whole = opening.read_config(folder, what)
        self.config: HeadsConfig = configs.parse(whole, what)
        self._size, self._overlap = self.config.window_tokens, self.config.overlap_tokens
        if self._size > opening.positions(whole, what):
            raise ConfigurationError(f"{what} cannot be used: windows are longer than the encoder reads")
        self._tokenizer = opening.open_tokenizer(folder, what)
        for token, index in _FRAME.items():
            if self._tokenizer.token_to_id(token) != index:
                raise ConfigurationError(f"{what} cannot be used: {token} of {opening.TOKENIZER} is not token {index}")
        if graph is None:
            _check_digest(folder, self.config, what)
        self._session = opening.open_session(graph or folder / opening.GRAPH, threads, what)
        self._outputs = [output.name for output in self._session.get_outputs()]
        for head in needs:
            self._check(head, what)
        # The other heads' nodes are left out of a pass.
        self._run_options = opening.part_alone()
        self.digest = opening.digest_of(folder)

    @property
    def labels(self) -> tuple[str, ...]:
        """Columns of `safety`; none where it has no such head."""
        return self.config.safety.labels if self.config.safety else ()

    @property
    def flag(self) -> NDArray[np.float32]:
        """`[labels]`: the default threshold of each safety label."""
        given = self.config.safety.thresholds if self.config.safety else {}
        return np.array([given[label].flag for label in self.labels], np.float32)

    @property
    def block(self) -> NDArray[np.float32]:
        """`[labels]`: thresholds that a tenth as many ordinary texts reach."""
        given = self.config.safety.thresholds if self.config.safety else {}
        return np.array([given[label].block for label in self.labels], np.float32)

    @property
    def names(self) -> tuple[str, ...]:
        """The kinds of personal data; none where it has no such head."""
        return self.config.pii.labels[1:] if self.config.pii else ()

    def safety(self, texts: Sequence[str]) -> Probabilities:
        """`[texts, labels]`: the highest probability of any window."""
        rows, owner = [], []
        for index, text in enumerate(texts):
            ids = self.ids(text)
            for begin, end in cuts(len(ids), self._size - FRAME_TOKENS, self._overlap):
                rows.append(framed(ids[begin:end]))
                owner.append(index)
        found = np.zeros((len(texts), len(self.labels)), np.float32)
        for index, (row,) in zip(owner, self._pass(("safety",), rows), strict=True):
            np.maximum(found[index], row, out=found[index])
        return found

    def screen(self, texts: Sequence[str]) -> list[list[Screened]]:
        """What the safety head says of each window of each text; nothing of a text without tokens."""
        rows, owner = [], []
        for index, text in enumerate(texts):
            encoded = self._tokenizer.encode(_readable(text), add_special_tokens=False)
            if encoded.ids:
                offsets = encoded.offsets
                for begin, end in cuts(len(encoded.ids), self._size - FRAME_TOKENS, self._overlap):
                    rows.append(framed(encoded.ids[begin:end]))
                    owner.append((index, offsets[begin:end]))
        found: list[list[Screened]] = [[] for _ in texts]
        passed = self._pass(("safety", "safety_tokens"), rows)
        for (index, offsets), (row, tokens) in zip(owner, passed, strict=True):
            found[index].append(Screened(offsets, row, tokens[1:-1]))
        return found

    def entailment(self, responses: Sequence[str], evidence: Sequence[str]) -> Probabilities:
        """`[pairs]`: whether a response follows from its evidence; the highest of any window of it."""
        rows, owner = [], []
        for index, (response, pair) in enumerate(zip(responses, evidence, strict=True)):
            for ids in pair_windows(self.ids(response), self.ids(pair), self._size, self._overlap):
                rows.append(ids)
                owner.append(index)
        found = np.zeros(len(responses), np.float32)
        for index, (row,) in zip(owner, self._pass(("entailment",), rows), strict=True):
            found[index] = max(found[index], row[0])
        return found

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`[texts, dimensions]`, each of length 1; of a text longer than a window its beginning."""
        dimensions = self.config.similarity.dimensions if self.config.similarity else 0
        found = np.zeros((len(texts), dimensions), np.float32)
        rows = [framed(self.ids(text)[: self._size - FRAME_TOKENS]) for text in texts]
        for index, (row,) in enumerate(self._pass(("embedding",), rows)):
            found[index] = row
        return found

    def outputs(self, ids: Sequence[int]) -> dict[str, NDArray[np.float32]]:
        """Every output of the graph for one row of tokens, by name."""
        row = np.array([ids], np.int64)
        found = self._session.run(self._outputs, {"input_ids": row, "attention_mask": np.ones_like(row)})
        return {name: value[0] for name, value in zip(self._outputs, found, strict=True)}

    def tags(self, texts: Sequence[str]) -> list[tuple[list[tuple[int, int]], Probabilities]]:
        """For each text its tokens' offsets in code points and their probabilities `[tokens, classes]`.

        A token that two windows see has the mean of both.
        """
        encoded = [self._tokenizer.encode(_readable(text), add_special_tokens=False) for text in texts]
        rows, owner = [], []
        for index, one in enumerate(encoded):
            ids = one.ids
            for begin, end in cuts(len(ids), self._size - FRAME_TOKENS, self._overlap):
                if end:
                    rows.append(framed(ids[begin:end]))
                    owner.append((index, begin, end))
        classes = len(self.names) + 1
        summed = [np.zeros((len(one), classes), np.float32) for one in encoded]
        seen = [np.zeros((len(one), 1), np.float32) for one in encoded]
        for (index, begin, end), (row,) in zip(owner, self._pass(("pii",), rows), strict=True):
            summed[index][begin:end] += row[1:-1]
            seen[index][begin:end] += 1
        pairs = zip(encoded, summed, seen, strict=True)
        return [(one.offsets, (total / np.maximum(count, 1)).astype(np.float32)) for one, total, count in pairs]

    def pii(
        self, texts: Sequence[str], threshold: float | None = None, only: Collection[str] | None = None
    ) -> list[list[Span]]:
        """Names and the like of each text, in order, disjoint, of whole words.

        `threshold` replaces the folder's; `only` limits what is looked for to some of `names`.
        """
        given = self.config.pii.thresholds if self.config.pii else {}
        wanted = {name: given[name] if threshold is None else threshold for name in self.names}
        limits = np.array([wanted[name] if only is None or name in only else _NEVER for name in self.names], np.float32)
        return [
            spans_of(text, offsets, probabilities[:, 1:], self.names, limits)
            for text, (offsets, probabilities) in zip(texts, self.tags(texts), strict=True)
        ]

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without the special ones."""
        return list(self._tokenizer.encode(_readable(text), add_special_tokens=False).ids)

    def _pass(self, outputs: Sequence[str], rows: Iterable[Sequence[int]]) -> Iterator[tuple[NDArray[np.float32], ...]]:
        """Outputs of each row, in order."""
        for row in rows:
            ids = np.array([row], np.int64)
            feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            yield tuple(one[0] for one in self._session.run(outputs, feeds, self._run_options))

    def _check(self, head: Head, what: str) -> None:
        lacking = [name for name in OUTPUTS[head] if name not in self._outputs]
        if lacking:
            raise ConfigurationError(
                f"{what} lack {', '.join(lacking)}: they were trained without that task; export them with it"
            )
        bare: list[str] = [head] if getattr(self.config, head) is None else []
        if head != "similarity":
            bare = configs.without_thresholds(self.config, head)
        if head == "safety" and (self.config.safety_tokens is None or self.config.safety_tokens.labels != self.labels):
            bare.append("safety_tokens")
        if bare:
            raise ConfigurationError(f"{what} lack in config.json what says how to use {', '.join(bare)}; export again")


def _readable(text: str) -> str:
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _check_digest(folder: Path, config: HeadsConfig, what: str) -> None:
    if config.model_sha256 is None:
        raise ConfigurationError(f"{what} cannot be used: config.json has no heads.model_sha256; export them again")
    try:
        found = sha256_of(folder / opening.GRAPH)
    except OSError as error:
        raise ConfigurationError(f"{what} cannot be read: {opening.GRAPH} ({type(error).__name__})") from error
    if found != config.model_sha256:
        raise ConfigurationError(
            f"{what} do not match their config.json: {opening.GRAPH} has another SHA-256; export both again"
        )
