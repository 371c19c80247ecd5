"""A finished folder of heads under ONNX Runtime: texts to probabilities, spans and vectors. Needs no torch.

Of long texts each window goes through the model; the highest probability of any window is the text's. Texts of about
one length go through together, so that little of a pass is padding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
from numpy.typing import NDArray

from penstock.embeddings.batches import batches
from penstock_tuning.data.example import Span
from penstock_tuning.encoder.tokenizer import load_tokenizer
from penstock_tuning.heads.encode import cuts, framed, pair_windows

Probabilities = NDArray[np.float32]
_BATCH_TOKENS = 4096


class Heads:
    """Encoder and heads. Used by one thread."""

    def __init__(self, folder: Path, threads: int = 1, graph: str | Path = "model.onnx") -> None:
        """Open a folder. `graph`: another one beside the folder's configuration, such as that in fp32."""
        import onnxruntime

        config = json.loads((folder / "config.json").read_text("utf-8"))
        self.settings: dict[str, Any] = config["heads"]
        self._size, self._overlap = self.settings["window_tokens"], self.settings["overlap_tokens"]
        self._tokenizer = load_tokenizer(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(folder / graph), options, providers=["CPUExecutionProvider"])
        # The other heads' nodes are left out of a pass.
        self._run_options = onnxruntime.RunOptions()
        self._run_options.only_execute_path_to_fetches = True

    @property
    def labels(self) -> tuple[str, ...]:
        """Columns of `safety`."""
        return tuple(self.settings["safety"]["labels"])

    @property
    def flag(self) -> NDArray[np.float32]:
        """`[labels]`: the default threshold of each safety label."""
        return self._limits("flag")

    @property
    def block(self) -> NDArray[np.float32]:
        """`[labels]`: thresholds that a tenth as many ordinary texts reach."""
        return self._limits("block")

    def safety(self, texts: Sequence[str]) -> Probabilities:
        """`[texts, labels]`: the highest probability of any window."""
        rows, owner = self._windows(texts)
        found = np.zeros((len(texts), len(self.labels)), np.float32)
        for index, row in enumerate(self._pass("safety", rows)):
            np.maximum(found[owner[index]], row, out=found[owner[index]])
        return found

    def entailment(self, responses: Sequence[str], evidence: Sequence[str]) -> Probabilities:
        """`[pairs]`: whether a response follows from its evidence; the highest of any window of it."""
        rows, owner = [], []
        for index, (response, pair) in enumerate(zip(responses, evidence, strict=True)):
            for ids in pair_windows(self.ids(response), self.ids(pair), self._size, self._overlap):
                rows.append(ids)
                owner.append(index)
        found = np.zeros(len(responses), np.float32)
        for index, row in enumerate(self._pass("entailment", rows)):
            found[owner[index]] = max(found[owner[index]], row[0])
        return found

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`[texts, dimensions]`, each of length 1; of a text longer than a window its beginning."""
        found = np.zeros((len(texts), self.settings["similarity"]["dimensions"]), np.float32)
        rows = [framed(self.ids(text)[: self._size - 2]) for text in texts]
        for index, row in enumerate(self._pass("embedding", rows)):
            found[index] = row
        return found

    def outputs(self, ids: Sequence[int]) -> dict[str, NDArray[np.float32]]:
        """Every output of the graph for one row of tokens, by name."""
        row = np.array([ids], np.int64)
        names = [one.name for one in self._session.get_outputs()]
        found = self._session.run(names, {"input_ids": row, "attention_mask": np.ones_like(row)})
        return {name: value[0] for name, value in zip(names, found, strict=True)}

    def tags(self, texts: Sequence[str]) -> list[tuple[list[tuple[int, int]], Probabilities]]:
        """For each text its tokens' offsets in code points and their probabilities `[tokens, classes]`.

        A token that two windows see has the mean of both.
        """
        encoded = [self._tokenizer.encode(text, add_special_tokens=False) for text in texts]
        rows, owner = [], []
        for index, one in enumerate(encoded):
            for begin, end in cuts(len(one.ids), self._size - 2, self._overlap):
                rows.append(framed(one.ids[begin:end]))
                owner.append((index, begin, end))
        classes = len(self.settings["pii"]["labels"])
        summed = [np.zeros((len(one.ids), classes), np.float32) for one in encoded]
        seen = [np.zeros((len(one.ids), 1), np.float32) for one in encoded]
        for (index, begin, end), row in zip(owner, self._pass("pii", rows), strict=True):
            summed[index][begin:end] += row[1:-1]
            seen[index][begin:end] += 1
        pairs = zip(encoded, summed, seen, strict=True)
        return [(one.offsets, (total / np.maximum(count, 1)).astype(np.float32)) for one, total, count in pairs]

    def pii(self, texts: Sequence[str]) -> list[list[Span]]:
        """Names and the like of each text, in order, disjoint, of whole words."""
        labels = self.settings["pii"]["labels"][1:]
        limits = np.array([self.settings["pii"]["thresholds"][label] for label in labels], np.float32)
        return [
            spans_of(text, offsets, probabilities[:, 1:], labels, limits)
            for text, (offsets, probabilities) in zip(texts, self.tags(texts), strict=True)
        ]

    def _limits(self, which: str) -> NDArray[np.float32]:
        given = self.settings["safety"]["thresholds"]
        return np.array([given[label][which] for label in self.labels], np.float32)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without the special ones."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _windows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        rows, owner = [], []
        for index, text in enumerate(texts):
            ids = self.ids(text)
            for begin, end in cuts(len(ids), self._size - 2, self._overlap):
                rows.append(framed(ids[begin:end]))
                owner.append(index)
        return rows, owner

    def _pass(self, output: str, rows: Sequence[Sequence[int]]) -> Iterator[NDArray[np.float32]]:
        """An output of each row, in order, padding cut off where it has tokens."""
        found: list[NDArray[np.float32] | None] = [None] * len(rows)
        for indices, width in batches([len(row) for row in rows], _BATCH_TOKENS):
            ids, mask = np.zeros((len(indices), width), np.int64), np.zeros((len(indices), width), np.int64)
            for place, index in enumerate(indices):
                ids[place, : len(rows[index])] = rows[index]
                mask[place, : len(rows[index])] = 1
            (result,) = self._session.run([output], {"input_ids": ids, "attention_mask": mask}, self._run_options)
            for place, index in enumerate(indices):
                found[index] = result[place, : len(rows[index])] if result.ndim == 3 else result[place]
        for row in found:
            assert row is not None
            yield row


def spans_of(
    text: str,
    offsets: Sequence[tuple[int, int]],
    probabilities: Probabilities,
    labels: Sequence[str],
    limits: NDArray[np.float32],
) -> list[Span]:
    """Neighbouring tokens of one label as a span, widened to whole words.

    Args:
        text: the text.
        offsets: of its tokens, in code points.
        probabilities: `[tokens, labels]`.
        labels: the names of the columns.
        limits: `[labels]`: from which probability on a token has a label; of several the most probable.
    """
    reached = np.where(probabilities >= limits, probabilities, 0.0)
    spans: list[Span] = []
    for (start, end), row in zip(offsets, reached, strict=True):
        if not row.any() or start == end:
            continue
        label = labels[int(row.argmax())]
        first, last = _word(text, start, end)
        between = text[spans[-1].end : first] if spans else "-"
        if spans and (spans[-1].end > first or (spans[-1].label == label and not between.strip())):
            spans[-1] = Span(spans[-1].start, max(last, spans[-1].end), spans[-1].label)
        else:
            spans.append(Span(first, last, label))
    return spans


def _word(text: str, start: int, end: int) -> tuple[int, int]:
    """The place widened to the letters and digits around it, if it ends in the middle of a word."""
    while start > 0 and text[start].isalnum() and text[start - 1].isalnum():
        start -= 1
    while end < len(text) and text[end - 1].isalnum() and text[end].isalnum():
        end += 1
    return start, end
