"""Readers of ordinary requests whose files need more than a field name."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from penstock_tuning.data.readers.base import Options, Row, json_lines, language_of, read_text, tidy
from penstock_tuning.data.readers.generic import csv_rows

_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.S)
_FILLS = ("the text", "this passage", "the sentence", "the question", "the article", "it")
_TOKENS = re.compile(r"\{\{(.*?)\}\}")
_LANGUAGE_NAMES = {"english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it"}


def bbh(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """Reasoning tasks; the file is the template."""
    for path in paths:
        for index, row in enumerate(json.loads(read_text(path))["examples"]):
            yield Row(row["input"].strip(), document=f"{path.stem}:{index}", template=path.stem)


def intents(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """Queries with an intent, in splits of [text, intent]; the intent is the value."""
    for path in paths:
        for split, rows in json.loads(read_text(path)).items():
            for index, (text, intent) in enumerate(rows):
                yield Row(text.strip(), value=intent, document=f"{split}:{index}", template=intent)


def instructions(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Instructions with an optional input, and the answer as a text of its own with the option `answers`."""
    for path in paths:
        rows: list[Any] = json.loads(read_text(path)) if path.suffix == ".json" else list(json_lines(path))
        for index, row in enumerate(rows):
            given = row["instances"][0]["input"] if "instances" in row else row.get("input", "")
            document = f"{path.stem}:{index}"
            text = row.get("instruction") or row["prompt"]
            if "toolformer" in text[:20]:
                # The preamble that describes the tool is the same in hundreds of rows.
                yield Row(text.rpartition("\n")[2].strip() + f"\n{given}", document=document)
            else:
                yield Row(f"{text}\n{given}".strip(), document=document)
            answer = row.get("response") or row.get("completion")
            if options.get("answers") and answer:
                yield Row(str(answer).strip(), document=document, value="answer")


def messages(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """What people asked: lines of strings, or message lists of which the `prompter` ones are taken."""
    for path in paths:
        rows = json.loads(read_text(path)) if path.suffix == ".json" else list(json_lines(path))
        for index, row in enumerate(rows):
            if isinstance(row, str):
                yield Row(row.strip(), document=f"{path.stem}:{index}")
            elif row["role"] == "prompter":
                yield Row(row["text"].strip(), document=f"{path.stem}:{index}")


def jinja_templates(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """Prompt templates: the part before the answer, its slots filled with plain words."""
    for path in paths:
        for part in re.split(r"^### ", read_text(path), flags=re.M)[1:]:
            name, _sep, body = part.partition("\n")
            for index, match in enumerate(re.finditer(r"^    jinja: (.+?)(?=^    \w)", body, re.S | re.M)):
                text = str(yaml.safe_load(f"jinja: {match[1]}")["jinja"]).partition("|||")[0]
                fills = itertools.cycle(_FILLS[index % len(_FILLS) :] + _FILLS[: index % len(_FILLS)])
                filled = _TOKENS.sub(partial(_next, fills), text)
                filled = " ".join(_JINJA.sub(" ", filled).split())
                yield Row(filled, document=f"{name}:{index}", template=name.split("/")[2] if "/" in name else name)


def _next(fills: Iterator[str], _: re.Match[str]) -> str:
    return next(fills)


def token_pieces(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """Voice-assistant utterances in pieces, joined."""
    for path in paths:
        for intent, rows in json.loads(read_text(path)).items():
            for index, row in enumerate(rows):
                text = "".join(piece["text"] for piece in row["data"]).strip()
                yield Row(" ".join(text.split()), value=intent, document=f"{intent}:{index}", template=intent)


def help_pages(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Command-line help: a whole page, or with `requests` each "do this" line as somebody would ask for it."""
    for path in paths:
        language = language_of(path)
        for row in json_lines(path):
            if not options.get("requests"):
                text = row["text"].replace("{{", "").replace("}}", "")
                yield Row(text.strip(), language=language, document=row["page"])
                continue
            for index, line in enumerate(re.findall(r"^- (.+?):?$", row["text"], re.M)):
                text = re.sub(r"\[(\w)\]", r"\1", line)
                yield Row(text, language=language, document=row["page"], template=str(index))


def translated_help(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """The first line of a help page in another language with the English one: pairs of one meaning."""
    english: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: language_of(path) != "en"):
        language = language_of(path)
        for row in json_lines(path):
            match = re.search(r"^> (.+)$", row["text"], re.M)
            if not match:
                continue
            if language == "en":
                english[row["page"]] = match[1]
            elif row["page"] in english and english[row["page"]] != match[1]:
                yield Row(match[1], pair=english[row["page"]], value="same", language=language, document=row["page"])


def disfluent(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Questions and the same with slips of the tongue: each alone, or with `pairs` as one meaning."""
    for path in paths:
        for key, row in json.loads(read_text(path)).items():
            if options.get("pairs"):
                yield Row(row["disfluent"].strip(), pair=row["original"].strip(), value="same", document=key)
            else:
                yield Row(row["original"].strip(), document=key)
                yield Row(row["disfluent"].strip(), document=key)


def small_talk(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """Turns of short conversations, in the language that the folder is named for."""
    for path in paths:
        language = _LANGUAGE_NAMES[path.parent.name]
        for index, turns in enumerate(yaml.safe_load(read_text(path))["conversations"]):
            for turn in turns:
                if isinstance(turn, str):
                    yield Row(tidy(turn), language=language, document=f"{path.stem}:{index}")


def aligned(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Two files of which the lines belong together: the one that ends with `text`, and with `pair` the other."""
    text = next(path for path in paths if path.name.endswith(options["text"]))
    pair = next(path for path in paths if path.name.endswith(options["pair"]))
    rows = zip(read_text(text).split("\n"), read_text(pair).split("\n"), strict=True)
    for index, (left, right) in enumerate(rows):
        if left.strip() and right.strip():
            yield Row(left.strip(), pair=right.strip(), value="same", document=str(index))


def same_intent(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Pairs of queries: neighbours of one intent are similar, of two intents are not."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        for row in intents([path], {}) if path.suffix == ".json" else _table_intents(path, options):
            if row.value != "oos":
                groups.setdefault(row.value, []).append(row.text)
    names = sorted(groups)
    for number, name in enumerate(names):
        texts = sorted(set(groups[name]))
        other = sorted(set(groups[names[(number + 1) % len(names)]]))
        for index in range(0, len(texts) - 1, 2):
            yield Row(texts[index], pair=texts[index + 1], value="same", document=f"{name}:{index}")
            yield Row(texts[index], pair=other[index % len(other)], value="other", document=f"{name}:{index}")


def _table_intents(path: Path, options: Options) -> Iterator[Row]:
    return csv_rows([path], options)
