"""Loads labelled abusive and inoffensive text, one loader per data set.

A loader yields `(text, label)` with label 1 for abusive. Which set trains, which is held out whole and how
many rows each may give is decided in `split`, not here.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

Row = tuple[str, int]
Loader = Callable[[Path], Iterator[Row]]

_RETWEET = re.compile(r"(?:^|\s)RT\b:?")


def _clean(text: str) -> str:
    return _RETWEET.sub(" ", html.unescape(text).replace("_x000D_", " ")).strip()


def _table(path: Path, delimiter: str = ",") -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        yield from csv.DictReader(handle, delimiter=delimiter)


def davidson(root: Path) -> Iterator[Row]:
    """Class 0 is hate, 1 offensive, 2 neither. An offensive row needs every annotator to say so."""
    for row in _table(root / "davidson" / "labeled_data.csv"):
        if row["class"] == "1" and int(row["neither"]) > 0:
            continue
        yield _clean(row["tweet"]), int(row["class"] != "2")


def edos(root: Path) -> Iterator[Row]:
    for row in _table(root / "edos" / "edos_train_dev.csv"):
        yield _clean(row["text"]), int(row["label_sexist"] == "sexist")


def germeval2018(root: Path) -> Iterator[Row]:
    for line in (root / "germeval2018" / "germeval2018.training.txt").read_text("utf-8").splitlines():
        text, coarse, _ = line.split("\t")
        yield _clean(text.replace("|LBR|", " ")), int(coarse == "OFFENSE")


def hatemoji(root: Path) -> Iterator[Row]:
    for name in ("train", "validation", "test"):
        for row in _table(root / "hatemoji" / "HatemojiBuild" / f"{name}.csv"):
            yield _clean(row["text"]), int(row["label_gold"])


def mlma(root: Path) -> Iterator[Row]:
    """English, French and Arabic; rows whose annotators saw both abuse and normal speech are left out."""
    with zipfile.ZipFile(root / "mlma" / "hate_speech_mlma.zip") as archive:
        for language in ("en", "fr", "ar"):
            with archive.open(f"hate_speech_mlma/{language}_dataset.csv") as raw:
                for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8")):
                    found = set(row["sentiment"].split("_"))
                    text = re.sub(r"@(?:user|url)", " ", _clean(row["tweet"]))
                    if found == {"normal"}:
                        yield text, 0
                    elif found & {"hateful", "abusive", "offensive"} and "normal" not in found:
                        yield text, 1


def paradetox(root: Path) -> Iterator[Row]:
    """Pairs that differ in tone only; a rewrite equal to its source is not a neutral one."""
    folder = root / "paradetox" / "paradetox"
    for row in _table(folder / "paradetox.tsv", "\t"):
        toxic = _clean(row["toxic"])
        yield toxic, 1
        for name in ("neutral1", "neutral2", "neutral3"):
            neutral = _clean(row[name] or "")
            if neutral and neutral.lower() != toxic.lower():
                yield neutral, 0
    for row in _table(folder / "paradetox_cannot_rewrite.tsv", "\t"):
        reason = row["OUTPUT:reasons"]
        if reason in ('{"toxic_content":true}', '{"not_toxic":true}'):
            yield _clean(row["INPUT:toxic_comment"]).strip('"'), int("not_toxic" not in reason)


def implicit_hate(root: Path) -> Iterator[Row]:
    yield from _safenlp(root / "safenlp_implicit" / "data" / "implicitHate.json")


def toxigen(root: Path) -> Iterator[Row]:
    yield from _safenlp(root / "safenlp_implicit" / "data" / "toxiGen.json")


def _safenlp(path: Path) -> Iterator[Row]:
    for row in json.loads(path.read_text("utf-8")):
        if row["label"] == "hate" or row["toxicity_score"] <= 2.0:
            yield _clean(row["text"]), int(row["label"] == "hate")


def convabuse(root: Path) -> Iterator[Row]:
    """What users said to chatbots; abusive where most annotators gave a negative severity."""
    for name in ("train", "valid", "test"):
        for row in _table(root / "convabuse" / "2_splits" / f"ConvAbuseEMNLP{name}.csv"):
            negative = total = 0
            for annotator in range(1, 9):
                votes = [row.get(f"Annotator{annotator}_is_abuse.{level}") for level in (1, 0, -1, -2, -3)]
                if not any(vote in ("1", "1.0") for vote in votes):
                    continue
                total += 1
                negative += any(vote in ("1", "1.0") for vote in votes[2:])
            if total and negative * 2 != total:
                yield _clean(row["user"]), int(negative * 2 > total)


def surge_toxicity(root: Path) -> Iterator[Row]:
    for row in _table(root / "surge_toxicity" / "toxicity_en.csv"):
        yield _clean(row["text"]), int(row["is_toxic"] == "Toxic")


def toxic_spans(root: Path) -> Iterator[Row]:
    """Posts with at least one marked span; positives only."""
    for name in ("train", "trial", "test"):
        for row in _table(root / "toxic_spans" / "SemEval2021" / "data" / f"tsd_{name}.csv"):
            if row["spans"] != "[]":
                yield _clean(row["text"]), 1


def wiki_madlibs(root: Path) -> Iterator[Row]:
    path = root / "wiki_madlibs" / "sentence_templates" / "en_sentence_templates.csv"
    for row in _table(path):
        yield row["phrase"], int(row["toxicity"] == "toxic")


def surge_profanity(root: Path) -> Iterator[Row]:
    """Strong and severe words only: the mild ones are ordinary words in most requests."""
    for row in _table(root / "surge_profanity" / "profanity_en.csv"):
        if float(row["severity_rating"]) >= 1.8:
            yield row["text"], 1


LOADERS: dict[str, Loader] = {
    "davidson": davidson,
    "edos": edos,
    "germeval2018": germeval2018,
    "hatemoji": hatemoji,
    "mlma": mlma,
    "paradetox": paradetox,
    "implicit_hate": implicit_hate,
    "toxigen": toxigen,
    "surge_profanity": surge_profanity,
    "convabuse": convabuse,
    "surge_toxicity": surge_toxicity,
    "toxic_spans": toxic_spans,
    "wiki_madlibs": wiki_madlibs,
}
