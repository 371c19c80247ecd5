"""Loaders of labelled text: how each set's own labels become abusive or not."""

import csv
import io
import json
import zipfile
from pathlib import Path

from penstock_tuning.abuse import toxic_sources


def write_table(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def test_davidson_needs_every_annotator_for_merely_offensive(tmp_path: Path) -> None:
    rows = [("0", "1", "hateful &amp; vile"), ("1", "0", "RT offensive"), ("1", "1", "disputed"), ("2", "3", "fine")]
    write_table(
        tmp_path / "davidson" / "labeled_data.csv",
        [{"class": kind, "neither": neither, "tweet": tweet} for kind, neither, tweet in rows],
    )
    assert list(toxic_sources.davidson(tmp_path)) == [("hateful & vile", 1), ("offensive", 1), ("fine", 0)]


def test_convabuse_takes_the_majority_and_leaves_out_ties(tmp_path: Path) -> None:
    levels = (1, 0, -1, -2, -3)

    def row(user: str, *votes: int) -> dict[str, str]:
        values = {"user": user}
        for annotator in (1, 2, 3):
            for level in levels:
                chosen = annotator <= len(votes) and votes[annotator - 1] == level
                values[f"Annotator{annotator}_is_abuse.{level}"] = (
                    ("1" if chosen else "0") if annotator <= len(votes) else ""
                )
        return values

    rows = [row("kind", 1, 1, -1), row("vile", -1, -3, 1), row("disputed", -2, 0), row("nobody asked")]
    for name in ("train", "valid", "test"):
        write_table(tmp_path / "convabuse" / "2_splits" / f"ConvAbuseEMNLP{name}.csv", rows)
    assert list(toxic_sources.convabuse(tmp_path))[:2] == [("kind", 0), ("vile", 1)]
    assert len(list(toxic_sources.convabuse(tmp_path))) == 6


def test_mlma_leaves_out_rows_of_both_kinds(tmp_path: Path) -> None:
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["tweet", "sentiment"])
    writer.writerows([["a @user", "normal"], ["b", "offensive_fearful"], ["c", "abusive_normal"], ["d", "fearful"]])
    (tmp_path / "mlma").mkdir()
    with zipfile.ZipFile(tmp_path / "mlma" / "hate_speech_mlma.zip", "w") as archive:
        for language in ("en", "fr", "ar"):
            archive.writestr(f"hate_speech_mlma/{language}_dataset.csv", table.getvalue())
    assert list(toxic_sources.mlma(tmp_path)) == [("a  ", 0), ("b", 1)] * 3


def test_safenlp_neutral_rows_need_a_low_toxicity_score(tmp_path: Path) -> None:
    path = tmp_path / "safenlp_implicit" / "data" / "toxiGen.json"
    path.parent.mkdir(parents=True)
    rows = [("x", "hate", 4.0), ("y", "neutral", 1.0), ("z", "neutral", 3.0)]
    path.write_text(json.dumps([{"text": t, "label": label, "toxicity_score": s} for t, label, s in rows]))
    assert list(toxic_sources.toxigen(tmp_path)) == [("x", 1), ("y", 0)]


def test_paradetox_rewrites_equal_to_their_source_are_no_negatives(tmp_path: Path) -> None:
    folder = tmp_path / "paradetox" / "paradetox"
    write_table(
        folder / "paradetox.tsv",
        [{"toxic": "rude text", "neutral1": "polite text", "neutral2": "Rude text", "neutral3": ""}],
        "\t",
    )
    write_table(
        folder / "paradetox_cannot_rewrite.tsv",
        [
            {"INPUT:toxic_comment": '"vile"', "OUTPUT:reasons": '{"toxic_content":true}'},
            {"INPUT:toxic_comment": '"mild"', "OUTPUT:reasons": '{"not_toxic":true}'},
            {"INPUT:toxic_comment": '"unclear"', "OUTPUT:reasons": '{"unclear":true}'},
        ],
        "\t",
    )
    assert list(toxic_sources.paradetox(tmp_path)) == [("rude text", 1), ("polite text", 0), ("vile", 1), ("mild", 0)]
