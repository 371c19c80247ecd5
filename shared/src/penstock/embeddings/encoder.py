"""An encoder in the Hugging Face layout: `config.json`, `tokenizer.json`, `model.onnx`.

The graph takes `input_ids`, `attention_mask` and perhaps `token_type_ids`, each int64 [batch, tokens], and gives
one vector for each token, float [batch, tokens, dimensions], as its first output. The embedding of a text is the
mean of its tokens' vectors, padding left out, at unit length (Reimers and Gurevych, Sentence-BERT, 2019). A graph
that pools by itself is not one of these.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

# the runtime reports usage to its maker unless told otherwise before the first import
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from penstock.contracts.errors import ConfigurationError
from penstock.embeddings.batches import batches
from penstock.models.digests import ENCODER_FILES, encoder_digest, sha256_of

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
        config = _config(folder)
        self._limit = _positions(config, folder)
        self._batch_tokens = batch_tokens
        self._tokenizer = _tokenizer(folder, self._limit if truncates else None)
        pad = config.get("pad_token_id")
        self._pad = pad if isinstance(pad, int) and pad >= 0 else 0
        self._session = _session(folder, threads)
        self._takes = _checked(self._session, folder)
        self.dimensions = _dimensions(self._session, folder)
        self.digest = encoder_digest({name: sha256_of(folder / name) for name in _names(folder)})

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


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name in ENCODER_FILES or ".onnx" in path.name]


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the encoder in {folder} cannot be read: config.json ({type(error).__name__}); it needs config.json, "
            "tokenizer.json and model.onnx in the Hugging Face layout"
        ) from error
    if not isinstance(config, dict):
        raise ConfigurationError(f"{path} holds no JSON object; export the encoder again")
    return config


def _positions(config: dict[str, Any], folder: Path) -> int:
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 3:
        raise ConfigurationError(f"{folder / 'config.json'}: max_position_embeddings is no number of tokens")
    return positions


def _tokenizer(folder: Path, most_tokens: int | None) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for a bad file
        raise ConfigurationError(
            f"the encoder in {folder} cannot be read: tokenizer.json ({type(error).__name__})"
        ) from error
    tokenizer.encode_special_tokens = True  # what stands in a text is text, whatever it spells
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if most_tokens is not None:
        tokenizer.enable_truncation(most_tokens)
    return tokenizer


def _session(folder: Path, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's errors share no base below Exception
        raise ConfigurationError(
            f"the encoder in {folder} cannot be opened: model.onnx ({type(error).__name__})"
        ) from error


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
