"""Text to hashed n-gram ids for the linear abusive-language classifier.

One piece of code for training and serving: the tuning package imports this module, so a model and the
features it is fed cannot drift apart. The settings travel with the model in its configuration file.
It knows nothing of labels, weights or ONNX.

The scheme is the hashing trick over character and word n-grams (Joulin et al., "Bag of Tricks for
Efficient Text Classification", 2016), computed with numpy instead of a loop over every n-gram.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PAD_ID = 0

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
_WORD_SALT = 1 << 40

_NOISE = re.compile(r"https?://\S+|www\.\S+|@\w+|\[(?:user|url)\]")
_SPACE = re.compile(r"\s+")
_REPEAT = re.compile(r"(.)\1{2,}")
_DIGITS = re.compile(r"\d{3,}")
_SPELLED = re.compile(r"(?<!\w)\w(?:[ .\-_*]\w){2,40}(?!\w)")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_SENTENCE_END = re.compile(r"[.!?;\u3002\uff01\uff1f]+[\"')\]]*\s|\n+")


@dataclass(frozen=True)
class FeatureSettings:
    """What turns a text into ids. `buckets` counts the padding id 0, which no n-gram ever gets."""

    buckets: int = 1 << 20
    char_min: int = 3
    char_max: int = 5
    word_max: int = 2
    segment_chars: int = 200
    segment_overlap: int = 60


def normalize(text: str) -> str:
    """Lower case without accents, links, mentions and stretched letters; spelled-out words are joined."""
    folded = unicodedata.normalize("NFKD", text).lower()
    folded = "".join(c for c in folded if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")
    folded = _NOISE.sub(" ", folded)
    folded = _REPEAT.sub(r"\1\1", folded)
    folded = _DIGITS.sub("000", folded)
    folded = _SPELLED.sub(lambda m: re.sub(r"[ .\-_*]", "", m.group()), folded)
    return _SPACE.sub(" ", folded).strip()


def segments(text: str, settings: FeatureSettings) -> list[tuple[int, int]]:
    """Cuts a text into runs of whole sentences of at most `segment_chars`, as (start, end) offsets.

    A sentence that is longer is cut into overlapping pieces, so that a phrase at a cut is still seen whole.
    Blank text gives no segment.
    """
    limit = settings.segment_chars
    step = limit - settings.segment_overlap
    sentences: list[tuple[int, int]] = []
    begin = 0
    for match in _SENTENCE_END.finditer(text):
        sentences.append((begin, match.end()))
        begin = match.end()
    if begin < len(text):
        sentences.append((begin, len(text)))

    found: list[tuple[int, int]] = []
    open_start = open_end = -1
    for start, end in sentences:
        if open_start >= 0 and end - open_start <= limit:
            open_end = end
            continue
        if open_start >= 0:
            found.append((open_start, open_end))
            open_start = -1
        if end - start <= limit:
            open_start, open_end = start, end
            continue
        for piece in range(start, max(start + 1, end - settings.segment_overlap), step):
            found.append((piece, min(piece + limit, end)))
    if open_start >= 0:
        found.append((open_start, open_end))
    return [(start, end) for start, end in found if not text[start:end].isspace()]


def ngram_ids(text: str, settings: FeatureSettings) -> NDArray[np.int64]:
    """The sorted distinct ids, in 1..buckets-1, of one text's n-grams; empty for blank text."""
    clean = normalize(text)
    if not clean:
        return np.empty(0, dtype=np.int64)
    points = np.frombuffer(f" {clean} ".encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    hashes: list[NDArray[np.uint64]] = []
    rolling = np.zeros(len(points), dtype=np.uint64)
    for size in range(1, settings.char_max + 1):
        if len(points) < size:
            break
        rolling = _mix(rolling[: len(points) - size + 1] ^ points[size - 1 :])
        if size >= settings.char_min:
            hashes.append(rolling)
    words = np.array(
        [zlib.crc32(token.encode("utf-8", "surrogatepass")) | _WORD_SALT for token in _TOKEN.findall(clean)],
        dtype=np.uint64,
    )
    rolling = np.zeros(len(words), dtype=np.uint64)
    for size in range(1, settings.word_max + 1):
        if len(words) < size:
            break
        rolling = _mix(rolling[: len(words) - size + 1] ^ words[size - 1 :])
        hashes.append(rolling)
    joined = np.unique(np.concatenate(hashes) % np.uint64(settings.buckets - 1))
    return joined.astype(np.int64) + 1


def pad(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Rows of ids as one matrix (rows, longest row), padded with `PAD_ID` on the right."""
    width = max((len(row) for row in rows), default=1)
    matrix = np.full((len(rows), max(width, 1)), PAD_ID, dtype=np.int64)
    for index, row in enumerate(rows):
        matrix[index, : len(row)] = row
    return matrix


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed: NDArray[np.uint64] = (values + np.uint64(1)) * _PRIME
    return mixed ^ (mixed >> _SHIFT)
