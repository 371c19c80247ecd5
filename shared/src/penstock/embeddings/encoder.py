"""An encoder in the Hugging Face layout: `config.json`, `tokenizer.json`, `model.onnx`.

The graph takes `input_ids`, `attention_mask` and perhaps `token_type_ids`, each int64 [batch, tokens], and gives
one vector for each token, float [batch, tokens, dimensions], as its first output. The embedding of a text is the
mean of its tokens' vectors, padding left out, at unit length (Reimers and Gurevych, Sentence-BERT, 2019). A graph
that pools by itself is not one of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.contracts.errors import ConfigurationError
from penstock.embeddings import opening
from penstock.embeddings.batches import batches

Embeddings = NDArray[np.float32]
"""[texts, dimensions], each row of length 1; 0 where a text has no tokens, or too many."""

_FEEDS: Final = ("input_ids", "attention_mask", "token_type_ids")
_SMALLEST: Final = 1e-12


class Encoder:
    """Embeds texts. Used by one thread; `digest` names what makes its vectors."""

    def __init__(self, folder: Path, *, threads: int = 1, truncates: bool = True, batch_tokens: int = 4_096) -> None:
        """Open a folder; raises ConfigurationError naming what is wrong.

        Of a text that is longer than the model takes only the beginning counts, or, where `truncates` is not set,
        nothing: its vector is 0. `threads` are those of a pass, `batch_tokens` the most tokens in one, padding
        included.
        """
        what = f"the encoder in {folder}"
        config = opening.read_config(folder, what)
        self._limit = opening.positions(config, what)
        self._batch_tokens = batch_tokens
        self._tokenizer = opening.open_tokenizer(folder, what)
        if truncates:
            self._tokenizer.enable_truncation(self._limit)
        pad = config.get("pad_token_id")
        self._pad = pad if isinstance(pad, int) and pad >= 0 else 0
        self._session = opening.open_session(folder / opening.GRAPH, threads, what)
        self._takes = _checked(self._session, folder)
        self.dimensions = _dimensions(self._session, folder)
        self.digest = opening.digest_of(folder)

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """One vector for each text, in order."""
        # one by one: the library's own batches would take all cores
        ids = [self._tokenizer.encode(text).ids for text in texts]
        found: Embeddings = np.zeros((len(texts), self.dimensions), np.float32)
        fit = [index for index, each in enumerate(ids) if len(each) <= self._limit]
        for chosen, width in batches([len(ids[index]) for index in fit], self._batch_tokens):
            indices = [fit[index] for index in chosen]
            found[indices] = self._run([ids[index] for index in indices], width)
        return found

    def _run(self, ids: Sequence[Sequence[int]], width: int) -> Embeddings:
        tokens = np.full((len(ids), width), self._pad, np.int64)
        mask = np.zeros((len(ids), width), np.int64)
        for row, each in enumerate(ids):
            tokens[row, : len(each)] = each
            mask[row, : len(each)] = 1
        feeds = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        (vectors,) = self._session.run(
            [self._session.get_outputs()[0].name], {name: feeds[name] for name in self._takes}
        )
        return pool(vectors, mask)


def pool(vectors: NDArray[Any], mask: NDArray[np.int64]) -> Embeddings:
    """The mean over the tokens that `mask` marks, at unit length.

    `vectors` are [batch, tokens, dimensions], `mask` is [batch, tokens]; what comes back is [batch, dimensions].
    """
    weights = mask[:, :, None].astype(np.float32)
    summed = (vectors.astype(np.float32, copy=False) * weights).sum(axis=1)
    mean = summed / np.maximum(weights.sum(axis=1), 1.0)
    unit: Embeddings = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), _SMALLEST)
    return unit


def _checked(session: Any, folder: Path) -> tuple[str, ...]:
    takes = tuple(each.name for each in session.get_inputs())
    if not {"input_ids", "attention_mask"} <= set(takes) <= set(_FEEDS):
        raise ConfigurationError(
            f"{folder / 'model.onnx'} takes {', '.join(sorted(takes))}, not input_ids, attention_mask and perhaps "
            "token_type_ids: it is no encoder"
        )
    return takes


def _dimensions(session: Any, folder: Path) -> int:
    shape = session.get_outputs()[0].shape
    if len(shape) != 3 or not isinstance(shape[2], int):
        raise ConfigurationError(
            f"{folder / 'model.onnx'}: its first output has no vector of a known size for each token; export the "
            "encoder without a pooling layer"
        )
    return int(shape[2])
