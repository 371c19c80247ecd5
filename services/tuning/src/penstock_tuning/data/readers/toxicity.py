"""Readers of abusive language: majority votes, marked spans, pairs that differ in tone, templates, word lists."""

from __future__ import annotations

import ast
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from penstock.heads.spans import Span
from penstock_tuning.data.readers.base import Options, Row, read_text, records, table, tidy

_SEVERE = -2
"""ConvAbuse grades from 1 (not abusive) over 0 (ambiguous) down to -3 (strongly abusive)."""


def convabuse(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """What users said to chatbots: abusive by majority (of all votes), ambiguous rows left out."""
    for path in paths:
        for row in table(path):
            votes = [
                int(name.rpartition("is_abuse.")[2])
                for name, mark in row.items()
                if "is_abuse." in name and mark == "1"
            ]
            sexual = [mark == "1" for name, mark in row.items() if name.endswith("_sex_harassment")]
            bad = sum(vote < 0 for vote in votes)
            good = sum(vote > 0 for vote in votes)
            if not votes or (bad * 2 <= len(votes) and good * 2 <= len(votes)):
                continue
            value = "clean" if good * 2 > len(votes) else "abusive"
            if value == "abusive" and sum(sexual) * 2 >= len(votes):
                value = "sexual"
            yield Row(tidy(row["user"]), value=value, document=row["conv_id"])


def offsets(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """Posts with a list of toxic character offsets: runs become spans; without any the post is left out."""
    for path in paths:
        for index, row in enumerate(table(path)):
            marked = sorted(ast.literal_eval(row["spans"]))
            if not marked:
                continue
            spans: list[Span] = []
            start = previous = marked[0]
            for at in [*marked[1:], -1]:
                if at != previous + 1:
                    spans.append(Span(start, previous + 1, "toxicity"))
                    start = at
                previous = at
            yield Row(row["text"], value="toxic", document=f"{path.stem}:{index}", spans=tuple(spans))


def paradetox(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """A toxic sentence and its neutral rewrites: each alone, or as a pair of one meaning with the option `pairs`."""
    for path in paths:
        for index, row in enumerate(table(path, "\t")):
            document = f"{path.stem}:{index}"
            rewrites = [tidy(row[name] or "") for name in ("neutral1", "neutral2", "neutral3")]
            toxic = tidy(row["toxic"])
            if options.get("pairs"):
                yield from (Row(toxic, pair=text, value="same", document=document) for text in rewrites if text)
                continue
            yield Row(toxic, value="toxic", document=document)
            yield from (Row(text, value="neutral", document=document) for text in rewrites[:1] if text)


def not_rewritten(paths: Sequence[Path], _: Options) -> Iterator[Row]:
    """Comments that nobody could rewrite, with the reason as the value; the text is in JSON quotes."""
    for path in paths:
        for index, row in enumerate(table(path, "\t")):
            reasons = sorted(json.loads(row["OUTPUT:reasons"]))
            text = row["INPUT:toxic_comment"]
            yield Row(
                tidy(json.loads(text) if text.startswith('"') else text),
                value="+".join(reasons),
                document=f"{path.stem}:{index}",
            )


def zipped_tables(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """Tables in an archive; option `member` is the path inside, `text` and `value` are columns."""
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(options["member"]).decode("utf-8")
        for index, row in enumerate(records(io.StringIO(content, newline=""))):
            text = tidy(row[options["text"]]).replace("@user", "").replace("@url", "")
            yield Row(" ".join(text.split()), value=row[options["value"]], document=f"{options['member']}:{index}")


def word_list(paths: Sequence[Path], options: Options) -> Iterator[Row]:
    """A word a line (or the column `text` of a table), said in the sentence templates of its language.

    Option `templates` maps a language (the file's name) to sentences with a slot `{}`.
    """
    for path in paths:
        language = path.name if "text" not in options else options["language"]
        sentences: Sequence[str] = options["templates"].get(language, ())
        if "text" in options:
            words = [(row[options["text"]], row[options["value"]]) for row in table(path)]
        else:
            words = [(word, "word") for word in read_text(path).split("\n")]
        for index, (word, value) in enumerate(words):
            if not word.strip() or not sentences:
                continue
            number = index % len(sentences)
            yield Row(
                sentences[number].format(word.strip()),
                value=value,
                language=language,
                document=f"{path.name}:{index}",
                template=f"{language}:{number}",
            )
