"""Readers of long texts: pages, novels, statutes and dialogues. Passages are cut by `loading`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from penstock_tuning.data.readers.base import Options, Row, json_lines, language_of, read_text, table
from penstock_tuning.lm.corpus import split_key, strip_gutenberg, unwrap

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)
_ENGLISH = frozenset(("the", "of", "and", "to", "is", "in", "that", "for", "with", "are", "this", "you", "not", "be"))


def pages(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Pages of documentation; a page and its translations share the document key.

    A page that is English though its file says otherwise is left out; option `skip` is a pattern on the page's name.
    """
    skip = re.compile(options["skip"]) if "skip" in options else None
    only = re.compile(options["only"]) if "only" in options else None
    family = options["family"]
    for path in paths:
        language = language_of(path)
        for row in json_lines(path):
            name = row.get("file") or row["name"]
            if (skip and skip.search(name)) or (only and not only.search(name)):
                continue
            text = _FRONT_MATTER.sub("", row["text"]).strip()
            if language not in ("", "en") and _looks_english(text):
                continue
            yield Row(text, language=language, document=split_key(family, name))


def _looks_english(text: str) -> bool:
    words = re.findall(r"[a-zà-ÿ]+", text.lower())[:2000]
    return bool(words) and sum(word in _ENGLISH for word in words) / len(words) > 0.18


def novels(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Novels without Project Gutenberg's frame, the lines of a paragraph joined; option `chars` cuts each."""
    for path in paths:
        text = unwrap(strip_gutenberg(read_text(path)))
        yield Row(text[: options.get("chars", len(text))], document=path.stem)


def dialogues(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """Generated conversations between two people, in a column of a table."""
    for path in paths:
        for index, row in enumerate(table(path)):
            yield Row(row["Best Generated Conversation"].strip(), document=f"{path.stem}:{index}")


def persona_facts(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """Statements about a person with the whole list (it follows) and with another person's list (it does not)."""
    for path in paths:
        rows = list(table(path))
        for index, row in enumerate(rows):
            mine = [fact.strip() for fact in row["user 1 personas"].split("\n") if fact.strip()]
            other = rows[(index + 97) % len(rows)]["user 1 personas"].strip()
            if len(mine) < 2 or mine[0] in other:
                continue
            listed = "\n".join(mine)
            yield Row(mine[index % len(mine)], pair=listed, value="entailed", document=f"{path.stem}:{index}")
            yield Row(mine[0], pair=other, value="not", document=f"{path.stem}:{index}")


def orders(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Task dialogues: the whole with speakers, or the user's turns alone with the option `turns`."""
    for path in paths:
        for dialogue in json.loads(read_text(path)):
            said = [(turn["speaker"], turn["text"].strip()) for turn in dialogue["utterances"]]
            key = dialogue["conversation_id"]
            if options.get("turns"):
                users = [text for speaker, text in said if speaker.lower() == "user" and text]
                yield from (Row(text, document=key, template=dialogue["scenario"]) for text in users)
            else:
                text = "\n".join(f"{speaker.title()}: {text}" for speaker, text in said if text)
                yield Row(text, document=key, template=dialogue["scenario"])


def problems(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Word problems with solutions, the calculator marks taken out; option `pairs` keeps the two apart."""
    for path in paths:
        for index, row in enumerate(json_lines(path)):
            answer = re.sub(r"<<.*?>>", "", row["answer"]).replace("#### ", "The answer is ").strip()
            if options.get("pairs"):
                yield Row(row["question"].strip(), pair=answer, value="same", document=str(index))
            elif options.get("questions"):
                yield Row(row["question"].strip(), document=str(index))
            else:
                yield Row(f"{row['question'].strip()}\n{answer}", document=str(index))
