"""Readers of texts with marked names: token tables in BIO or IO, nested entities, and character offsets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from penstock.heads.spans import Span
from penstock_tuning.data.readers.base import Joiner, Options, Row, json_lines, read_text

_PARTICLES = frozenset(("of", "the", "de", "la", "von", "van", "du", "der", "and", "del", "di", "da", "dos", "le"))
_BLOCK_TOKENS = 40
"""Newspaper columns have no empty lines: a row is this many tokens and up to a full stop, at most twice as many."""


def tokens(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """A token a line, an empty line between texts.

    Options: `types` (tag to label), `tag` (column, -1 the last), `token` (column), `delimiter`, `block` (no empty
    lines: cut after so many tokens).
    """
    types: Mapping[str, str] = options["types"]
    for path in paths:
        for index, sentence in enumerate(_sentences(path, options)):
            text, spans = _text(sentence, types)
            if options.get("block"):
                spans = [_trimmed(span, text) for span in spans]
            yield Row(text, document=f"{path.stem}:{index}", spans=tuple(spans))


def _trimmed(span: Span, text: str) -> Span:
    """Scanned columns keep the comma in the token: it is no part of the name."""
    return Span(span.start, span.start + len(text[span.start : span.end].rstrip(".,;:!?/") or "?"), span.label)


def _sentences(path: Path, options: Options) -> Iterator[list[tuple[str, str]]]:
    token_at, tag_at = options.get("token", 0), options.get("tag", -1)
    block: bool = options.get("block", False)
    sentence: list[tuple[str, str]] = []
    for line in read_text(path).split("\n"):
        if line.startswith(("#\t", "# ", "-DOCSTART-")):
            continue
        columns = line.rstrip("\n").split(options.get("delimiter"))
        if not line.strip() or len(columns) < 2:
            if sentence and not block:
                yield sentence
                sentence = []
            continue
        if columns[token_at].strip():
            sentence.append((columns[token_at].strip(), columns[tag_at].strip()))
        ended = len(sentence) >= _BLOCK_TOKENS and sentence[-1][0].endswith(".")
        if block and sentence[-1:] and sentence[-1][1] == "O" and (ended or len(sentence) >= 2 * _BLOCK_TOKENS):
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def _text(sentence: Iterable[tuple[str, str]], types: Mapping[str, str]) -> tuple[str, list[Span]]:
    joiner = Joiner()
    spans: list[Span] = []
    open_label = ""
    for token, tag in sentence:
        start, end = joiner.add(token)
        prefix, _, kind = tag.partition("-")
        label = types.get(kind, "") if kind else ""
        if label and prefix == "I" and open_label == label:
            spans[-1] = Span(spans[-1].start, end, label)
        elif label:
            spans.append(Span(start, end, label))
        open_label = label
    return joiner.text, spans


def nested(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Novels with nested entities, common nouns among them: of these only proper names are kept.

    A sentence ends at a full stop; a mention counts as a name where every word but particles has a capital.
    """
    types: Mapping[str, str] = options["types"]
    for path in paths:
        for index, sentence in enumerate(_novel_sentences(path)):
            if len(sentence) < 4:
                continue
            joiner = Joiner()
            places = [joiner.add(columns[0]) for columns in sentence]
            found: list[Span] = []
            for layer in range(1, max(len(columns) for columns in sentence)):
                for first, last, kind in _runs(
                    [columns[layer] if layer < len(columns) else "O" for columns in sentence]
                ):
                    words = [columns[0] for columns in sentence[first : last + 1]]
                    if kind in types and _is_name(words):
                        found.append(Span(places[first][0], places[last][1], types[kind]))
            spans = _outermost(found)
            yield Row(joiner.text, document=path.stem, template=f"{path.stem}:{index}", spans=spans)


def _novel_sentences(path: Path) -> Iterator[list[list[str]]]:
    sentence: list[list[str]] = []
    for line in read_text(path).split("\n"):
        columns = [column.strip() for column in line.split("\t")]
        if columns[0]:
            sentence.append([columns[0], *(column for column in columns[1:] if column)])
        if sentence and (not columns[0] or (columns[0] in (".", "!", "?") and len(sentence) > 12)):
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def _runs(tags: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    start = -1
    for index, tag in enumerate([*tags, "O"]):
        if start >= 0 and not tag.startswith("I-"):
            yield start, index - 1, tags[start].partition("-")[2]
            start = -1
        if tag.startswith("B-"):
            start = index


def _is_name(words: Sequence[str]) -> bool:
    rest = [word for word in words if word.lower() not in _PARTICLES]
    return bool(rest) and words[0].lower() != "the" and all(word[0].isupper() or word == "." for word in rest)


def _outermost(spans: Iterable[Span]) -> tuple[Span, ...]:
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return tuple(kept)


def annotated(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """JSON lines with a text and `annotations` of character offsets; option `types` maps the entity types.

    Where an annotation does not say the text that it covers, the row is left out.
    """
    types: Mapping[str, str] = options["types"]
    languages = frozenset(options["languages"])
    for path in paths:
        for row in json_lines(path):
            text: str = row["text"]
            marks = row["annotations"]
            if row["language"] not in languages or any(text[m["start"] : m["end"]] != m["text"] for m in marks):
                continue
            spans = [Span(m["start"], m["end"], types[m["entity_type"]]) for m in marks if m["entity_type"] in types]
            yield Row(
                text,
                language=row["language"],
                value=row["data_type"],
                document=row["record_id"],
                spans=_outermost(spans),
            )
