"""Reading and splitting the public text sets, on small files made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock_tuning.data.errors import SourceMissingError
from penstock_tuning.lm.conversations import Conversation
from penstock_tuning.lm.corpus import (
    Document,
    held_out,
    is_held_out,
    read_text,
    split_key,
    strip_gutenberg,
    unwrap,
)
from penstock_tuning.lm.held_out import FILE, carriers_of, held_out_texts


def test_latin_1_files_are_read_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Überfluß\r\nça".encode("latin-1"))
    (tmp_path / "b.txt").write_bytes("Überfluß\r\nça".encode())
    assert read_text(tmp_path / "a.txt") == read_text(tmp_path / "b.txt") == "Überfluß\nça"


def test_the_gutenberg_frame_is_cut_off() -> None:
    text = "Licence\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n{story}\n*** END OF THIS PROJECT\nMore"
    assert strip_gutenberg(text.format(story="The story. " * 20)) == ("The story. " * 20).strip()
    assert strip_gutenberg("No frame here.") == "No frame here."


def test_wrapped_lines_are_joined_by_paragraph() -> None:
    assert unwrap("a\nb\n\n\nc  d\n") == "a b\n\nc d"


def test_translations_share_their_split_key() -> None:
    assert split_key("guide", "_articles/fr/best.md") == split_key("guide", "_articles/best.md")
    assert split_key("docs", "docs/de/docs/x.md") == split_key("docs", "docs/pt-br/docs/x.md")
    assert split_key("docs", "docs/de/docs/x.md") != split_key("docs", "docs/de/docs/y.md")


def test_the_split_is_stable_and_near_its_share() -> None:
    chosen = [is_held_out(f"key:{n}", 3) for n in range(5000)]
    assert chosen == [is_held_out(f"key:{n}", 3) for n in range(5000)]
    assert 100 < sum(chosen) < 200


def test_whole_novels_are_held_out_and_the_others_never() -> None:
    assert held_out(Document("novels", "gutenberg_novels", "en", "novel-held-out", ""))
    keys = [f"novel-train:emma:{n}" for n in range(500)]
    assert not any(held_out(Document("novels", "gutenberg_novels", "en", key, "")) for key in keys)


def test_missing_data_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(SourceMissingError, match="penstock tune data verify"):
        held_out_texts(tmp_path, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_held_out_texts_are_read_once(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"documents": [], "conversations": [], "carriers": ["a b c"]}), "utf-8")
    assert held_out_texts(tmp_path / "nowhere", tmp_path)["carriers"] == ["a b c"]


def test_carriers_are_short_user_turns() -> None:
    turns = (
        ("user", "Where is the next station?\nmore"),
        ("assistant", "Over there on the left side."),
        ("user", "ok"),
    )
    assert carriers_of([Conversation("g", "s", "k", turns)]) == ["Where is the next station?"]
