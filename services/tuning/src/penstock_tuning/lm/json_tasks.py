"""Generated tasks whose answer is one JSON object and nothing else."""

from __future__ import annotations

import json

from penstock_tuning.lm import facts, phrases
from penstock_tuning.lm.generator import Sample, Source, joined, upper_first, with_system
from penstock_tuning.lm.tokenizer import Turn
from penstock_tuning.lm.vocabulary import PLACEHOLDER_TYPES

_KEYS: dict[str, list[str]] = {
    "EMAIL_ADDRESS": ["email", "mail", "email_address"],
    "PHONE_NUMBER": ["phone", "telephone", "phone_number"],
    "CREDIT_CARD": ["card", "card_number"],
    "IBAN_CODE": ["iban", "account"],
    "IP_ADDRESS": ["ip", "ip_address"],
    "URL": ["url", "website"],
    "US_SSN": ["ssn"],
    "PERSON": ["name", "person", "customer"],
    "LOCATION": ["city", "place", "location"],
    "ORGANIZATION": ["company", "employer", "organization"],
    "DATE_TIME": ["date", "when"],
    "CRYPTO": ["wallet"],
}
_ASK_KEYS = [
    "Answer as JSON with keys {k}. {x}",
    "Answer as JSON with keys {k}: {x}",
    "{x} Answer as JSON with the keys {k}.",
    "Extract {k} as JSON from: {x}",
    "Return a JSON object with keys {k}. {x}",
    "{x}\nGive me JSON with {k}.",
    "Reply with a JSON object that has the keys {k}. {x}",
]
_ASK_VALUES = [
    "Make a JSON object with {x}.",
    "Write a JSON object: {x}.",
    "Answer as JSON: {x}.",
    "Convert to JSON: {x}",
    "Return this as JSON: {x}.",
]
_ASK_LIST = [
    "Answer as JSON with a list called {k}: {x}",
    "Put these into a JSON list called {k}: {x}",
    "Make JSON with the list {k} of {x}.",
]
_ASK_QUESTION = [
    "Answer as JSON with the key {k}. {x}",
    "{x} Answer as JSON with the key {k}.",
    "Answer as JSON, key {k}: {x}",
]
_SYSTEM = [
    "Answer only with a JSON object.",
    "Reply in JSON.",
    "You answer with one JSON object and nothing else.",
]
_FIELDS = [
    "name",
    "title",
    "id",
    "count",
    "price",
    "status",
    "color",
    "kind",
    "item",
    "city",
    "size",
    "level",
]


def _sample(source: Source, question: str, value: dict[str, object], quotes: list[str]) -> Sample:
    turns: list[Turn] = [("user", question), ("assistant", json.dumps(value, ensure_ascii=False))]
    if source.chance(0.3):
        return Sample("json", (("system", source.any(_SYSTEM)), *turns), tuple(quotes), is_json=True)
    return Sample("json", with_system(source, turns), tuple(quotes), is_json=True)


def _from_contact(source: Source) -> Sample:
    """Personal details into named keys."""
    language = source.language()
    kinds = source.random.sample(PLACEHOLDER_TYPES, source.any((1, 2, 2, 3, 3, 4)))
    marks = source.placeholders(len(kinds), kinds)
    keys = [source.any(_KEYS[kind]) for kind in kinds]
    verb = phrases.JOIN[language][0]
    said = [f"{phrases.NOUNS[language][k][0]} {verb} {m}" for k, m in zip(kinds, marks, strict=True)]
    text = upper_first(joined(said, language)) + "."
    value: dict[str, object] = dict(zip(keys, marks, strict=True))
    if source.chance(0.25):
        order = source.random.sample(keys, len(keys))
        value = {key: value[key] for key in order}
        keys = order
    if source.chance(0.15):  # told by the system turn alone which form is wanted
        turns: list[Turn] = [("system", source.any(_SYSTEM)), ("user", text)]
        answer = {source.any(_KEYS[k][:1]): m for k, m in zip(kinds, marks, strict=True)}
        turns.append(("assistant", json.dumps(answer)))
        return Sample("json", tuple(turns), tuple(marks), is_json=True)
    question = source.pick(_ASK_KEYS).format(k=joined(keys, "en") if source.chance(0.5) else ", ".join(keys), x=text)
    return _sample(source, question, value, marks)


def _scalar(source: Source) -> tuple[object, str | None]:
    roll = source.random.random()
    if roll < 0.45:
        return source.word(source.language()), None
    if roll < 0.7:
        return source.random.randint(0, 999), None
    if roll < 0.8:
        return source.any((True, False)), None
    mark = source.placeholder()
    return mark, mark


def _from_values(source: Source) -> Sample:
    """Keys and values said in words."""
    keys = source.random.sample(_FIELDS, source.any((1, 2, 2, 3, 4)))
    value: dict[str, object] = {}
    quotes: list[str] = []
    for key in keys:
        value[key], mark = _scalar(source)
        if mark:
            quotes.append(mark)
    said = [
        f"{key} {json.dumps(one).strip(chr(34)) if not isinstance(one, str) else one}" for key, one in value.items()
    ]
    if source.chance(0.4):
        said = [part.replace(" ", " = ", 1) for part in said]
    return _sample(source, source.pick(_ASK_VALUES).format(x=joined(said, "en")), value, quotes)


def _from_list(source: Source) -> Sample:
    key = source.any(("items", "words", "names", "list", "entries"))
    quotes = source.placeholders(source.any((0, 0, 1, 2)))
    items = [source.word(source.language()) for _ in range(source.random.randint(1, 4))] + quotes
    source.random.shuffle(items)
    return _sample(source, source.pick(_ASK_LIST).format(k=key, x=", ".join(items)), {key: items}, quotes)


def _from_question(source: Source) -> Sample:
    key = source.any(("answer", "result", "city", "value"))
    if source.chance(0.5):
        country, city = source.any(sorted(facts.CAPITALS.items()))
        question, answer = source.pick(facts.CAPITAL_QUESTIONS).format(x=country), city
    else:
        answer = source.any(sorted(facts.SENTIMENT))
        text = source.pick(facts.SENTIMENT[answer])
        key = "sentiment"
        question = source.any(facts.SENTIMENT_QUESTIONS).format(x=text)
    return _sample(source, source.pick(_ASK_QUESTION).format(k=key, x=question), {key: answer}, [])


def json_answer(source: Source) -> Sample:
    """One JSON task of any form."""
    form = source.random.choices((_from_contact, _from_values, _from_list, _from_question), (0.45, 0.3, 0.12, 0.13))
    return form[0](source)
