"""Which training examples get which augmentation, and how often. All draws come from the seed and the text."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.heads.spans import Span
from penstock_tuning.data.augment import characters, contexts
from penstock_tuning.data.augment.encodings import encoded
from penstock_tuning.data.augment.facts import pairs
from penstock_tuning.data.augment.phrases import ORDINARY
from penstock_tuning.data.example import Example
from penstock_tuning.data.manifest import Manifest
from penstock_tuning.data.people.values import Lists, lists
from penstock_tuning.data.readers.base import read_text

TASKS = ("safety", "pii", "entailment")
"""The tasks that have an augmentation."""
_LONG = 1200
"""Characters from which an attack is not put into a document and a text is not respelt."""
_SHORT = 200
"""Up to so many characters an attack can be talked about, and a request can be an attack's instruction."""


@dataclass(frozen=True)
class Tools:
    """What augmentation takes from the data folder."""

    neighbours: Mapping[str, Mapping[str, Sequence[str]]]
    """By language: for a key those beside it."""
    misspellings: Mapping[str, Sequence[str]]
    first_names: Sequence[str]

    def changes(self, language: str) -> dict[str, characters.Change]:
        """The changes of characters by name, for a language's keyboard."""
        found: dict[str, characters.Change] = {
            "casing": characters.casing,
            "leetspeak": characters.leetspeak,
            "homoglyphs": characters.homoglyphs,
            "styled": characters.styled,
            "spacing": characters.spacing,
            "zero_width": characters.zero_width,
            "typos": characters.typos(self.neighbours.get(language, self.neighbours["en"])),
        }
        if language == "en":
            found["misspelled"] = characters.misspelled(self.misspellings)
        return found


def tools(manifest: Manifest, root: Path) -> Tools:
    """Read keyboards, misspellings and first names.

    Raises:
        SourceMissingError: they are not in the data folder.
    """
    keyboards = {path.stem: json.loads(read_text(path)) for path in manifest.sources["keyboards"].paths(root)}
    misspellings: dict[str, list[str]] = {}
    for path in manifest.sources["misspellings"].paths(root):
        for line in read_text(path).split("\n"):
            word, *others = line.split()[:6] or [""]
            if others:
                misspellings[word] = others
    held: Lists = lists("en", "train", manifest, root)
    return Tools(keyboards, misspellings, [name for name in held.pack["first"] if name in set(held.first)])


def augmented(task: str, examples: Sequence[Example], given: Tools, seed: int) -> Iterator[Example]:
    """The added examples of a task; the given ones are left as they are."""
    if task == "entailment":
        yield from pairs(examples, seed)
    else:
        yield from (_safety if task == "safety" else _pii)(examples, given, seed)


def _safety(examples: Sequence[Example], given: Tools, seed: int) -> Iterator[Example]:
    attacks = [row for row in examples if _is_attack(row) and row.kind != "trigger" and len(row.text) <= _LONG]
    documents = [row for row in examples if row.kind == "document" and len(row.text) > 200]
    requests = [row for row in examples if _is_ordinary(row) and row.kind != "document" and len(row.text) <= _SHORT]
    for example in examples:
        draw = random.Random(f"{seed}:{example.source}:{example.text}")
        if example.kind == "trigger":
            yield from _announced(example, requests, documents, draw)
        elif _is_attack(example):
            yield from _attack(example, documents, given, draw)
        elif _is_ordinary(example):
            yield from _ordinary(example, attacks, given, draw)
        elif len(example.text) <= _LONG and draw.random() < 0.25:
            # Abuse is hidden in spelling as well; without some here only attacks would look odd.
            yield _respelt(example, given, draw)


def _is_attack(example: Example) -> bool:
    return example.labels.get("injection") == 1 or example.labels.get("jailbreak") == 1


def _is_ordinary(example: Example) -> bool:
    return example.labels.get("injection") == 0 and example.labels.get("harmful") == 0


def _announced(
    trigger: Example, requests: Sequence[Example], documents: Sequence[Example], draw: random.Random
) -> Iterator[Example]:
    """A phrase that announces an instruction, followed by one, alone and in a document."""
    if requests:
        attack = f"{trigger.text} {draw.choice(requests).text}"
        yield _changed(trigger, attack, "announced")
        yield from _planted(trigger, attack, documents, draw)


def _attack(example: Example, documents: Sequence[Example], given: Tools, draw: random.Random) -> Iterator[Example]:
    if len(example.text) <= _LONG:
        yield _respelt(example, given, draw)
        if example.labels.get("injection") == 1:
            yield from _planted(example, example.text, documents, draw)
            yield from _planted(example, example.text, documents, draw)
    if draw.random() < 0.4:
        yield _changed(example, contexts.chat(example.text, draw), "chat")
    if len(example.text) <= _SHORT:
        if draw.random() < 0.3:
            yield _changed(example, encoded(example.text, draw, obey=True), "encoded")
        about = contexts.talked_about(example.text, example.language, draw)
        yield replace(_changed(example, about, "talked_about"), labels=ORDINARY, kind="talked_about")


def _ordinary(example: Example, attacks: Sequence[Example], given: Tools, draw: random.Random) -> Iterator[Example]:
    chance = draw.random()
    if example.kind == "document" and attacks:
        attack = draw.choice(attacks)
        yield from _planted(attack, attack.text, [example], draw)
    if len(example.text) <= _LONG and chance < 0.12:
        yield _respelt(example, given, draw)
    elif chance < 0.2:
        yield _changed(example, contexts.chat(example.text, draw), "chat")
    elif len(example.text) <= _SHORT and chance < 0.23:
        yield _changed(example, encoded(example.text, draw, obey=False), "encoded")
    elif chance < 0.3:
        text = contexts.placeholders(example.text, given.first_names)
        if text != example.text:
            yield _changed(example, text, "placeholders")


def _planted(attack: Example, text: str, documents: Sequence[Example], draw: random.Random) -> Iterator[Example]:
    """The attack in a document; the document as it is is among the examples already, as a negative."""
    if not documents:
        return
    host = draw.choice(documents)
    whole, span = contexts.planted(text, host.text, draw)
    labels = {name: value for name, value in attack.labels.items() if value == 1 or name == "injection"}
    yield replace(
        attack,
        text=whole,
        labels={**labels, "injection": 1},
        spans=(span,),
        covers=("injection",),
        kind="indirect",
        document=host.document,
        augmented="planted",
    )


def _respelt(example: Example, given: Tools, draw: random.Random) -> Example:
    changes = given.changes(example.language)
    name = draw.choice(sorted(changes))
    return _changed(example, changes[name](example.text, draw), name)


def _changed(example: Example, text: str, name: str) -> Example:
    return replace(example, text=text, spans=(), covers=(), augmented=name)


def _pii(examples: Sequence[Example], given: Tools, seed: int) -> Iterator[Example]:
    for example in examples:
        draw = random.Random(f"{seed}:{example.source}:{example.text}")
        chance = draw.random()
        keys = given.neighbours.get(example.language, given.neighbours["en"])
        if chance < 0.1:
            yield replace(example, text=characters.lower(example.text, draw), augmented="lower")
        elif chance < 0.15:
            yield replace(example, text=characters.casing(example.text, draw), augmented="casing")
        elif chance < 0.22:
            yield replace(example, text=characters.slips(keys)(example.text, draw), augmented="typos")
        elif chance < 0.32 and example.spans:
            yield _anonymized(example, draw)


def _anonymized(example: Example, draw: random.Random) -> Example:
    """Some of the names replaced by placeholders, which are no names; the other spans move along."""
    text, spans, end, count = "", [], 0, 0
    for span in example.spans:
        text += example.text[end : span.start]
        start = len(text)
        if draw.random() < 0.6:
            count += 1
            text += f"<{span.label}_{count}>"
        else:
            text += example.text[span.start : span.end]
            spans.append(Span(start, len(text), span.label))
        end = span.end
    return replace(example, text=text + example.text[end:], spans=tuple(spans), augmented="placeholders")
