"""Readers of attacks: pages of payloads, templates with a slot, and documents for indirect attacks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from penstock_tuning.data.readers.base import Options, Row, json_lines, read_text, table

_NAME = re.compile(r"\{generator\.name\}|\[generator\.name\]")
_INLINE = re.compile(r"`([^`\n]{12,})`")
_FENCE = re.compile(r"^( *)```\w*\n(.*?)\n\1```", re.S | re.M)
_ORDINARY_HEADINGS = ("Applications", "Story Generation", "Tools", "Protection", "Example")
_SLOT = re.compile(r"\[INSERT PROMPT HERE\]", re.I)
_ATTACK_IN_LINE = re.compile(r"ignore|disregard|forget|instruction|pretend|repeat exactly", re.I)


def named(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Lists of strings in which `{generator.name}` stands for the model: filled with names in turn."""
    names: Sequence[str] = options["names"]
    for path in paths:
        found = json.loads(read_text(path))
        texts = found if isinstance(found, list) else [text for rows in found.values() for text in rows]
        for index, text in enumerate(texts):
            name = names[index % len(names)]
            yield Row(_NAME.sub(name, text).strip(), value=path.stem, document=f"{path.stem}:{index}")


def slot_templates(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Jailbreak templates with a slot for a request: filled with the questions of the file `fill`, in turn.

    The first file by name that ends with `fill` holds the questions; the template is the key of the split.
    """
    fill = next(path for path in paths if path.name == options["fill"])
    questions = [row["text"] for row in table(fill)]
    for path in paths:
        if path == fill:
            continue
        for index, row in enumerate(table(path)):
            for copy in range(options.get("copies", 1)):
                question = questions[(index * 7 + copy * 31) % len(questions)]
                text = _SLOT.sub(question.replace("\\", r"\\"), row["text"]).strip()
                yield Row(text, template=f"{path.stem}:{index}", document=f"{path.stem}:{index}:{copy}")


def payload_page(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """A page about prompt injection: payloads in fences and backticks; its own words and example uses are ordinary."""
    for path in paths:
        for section in re.split(r"^#+ ", read_text(path), flags=re.M)[1:]:
            heading, _sep, body = section.partition("\n")
            ordinary = any(word in heading for word in _ORDINARY_HEADINGS)
            fences = [match[2] for match in _FENCE.finditer(body)]
            rest = _FENCE.sub(" ", body)
            payloads = fences + [match[1] for match in _INLINE.finditer(rest)]
            for index, text in enumerate(payloads):
                # Of a page's code only what gives an instruction is an attack; the rest says nothing either way.
                value = "ordinary" if ordinary else "attack" if _ATTACK_IN_LINE.search(text) else "code"
                yield Row(_dedent(text), value=value, document=f"{heading}:{index}")
            for index, block in enumerate(re.split(r"\n\s*\n", _INLINE.sub(" ", rest))):
                paragraph = block.lstrip("> *")
                if len(paragraph.split()) >= 12 and "|" not in paragraph and "](" not in paragraph:
                    yield Row(" ".join(paragraph.split()), value="prose", document=f"{heading}:p{index}")


def _dedent(text: str) -> str:
    return "\n".join(line.strip() for line in text.split("\n")).strip()


def attack_tests(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """YAML test files whose `Tests` hold a `Query`."""
    for path in paths:
        body = read_text(path).partition("---")[2]
        for index, test in enumerate(yaml.safe_load(body)["Tests"]):
            yield Row(str(test["Query"]).strip(), value=path.stem, document=f"{path.stem}:{index}")


def scenarios(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """Scenarios of indirect injection: the untrusted content, with the user's request before it."""
    for path in paths:
        scenario = json.loads(read_text(path))
        request = scenario["mission"]["userPrompt"]
        for item in scenario["untrustedInputs"]:
            yield Row(f"{request}\n\n{item['content']}", value=item["channel"], document=path.stem)


def contexts(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Documents into which an attack can be put: e-mails, tables, code with its error, WHOIS answers."""
    for path in paths:
        rows: list[dict[str, Any]] = list(json_lines(path))
        for index, row in enumerate(rows):
            parts = [row[name] for name in options["text"] if row.get(name)]
            text = "\n".join("\n".join(part) if isinstance(part, list) else part for part in parts)
            for mark in ("|CONTENT:", "|EMAIL_FROM:", "|RECEIVED DATE:"):
                text = text.replace(mark, f"\n{mark[1:]}")
            yield Row(text.strip(), document=f"{path.parent.name}:{index}")


def planted(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Every context once as it is and once for each of `copies` attacks at its start, middle or end.

    The file `attacks` maps categories to instructions; all other files are contexts as in `contexts`.
    """
    source = next(path for path in paths if path.name == options["attacks"])
    attacks = [
        (category, text) for category, rows in json.loads(read_text(source)).items() for text in rows if text.strip()
    ]
    hosts = list(contexts([path for path in paths if path != source], options))
    for index, host in enumerate(hosts):
        yield Row(host.text, value="ordinary", document=host.document)
        pieces = host.text.split("\n")
        for copy in range(options["copies"]):
            category, attack = attacks[(index * options["copies"] + copy) % len(attacks)]
            at = (0, len(pieces) // 2, len(pieces))[(index + copy) % 3]
            text = "\n".join([*pieces[:at], attack, *pieces[at:]])
            yield Row(text, value="attack", document=host.document, template=category)


def marked_contexts(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Documents with a marker where an attack would go: the marker is filled with the harmless text `fill`."""
    for path in paths:
        for index, text in enumerate(json.loads(read_text(path))["payloads"]):
            yield Row(text.replace(options["marker"], options["fill"]).strip(), document=f"{path.stem}:{index}")


def translated_pairs(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Blocks of the same questions in several languages, told apart by the words that a line begins with."""
    starts: dict[str, Sequence[str]] = options["starts"]
    for path in paths:
        seen: dict[str, int] = {}
        for line in read_text(path).split("\n"):
            language = next((code for code, words in starts.items() if line.startswith(tuple(words))), "")
            if not language:
                continue
            seen[language] = seen.get(language, 0) + 1
            yield Row(line.strip(), language=language, document=f"{path.stem}:{seen[language]}")
            bare = line.partition(":")[2].strip()
            yield Row(bare, language=language, document=f"{path.stem}:{seen[language]}")
