"""Names by logistic regressions over features of a token and its neighbours, one for each tag.

Tags are `B` and `I` of each label. A token is a negative of a label only where its source marks every occurrence of it,
or where it is marked as something else. The best sequence is found by Viterbi's algorithm; an `I` follows a `B` or an
`I` of its own label.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix  # type: ignore[import-untyped,import-not-found,unused-ignore]  # it has no types
from sklearn.linear_model import SGDClassifier

from penstock.heads.spans import Span
from penstock_tuning.data.example import PII, Example
from penstock_tuning.evaluate.metrics import span_counts

BUCKETS = 1 << 19
TAGS = tuple(f"{part}-{label}" for label in PII for part in "BI")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_OUTSIDE, _UNKNOWN = 0, -1
READINESS = (0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0)
"""What is tried to add to the log score of being outside."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class LinearNames:
    """One column of weights for each tag."""

    table: Floats
    """`[BUCKETS, len(TAGS)]`."""
    bias: Floats
    outside: float = 0.0
    """Added to the log score of being outside: the lower, the more is found."""

    def __call__(self, texts: Sequence[str]) -> list[list[Span]]:
        """The names of each text, in code points."""
        found = []
        for text in texts:
            tokens, scores = self.scores(text)
            found.append(spans(tokens, scores, self.outside))
        return found

    def scores(self, text: str) -> tuple[list[re.Match[str]], NDArray[np.float64]]:
        """The tokens, and `[tokens, 1 + len(TAGS)]` log scores, those of being outside first."""
        tokens = list(_TOKEN.finditer(text))
        if not tokens:
            return [], np.empty((0, 1 + len(TAGS)))
        rows = features([match.group() for match in tokens])
        logits = np.array([self.table[row].sum(axis=0) / len(row) ** 0.5 for row in rows]) + self.bias
        inside = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        outside = np.prod(1 - inside, axis=1, keepdims=True)
        return tokens, np.log(np.maximum(np.concatenate([outside, inside], axis=1), 1e-12))

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        np.savez_compressed(path, table=self.table, bias=self.bias, outside=self.outside)

    @classmethod
    def load(cls, path: Path) -> LinearNames:
        """The inverse of `save`."""
        with np.load(path) as stored:
            return cls(stored["table"], stored["bias"], float(stored["outside"]))


def fit(train: Iterable[Example], chosen_by: Sequence[Example], seed: int) -> LinearNames:
    """Train on all tokens of the texts; how readily something is found is chosen by F1 on texts of other sources."""
    rows: list[NDArray[np.int32]] = []
    tags: list[list[int]] = []
    for example in train:
        tokens = list(_TOKEN.finditer(example.text))
        rows += features([match.group() for match in tokens])
        tags += _tags(example, tokens)
    sizes = np.array([len(row) for row in rows])
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    columns = np.concatenate([np.empty(0, np.int32), *rows])
    values = np.repeat(sizes**-0.5, sizes).astype(np.float32)
    matrix = csr_matrix((values, columns, bounds), shape=(len(rows), BUCKETS))
    known = np.array(tags, np.int8).reshape(-1, len(PII))
    table = np.zeros((BUCKETS, len(TAGS)), np.float32)
    bias = np.full(len(TAGS), -30.0, np.float32)
    for column, tag in enumerate(TAGS):
        own = known[:, column // 2]
        chosen = np.flatnonzero(own != _UNKNOWN)
        labels = own[chosen] == 1 + "BI".index(tag[0])
        if not labels.any() or labels.all():
            continue
        model = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=5, tol=None, average=True, random_state=seed)
        model.fit(matrix[chosen], labels)
        table[:, column] = model.coef_[0]
        bias[column] = model.intercept_[0]
    made = LinearNames(table, bias)
    scored = [made.scores(row.text) for row in chosen_by]
    reached = [_f1(chosen_by, [spans(tokens, scores, outside) for tokens, scores in scored]) for outside in READINESS]
    return replace(made, outside=READINESS[int(np.argmax(reached))])


def _f1(rows: Sequence[Example], found: Sequence[Sequence[Span]]) -> float:
    """Of all labels together, the mean over the sources; 0 where there are no rows."""
    counts: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(3, np.int64))
    for row, own in zip(rows, found, strict=True):
        for label in row.covers:
            counts[row.source] += span_counts(own, row.spans, label)
    reached = [2 * right / max(1, said + wanted) for right, said, wanted in counts.values()]
    return float(np.mean(reached)) if reached else 0.0


def _tags(example: Example, tokens: Sequence[re.Match[str]]) -> list[list[int]]:
    """For each token and label: -1 unknown, 0 outside, 1 begins a span, 2 goes on with one."""
    start = [_OUTSIDE if label in example.covers else _UNKNOWN for label in PII]
    found = [list(start) for _ in tokens]
    for span in example.spans:
        inside = [at for at, token in enumerate(tokens) if token.start() < span.end and token.end() > span.start]
        for number, at in enumerate(inside):
            found[at] = [_OUTSIDE] * len(PII)
            found[at][PII.index(span.label)] = 1 if number == 0 else 2
    return found


def features(tokens: Sequence[str]) -> list[NDArray[np.int32]]:
    """Buckets of each token's features: words and shapes of five places, affixes, pairs of neighbours."""
    padded = ["<s>", "<s>", *tokens, "</s>", "</s>"]
    small = [token.lower() for token in padded]
    shapes = [_shape(token) for token in padded]
    return [
        np.fromiter((zlib.crc32(name.encode()) % BUCKETS for name in _names(padded, small, shapes, at)), np.int32)
        for at in range(2, len(padded) - 2)
    ]


def _names(tokens: list[str], small: list[str], shapes: list[str], at: int) -> Iterator[str]:
    word = small[at]
    for place in range(-2, 3):
        yield f"w{place}={small[at + place]}"
        yield f"s{place}={shapes[at + place]}"
    for size in (1, 2, 3, 4):
        yield f"p={word[:size]}"
        yield f"e={word[-size:]}"
    yield f"t={tokens[at]}"
    yield f"s-1,0={shapes[at - 1]},{shapes[at]}"
    yield f"s0,1={shapes[at]},{shapes[at + 1]}"
    yield f"w-1,0={small[at - 1]},{word}"
    yield f"w0,1={word},{small[at + 1]}"
    yield f"w-1,s0={small[at - 1]},{shapes[at]}"
    yield f"w-2,-1={small[at - 2]},{small[at - 1]}"


def _shape(token: str) -> str:
    """Kinds of characters, runs shortened: `Xx` for a capitalized word, `d` for digits."""
    kinds = "".join("X" if c.isupper() else "x" if c.islower() else "d" if c.isdigit() else c for c in token)
    return re.sub(r"(.)\1+", r"\1", kinds)


def best_tags(scores: NDArray[np.float64]) -> list[int]:
    """The best path through `[tokens, 1 + len(TAGS)]` log scores: 0 is outside, an `I` needs its own label before."""
    states = scores.shape[1]
    allowed = np.ones((states, states), np.bool_)
    for inside in range(2, states, 2):
        allowed[:, inside] = False
        allowed[[inside - 1, inside], inside] = True
    barred = np.where(allowed, 0.0, -np.inf)
    total = scores[0].astype(np.float64).copy()
    total[2::2] = -np.inf
    came: list[NDArray[np.intp]] = []
    for row in scores[1:]:
        ways = total[:, None] + barred
        came.append(ways.argmax(axis=0))
        total = ways.max(axis=0) + row
    path = [int(total.argmax())]
    for before in reversed(came):
        path.append(int(before[path[-1]]))
    return path[::-1]


def spans(tokens: Sequence[re.Match[str]], scores: NDArray[np.float64], outside: float) -> list[Span]:
    """The best spans of a text from what `LinearNames.scores` gives; `outside` is added to being outside."""
    if not len(scores):
        return []
    weighed = scores.copy()
    weighed[:, 0] += outside
    return list(_spans(best_tags(weighed), tokens))


def _spans(tags: Sequence[int], tokens: Sequence[re.Match[str]]) -> Iterator[Span]:
    start: int | None = None
    for at, tag in enumerate([*tags, 0]):
        goes_on = tag > 0 and tag % 2 == 0
        if start is not None and not goes_on:
            label = PII[(tags[at - 1] - 1) // 2]
            yield Span(tokens[start].start(), tokens[at - 1].end(), label)
            start = None
        if tag % 2 == 1:
            start = at
