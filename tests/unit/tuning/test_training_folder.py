"""What every recipe's finished folder has: its place, its record."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_tuning.training.folder import put_in_place
from penstock_tuning.training.record import with_entry


@pytest.mark.parametrize("left", [".model.old", None])
def test_a_new_folder_replaces_the_old_one_whole(tmp_path: Path, left: str | None) -> None:
    target, new = tmp_path / "model", tmp_path / ".model.new"
    target.mkdir()
    if left:
        (tmp_path / left / "of").mkdir(parents=True)
    new.mkdir()
    (target / "old").write_text("1", encoding="utf-8")
    (new / "new").write_text("2", encoding="utf-8")
    put_in_place(new, target)
    assert [file.name for file in target.iterdir()] == ["new"]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_record_keeps_its_order_where_a_recipe_adds_to_it() -> None:
    record = with_entry({"name": "one", "history": []}, "measured", {"text": 1}, before="history")
    assert list(record.items()) == [("name", "one"), ("measured", {"text": 1}), ("history", [])]
    with pytest.raises(ValueError, match="not in list"):
        with_entry(record, "encoder", {}, before="data")
