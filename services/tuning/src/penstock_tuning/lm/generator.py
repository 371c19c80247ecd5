"""Generates seeded conversations that teach quoting placeholders, JSON answers, copying and short answers.

A sample says what its answer must contain, so that the same generator measures a model: held-out samples use
other phrases (the last of each list), other made-up words, other carrier sentences. JSON tasks: `json_tasks`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from penstock_tuning.data.example import LANGUAGES
from penstock_tuning.lm import facts, phrases
from penstock_tuning.lm.tokenizer import Turn
from penstock_tuning.lm.vocabulary import PLACEHOLDER_MAX_INDEX, PLACEHOLDER_TYPES

Split = Literal["train", "held_out"]
T = TypeVar("T")

_ONSETS = [
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "w",
    "z",
    "br",
    "cl",
    "dr",
    "fl",
    "gr",
    "pl",
    "st",
    "tr",
    "sh",
    "ch",
]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "io", "ou"]
_ENDS = ["", "", "n", "r", "s", "l", "t", "x"]


@dataclass(frozen=True)
class Sample:
    """A conversation; its last turn is the wanted answer."""

    kind: str
    turns: tuple[Turn, ...]
    quotes: tuple[str, ...] = ()
    is_json: bool = False


class Source:
    """Seeded choices of phrases, words and placeholders for one side of the split."""

    def __init__(self, seed: int, split: Split, carriers: Sequence[str] = ()) -> None:
        self.random = random.Random(f"{seed}:{split}")
        self.split = split
        self.carriers = carriers

    def pick(self, options: Sequence[T]) -> T:
        """Choose; of lists longer than two the last entry is for held-out samples only."""
        if len(options) <= 2:
            return self.random.choice(options)
        return options[-1] if self.split == "held_out" else self.random.choice(options[:-1])

    def any(self, options: Sequence[T]) -> T:
        """Choose among all, where the split does not matter."""
        return self.random.choice(options)

    def chance(self, probability: float) -> bool:
        """Whether a draw falls under `probability`."""
        return self.random.random() < probability

    def language(self) -> str:
        """English half of the time, else one of the five others."""
        return "en" if self.chance(0.5) else self.any(LANGUAGES[1:])

    def placeholder(self, kind: str | None = None) -> str:
        """One placeholder; indices 1 and 2 are as frequent as in real traffic, all others occur too."""
        kind = kind or self.any(PLACEHOLDER_TYPES)
        roll = self.random.random()
        if roll < 0.5:
            number = self.any((1, 1, 2, 3))
        elif roll < 0.96:
            number = self.random.randint(1, PLACEHOLDER_MAX_INDEX)
        else:
            number = self.random.randint(PLACEHOLDER_MAX_INDEX + 1, 30)
        return f"<{kind}_{number}>"

    def placeholders(self, count: int, kinds: Sequence[str] | None = None) -> list[str]:
        """`count` different placeholders in any order; with `kinds`, one of each."""
        found: list[str] = []
        while len(found) < count:
            one = self.placeholder(kinds[len(found)] if kinds else None)
            if one not in found:
                found.append(one)
        return found

    def word(self, language: str = "en") -> str:
        """A common word, or a made-up one; held-out samples use made-up words ending in a mark of their own."""
        if self.split == "train" and self.chance(0.5):
            return self.any(facts.WORDS[language])
        parts = [self.any(_ONSETS) + self.any(_VOWELS) for _ in range(self.random.randint(1, 3))]
        return "".join(parts) + ("mb" if self.split == "held_out" else self.any(_ENDS))


def joined(items: Sequence[str], language: str) -> str:
    """Join as in `a, b and c`."""
    if len(items) == 1:
        return items[0]
    return f"{', '.join(items[:-1])} {phrases.JOIN[language][1]} {items[-1]}"


def upper_first(text: str) -> str:
    """Raise the first letter."""
    return text[:1].upper() + text[1:]


def with_system(source: Source, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Put a system turn before a part of the conversations."""
    return (("system", source.any(facts.SYSTEM)), *turns) if source.chance(0.25) else tuple(turns)


def contact(source: Source) -> Sample:
    """`My e-mail address is <..>, please confirm.`: the answer says it back by its noun."""
    language = source.language()
    verb = phrases.JOIN[language][0]
    kinds = source.random.sample(PLACEHOLDER_TYPES, source.any((1, 1, 1, 2, 2, 3, 4)))
    marks = source.placeholders(len(kinds), kinds)
    nouns = phrases.NOUNS[language]
    said = [f"{nouns[kind][0]} {verb} {mark}" for kind, mark in zip(kinds, marks, strict=True)]
    back = [f"{nouns[kind][1]} {verb} {mark}" for kind, mark in zip(kinds, marks, strict=True)]
    ask = source.pick(phrases.ASK[language])
    text = upper_first(joined(said, language)) + (", " if ask[0].islower() else ". ") + ask
    if source.chance(0.25):
        text = f"{source.any(('Hello', 'Hallo', 'Bonjour', 'Hola', 'Ciao', 'Hi'))}, {text}"
    answer = f"{source.any(phrases.THANKS[language])} {upper_first(joined(back, language))}."
    return Sample("contact", with_system(source, [("user", text), ("assistant", answer)]), tuple(marks))


def sentence(source: Source) -> Sample:
    """Natural sentences, each answered by its own sentence."""
    language = source.language()
    table = phrases.SENTENCES[language]
    kinds = source.random.sample(sorted(table), source.any((1, 1, 2, 2, 3)))
    marks = source.placeholders(len(kinds), kinds)
    pairs = [source.pick(table[kind]) for kind in kinds]
    said = " ".join(said.format(p=mark) for (said, _), mark in zip(pairs, marks, strict=True))
    back = " ".join(back.format(p=mark) for (_, back), mark in zip(pairs, marks, strict=True))
    if source.chance(0.5):
        said = f"{said} {upper_first(source.pick(phrases.ASK[language]))}"
    if source.chance(0.5):
        back = f"{source.any(phrases.THANKS[language])} {back}"
    return Sample("sentence", with_system(source, [("user", said), ("assistant", back)]), tuple(marks))


def repeat(source: Source) -> Sample:
    """Repeat a text of words and placeholders exactly."""
    language = source.language()
    marks = source.placeholders(source.any((0, 1, 1, 2, 3)))
    words = [source.word(language) for _ in range(source.random.randint(0 if marks else 1, 6))]
    items = words + marks
    source.random.shuffle(items)
    if source.chance(0.2):
        items.append(str(source.random.randint(0, 9999)))
    text = source.any((" ", " ", ", ")).join(items)
    turns = [("user", source.pick(phrases.REPEAT[language]).format(x=text)), ("assistant", text)]
    return Sample("repeat", with_system(source, turns), tuple(marks))


def carrier_text(source: Source, language: str, marks: Sequence[str]) -> str:
    """A carrier sentence (or made-up words) with the placeholders put between its words, in order."""
    if source.carriers:
        words = source.any(source.carriers).split()
    else:
        words = [source.word(language) for _ in range(source.random.randint(4, 14))]
    places = sorted((source.random.randint(0, len(words)) for _ in marks), reverse=True)
    for place, mark in zip(places, reversed(marks), strict=True):
        words.insert(place, mark)
    return " ".join(words)


def note(source: Source) -> Sample:
    """Any text that holds placeholders: the answer notes them in order, whatever else it says."""
    language = source.language()
    marks = source.placeholders(source.any((1, 1, 2, 2, 3, 4)))
    text = carrier_text(source, language, marks)
    if source.chance(0.4):
        text = source.pick(phrases.LIST[language]).format(x=text)
    elif source.chance(0.4):
        text = f"{text} {upper_first(source.pick(phrases.ASK[language]))}"
    elif source.carriers:
        language = "en"  # nearly all carriers are English, and nothing else tells the language of the answer
    answer = upper_first(source.any(phrases.NOTE[language]).format(x=joined(marks, language)))
    return Sample("note", with_system(source, [("user", text), ("assistant", answer)]), tuple(marks))


def letter(source: Source) -> Sample:
    """A short letter to a person about something."""
    language = source.language()
    person = source.placeholder("PERSON")
    marks = [person]
    subject = source.any(facts.TOPICS[language])
    if source.chance(0.5):
        subject = source.placeholder(source.any([kind for kind in PLACEHOLDER_TYPES if kind != "PERSON"]))
        marks.append(subject)
    ask, answer = source.pick(phrases.LETTER[language])
    turns = [("user", ask.format(a=person, b=subject)), ("assistant", answer.format(a=person, b=subject))]
    return Sample("letter", with_system(source, turns), tuple(marks))


def recall(source: Source) -> Sample:
    """A later turn asks for what an earlier one told."""
    language = source.language()
    verb = phrases.JOIN[language][0]
    nouns = phrases.NOUNS[language]
    kinds = source.random.sample(PLACEHOLDER_TYPES, source.any((1, 2, 3)))
    marks = source.placeholders(len(kinds), kinds)
    said = joined([f"{nouns[k][0]} {verb} {m}" for k, m in zip(kinds, marks, strict=True)], language)
    noted = source.any(phrases.NOTE[language]).format(x=joined(marks, language))
    wanted = source.random.randrange(len(kinds))
    question = {
        "en": "What is {x}?",
        "de": "Was ist {x}?",
        "fr": "Quel est {x} ?",
        "es": "¿Cuál es {x}?",
        "it": "Qual è {x}?",
        "pt": "Qual é {x}?",
    }[language].format(x=nouns[kinds[wanted]][0])
    answer = f"{upper_first(nouns[kinds[wanted]][1])} {verb} {marks[wanted]}."
    turns: list[Turn] = [("user", f"{upper_first(said)}."), ("assistant", upper_first(noted))]
    if source.chance(0.3):
        questions, reply = source.any(facts.SMALL_TALK)
        turns += [("user", source.any(questions)), ("assistant", reply)]
    turns += [("user", question), ("assistant", answer)]
    return Sample("recall", with_system(source, turns), (marks[wanted],))


def short_answer(source: Source) -> Sample:
    """Greetings, simple facts, sums and sentiment: short answers that end."""
    roll = source.random.random()
    if roll < 0.3:
        questions, answer = source.any(facts.SMALL_TALK)
        question = source.any(questions)
    elif roll < 0.5:
        country, city = source.any(sorted(facts.CAPITALS.items()))
        question = source.pick(facts.CAPITAL_QUESTIONS).format(x=country)
        answer = f"The capital of {country} is {city}."
    elif roll < 0.6:
        word, other = source.any(sorted(facts.OPPOSITES.items()))
        question, answer = f"What is the opposite of {word}?", f"The opposite of {word} is {other}."
    elif roll < 0.65:
        thing, colour = source.any(sorted(facts.COLOURS.items()))
        question, answer = f"What colour is {thing}?", f"The colour of {thing} is {colour}."
    elif roll < 0.8:
        question, answer = source.any(facts.FACTS)
    elif roll < 0.9:
        left, right = source.random.randint(0, 10), source.random.randint(0, 10)
        question = source.any(("What is {a} + {b}?", "{a} plus {b}?")).format(a=left, b=right)
        answer = f"{left} + {right} = {left + right}."
    else:
        label = source.any(sorted(facts.SENTIMENT))
        text = source.pick(facts.SENTIMENT[label])
        question, answer = source.any(facts.SENTIMENT_QUESTIONS).format(x=text), label
    return Sample("short", with_system(source, [("user", question), ("assistant", answer)]))


Maker = Callable[[Source], Sample]


def _mix() -> dict[Maker, float]:
    """Kinds of samples with their weights."""
    # These modules build on this one.
    from penstock_tuning.lm.json_tasks import json_answer
    from penstock_tuning.lm.requests import detail, request

    return {
        contact: 0.18,
        sentence: 0.13,
        repeat: 0.13,
        note: 0.18,
        letter: 0.06,
        recall: 0.06,
        json_answer: 0.16,
        short_answer: 0.10,
        request: 0.20,
        detail: 0.06,
    }


def samples(seed: int, split: Split, count: int, carriers: Sequence[str] = ()) -> Iterator[Sample]:
    """Yield `count` samples of every kind; the same seed gives the same samples."""
    source = Source(seed, split, carriers)
    mix = _mix()
    for _ in range(count):
        yield source.random.choices(list(mix), list(mix.values()))[0](source)
