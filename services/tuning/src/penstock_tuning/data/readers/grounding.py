"""Readers of responses with the evidence that they should follow from: `text` is the response, `pair` the evidence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from penstock_tuning.data.readers.base import Options, Row, read_text, table, tidy

_CLAIM = re.compile(r'"(.+?)"', re.S)


def audited(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """Dialogue responses with the evidence they were given; the value is the annotators' class in lower case."""
    responses = ("response", "ctrl", "doha", "gpt2", "t5")
    for path in paths:
        for index, row in enumerate(table(path, "\t" if path.suffix == ".tsv" else ",")):
            evidence = row.get("evidence") or row.get("knowledge") or ""
            response = next(row[name] for name in responses if row.get(name) is not None)
            label = row.get("BEGIN") or row.get("begin_label") or ""
            value = ",".join(sorted(part.strip().lower() for part in label.split(",")))
            if evidence.strip() and response.strip():
                yield Row(tidy(response), pair=tidy(evidence), value=value, document=f"{path.stem}:{index}")


def edited_summaries(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """A summary, or the same with one edit, and its document, of which the first `chars` characters are kept."""
    for path in paths:
        for row in json.loads(read_text(path)):
            document = tidy(row["doc"])
            if len(document) > options.get("chars", 1 << 20):
                continue
            yield Row(tidy(row["summary"]), pair=document, value=str(row["label"]), document=row["id"][:12])


def answers(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Extracted answers: the question and answer with the passage around it, and with another passage of the article.

    `mode: similarity` gives the question and the passage instead.
    """
    window: int = options.get("chars", 900)
    for path in paths:
        for article in json.loads(read_text(path))["data"]:
            for paragraph in article["paragraphs"]:
                context = paragraph["context"]
                for qa in paragraph["qas"]:
                    answer = qa["answers"][0]
                    start = max(0, answer["answer_start"] - window // 2)
                    around = tidy(context[start : start + window])
                    document = str(paragraph["document_id"])
                    if options.get("mode") == "similarity":
                        yield Row(tidy(qa["question"]), pair=around, value="same", document=document)
                        continue
                    said = tidy(f"{qa['question']} {answer['text']}")
                    yield Row(said, pair=around, value="entailed", document=document)
                    far = (start + len(context) // 2) % max(1, len(context) - window)
                    if abs(far - start) > window:
                        yield Row(said, pair=tidy(context[far : far + window]), value="not", document=document)


def claims(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """Claims with "yes" or "no" and the fact that decides: the claim follows from the fact, or it does not."""
    for path in paths:
        for index, line in enumerate(read_text(path).split("\n")):
            columns = line.split("\t")
            if len(columns) < 3:
                continue
            question, answer, fact = (column.replace("\\n", "\n") for column in columns[:3])
            match = _CLAIM.search(question)
            if match:
                yield Row(match[1].strip(), pair=fact.strip(), value=answer.strip(), document=f"{path.stem}:{index}")


def chosen_answers(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """Questions with lettered options: question and right option with the explanation, then with a wrong option."""
    for path in paths:
        for index, line in enumerate(read_text(path).split("\n")):
            columns = line.split("\t")
            if len(columns) < 3:
                continue
            question, answer, why = (column.replace("\\n", "\n") for column in columns[:3])
            stem, _sep, listed = question.partition("\nOptions:")
            options = [re.sub(r"^- ?(\(\w\) )?", "", option).strip() for option in listed.strip().split("\n")]
            letters = re.findall(r"^- (\(\w\))", listed, re.M)
            right = options[letters.index(answer.strip())] if answer.strip() in letters else answer.strip()
            wrong = [option for option in options if option != right]
            if not stem.strip() or not wrong or right not in options:
                continue
            document = f"{path.stem}:{index}"
            yield Row(f"{stem.strip()} {right}", pair=why.strip(), value="yes", document=document)
            other = wrong[index % len(wrong)]
            yield Row(f"{stem.strip()} {other}", pair=why.strip(), value="no", document=document)
