"""The split of the abusive-language data: sources held out whole, near-duplicates across it dropped."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_safety.features import FeatureSettings
from penstock_tuning.abuse import benign_sources, split, toxic_sources

SETTINGS = FeatureSettings()
QUOTED = "one two three four five six seven eight nine ten"


@pytest.fixture(autouse=True)
def tiny_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    def benign(name: str, texts: list[str]) -> benign_sources.Loader:
        def load(root: Path) -> Iterator[str]:
            yield from (f"{name} {text}" for text in texts)

        return load

    def toxic(name: str, rows: list[tuple[str, int]]) -> toxic_sources.Loader:
        def load(root: Path) -> Iterator[tuple[str, int]]:
            yield from rows

        return load

    monkeypatch.setattr(
        benign_sources,
        "LOADERS",
        {
            "train_b": benign("t", [f"ordinary request {n}" for n in range(50)]),
            "valid_b": benign("v", ["a question"]),
            "report_b": benign("r", [f"as someone said {QUOTED} yesterday"]),
        },
    )
    monkeypatch.setattr(
        toxic_sources,
        "LOADERS",
        {
            "train_t": toxic(
                "t", [("you fool", 1), (f"you {QUOTED} fool", 1), ("Short insult!", 1), ("a nice day", 0)]
            ),
            "report_t": toxic("r", [("short insult", 1), ("another insult entirely", 1)]),
        },
    )
    monkeypatch.setattr(split, "TRAIN_BENIGN", {"train_b": 30})
    monkeypatch.setattr(split, "VALID_BENIGN", {"valid_b": 10})
    monkeypatch.setattr(split, "REPORT_BENIGN", {"report_b": 10})
    monkeypatch.setattr(split, "TRAIN_TOXIC", {"train_t": 10})
    monkeypatch.setattr(split, "REPORT_TOXIC", {"report_t": 10})


def test_whole_sources_are_held_out() -> None:
    rows = split.build(Path(), 7, SETTINGS)
    assert set(rows.sources) == {"train_b", "train_t"}
    assert set(rows.report_toxic) == {"report_t"}
    assert len(rows.texts) == len(rows.labels) == len(rows.sources)


def test_rows_sharing_eight_words_or_a_whole_short_text_with_a_held_out_text_are_dropped() -> None:
    rows = split.build(Path(), 7, SETTINGS)
    assert not any(QUOTED in text for text in rows.texts)
    assert not any("short insult" in text.lower() for text in rows.texts)
    assert any("you fool" in text for text in rows.texts)
    assert rows.dropped == 2


def test_caps_hold_and_the_seed_decides() -> None:
    first, again, other = (split.build(Path(), seed, SETTINGS) for seed in (7, 7, 8))
    assert first.sources.count("train_b") == 30
    assert first.texts == again.texts
    assert first.texts != other.texts


def test_an_insult_put_into_a_request_keeps_its_label() -> None:
    seen = False
    for seed in range(20):
        rows = split.build(Path(), seed, SETTINGS)
        for text, label, source in zip(rows.texts, rows.labels, rows.sources, strict=True):
            if source == "train_t":
                assert label == int("nice day" not in text)
                seen = seen or ("ordinary request" in text and label == 1)
    assert seen
