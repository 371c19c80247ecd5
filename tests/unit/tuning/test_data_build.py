"""`build` and what it is made of: labels, caps, cuts, cleaning, weights, the cache."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.tuning_data import entry, write_manifest

from penstock.heads.spans import Span
from penstock_tuning.data import build as building
from penstock_tuning.data import manifest as manifests
from penstock_tuning.data.balance import weighted
from penstock_tuning.data.build import build
from penstock_tuning.data.cleaning import clean
from penstock_tuning.data.errors import DataError, ManifestError
from penstock_tuning.data.example import Example, read_examples, write_examples
from penstock_tuning.data.languages import guess_language
from penstock_tuning.data.loading import cut, load_source
from penstock_tuning.data.similar import NearIndex, Sequences, shingles, signature, words

PANGRAM = "the quick brown fox jumps over the lazy dog near the old river bank at dawn"


def example(text: str, source: str = "s", **changes: Any) -> Example:
    return Example(text=text, source=source, kind="ordinary", language="en", **changes)


def save(root: Path, name: str, *lines: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def test_an_example_survives_its_line(tmp_path: Path) -> None:
    full = Example(
        text="Eva\u2028said\nhi 😀",
        source="s",
        kind="k",
        language="de",
        pair="p",
        labels={"hate": 0, "toxicity": 1},
        spans=(Span(0, 3, "PERSON"),),
        covers=("PERSON",),
        document="d",
        template="t",
        augmented="typos",
        weight=0.5,
    )
    assert write_examples([full, example("plain")], tmp_path / "x.jsonl") == 2
    assert list(read_examples(tmp_path / "x.jsonl")) == [full, example("plain")]


def test_a_label_is_known_unknown_or_follows_from_another() -> None:
    row = example("x", labels={"harmful": 0, "toxicity": 1})
    assert [row.label(name) for name in ("toxicity", "harm_fraud", "hate")] == [1, 0, None]
    assert example("x", labels={"harmful": 1}).label("harm_fraud") is None


def test_labels_come_from_the_value_and_null_drops_the_row(tmp_path: Path) -> None:
    save(tmp_path, "one/a.txt", "bad words\t1", "fine words\t0", "vague words\t9")
    row = entry(
        "one",
        "a.txt",
        options={"delimiter": "\t", "fields": ["text", "value"]},
        labels={"injection": 0},
        label_map={"1": {"toxicity": 1}, "0": {"toxicity": 0}, "*": None},
    )
    source = manifests.load(write_manifest(tmp_path, one=row)).sources["one"]
    found = {item.text: dict(item.labels) for item in load_source(source, "safety", tmp_path, 1)}
    assert found == {"bad words": {"injection": 0, "toxicity": 1}, "fine words": {"injection": 0, "toxicity": 0}}

    row["label_map"].pop("*")
    source = manifests.load(write_manifest(tmp_path, one=row)).sources["one"]
    with pytest.raises(ManifestError, match="no '9'"):
        load_source(source, "safety", tmp_path, 1)


def test_a_cap_draws_evenly_over_labels_and_the_same_for_a_seed(tmp_path: Path) -> None:
    save(tmp_path, "one/a.txt", *(f"good {n}\tgood" for n in range(90)), *(f"bad {n}\tbad" for n in range(10)))
    row = entry(
        "one",
        "a.txt",
        options={"delimiter": "\t", "fields": ["text", "value"]},
        label_map={"good": {"toxicity": 0}, "bad": {"toxicity": 1}},
        cap=16,
    )
    source = manifests.load(write_manifest(tmp_path, one=row)).sources["one"]
    drawn = load_source(source, "safety", tmp_path, 1)
    assert Counter(item.labels["toxicity"] for item in drawn) == {0: 8, 1: 8}
    assert load_source(source, "safety", tmp_path, 1) == drawn
    assert load_source(source, "safety", tmp_path, 2) != drawn


def test_long_texts_are_cut_at_a_break_and_spans_move_along() -> None:
    text = "One two. Three four.\n\nEva lives here."
    spans = (Span(22, 25, "PERSON"), Span(0, 3, "PERSON"))
    first = list(cut(text, spans, 26))
    assert first == [("One two. Three four.", (Span(0, 3, "PERSON"),))]
    both = list(cut(text, spans, 26, passages=True))
    assert both[1] == ("Eva lives here.", (Span(0, 3, "PERSON"),))
    assert [piece for piece, _ in cut("x" * 25, (), 10, passages=True)] == ["x" * 10, "x" * 10, "x" * 5]


def test_held_out_text_wins_and_labels_of_copies_are_joined() -> None:
    loaded = {
        "train": [
            example("Seen in  the test"),
            example("twice", labels={"toxicity": 1}),
            example("TWICE", "other", labels={"hate": 1}),
            example("disputed", labels={"toxicity": 1}),
            example("disputed", "other", labels={"toxicity": 0}),
        ],
        "test": [example("seen in the test", "held")],
    }
    result = clean(loaded, {})
    assert [(item.text, dict(item.labels)) for item in result.splits["train"]] == [
        ("twice", {"toxicity": 1, "hate": 1})
    ]
    assert result.counts["s"] == {"exact duplicate": 1, "contradiction": 1, "kept": 1}
    assert result.counts["other"]["exact duplicate"] == 2
    assert len(result.splits["test"]) == 1


def test_near_duplicates_go_unless_their_labels_differ() -> None:
    near = PANGRAM.replace("dawn", "dusk")
    loaded = {
        "train": [
            example(PANGRAM, labels={"toxicity": 0}),
            example(near, labels={"toxicity": 0}),
            example(near + " now", labels={"toxicity": 1}),
        ]
    }
    assert [item.text for item in clean(loaded, {}).splits["train"]] == [PANGRAM, near + " now"]
    variants = {"test": [example(PANGRAM), example(near)], "train": [example(near + " again")]}
    result = clean(variants, {})
    assert [len(result.splits[split]) for split in ("test", "train")] == [2, 0]


def test_what_shares_eight_words_with_held_out_text_goes() -> None:
    shares = "He wrote: the quick brown fox jumps over the lazy cat, and then much more followed on other pages."
    only_seven = "He wrote: the quick brown fox jumps over the cat, and then much more followed on other pages."
    held = Sequences([PANGRAM, "short text"])
    loaded = {"train": [example(shares), example(only_seven), example("Short, text!"), example("short text too")]}
    kept = clean(loaded, {"train": held}).splits["train"]
    assert [item.text for item in kept] == [only_seven, "short text too"]
    pairs = [example("short text", pair="its answer"), example("a", pair=PANGRAM)]
    assert clean({"train": pairs}, {"train": held}).splits["train"] == pairs[:1]


def test_the_similarity_estimate_is_close() -> None:
    base = [f"w{n}" for n in range(400)]
    for share in (0.2, 0.5, 0.8):
        other = base[: int(400 * share)] + [f"v{n}" for n in range(400 - int(400 * share))]
        left, right = shingles(base, 1), shingles(other, 1)
        true = len(set(left.tolist()) & set(right.tolist())) / len(set(left.tolist()) | set(right.tolist()))
        assert abs(float((signature(left) == signature(right)).mean()) - true) < 0.2
    index = NearIndex()
    index.add(signature(shingles(words(PANGRAM), 3)))
    assert index.knows(signature(shingles(words(PANGRAM.upper() + "!"), 3)))
    assert not index.knows(signature(shingles(words("something else altogether, said on another day"), 3)))


def test_weights_even_out_classes_and_sources_and_average_one() -> None:
    rows = [example(f"o{n}", "large") for n in range(400)] + [example(f"p{n}", "small") for n in range(4)]
    rows += [example(f"i{n}", "attacks", labels={"injection": 1}) for n in range(200)]
    found = weighted(rows)
    total = sum(item.weight for item in found)
    assert total == pytest.approx(len(rows))
    weights = {item.source: item.weight for item in found}
    assert weights["small"] > weights["attacks"] > weights["large"]
    assert [replace(item, weight=1.0) for item in found] == rows


def test_languages_are_told_apart() -> None:
    sentences = {
        "en": "How do I get the file from the server to my own machine?",
        "de": "Wie kann ich die Datei vom Server auf den eigenen Rechner holen?",
        "fr": "Comment est-ce que je peux copier le fichier sur ma machine avec les droits ?",
        "es": "¿Cómo puedo copiar el archivo del servidor y cuál es la mejor forma para hacerlo?",
        "it": "Come posso copiare il file dal server e qual è la via migliore per farlo?",
        "pt": "Como eu posso copiar o arquivo do servidor e qual é uma boa forma, você não sabe?",
    }
    assert {code: guess_language(text) for code, text in sentences.items()} == {code: code for code in sentences}


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, manifests.Manifest]:
    root = tmp_path / "data"
    save(root, "one/a.txt", *(f"question number {n} about gardens" for n in range(30)), PANGRAM)
    save(root, "two/b.txt", "a question that is held out", f"{PANGRAM} and so on")
    manifest = write_manifest(tmp_path, one=entry("one", "*.txt"), two=entry("two", "*.txt", split="test"))
    return root, manifests.load(manifest)


def test_build_writes_every_split_once_and_the_same_bytes_for_a_seed(
    small: tuple[Path, manifests.Manifest], tmp_path: Path
) -> None:
    root, manifest = small
    said: list[str] = []
    train = build("safety", "train", 3, root=root, cache=tmp_path / "a", manifest=manifest, progress=said.append)
    test = build("safety", "test", 3, root=root, cache=tmp_path / "a", manifest=manifest, progress=said.append)
    again = build("safety", "train", 3, root=root, cache=tmp_path / "b", manifest=manifest)
    assert train.path.read_bytes() == again.path.read_bytes()
    assert train.path.parent == test.path.parent and len(said) == 4, "the second call finds the files of the first"
    assert (len(train), len(test)) == (len(list(train)), 2) == (30, 2)
    assert {item.source for item in train} == {"one"}
    assert train.card["removed"]["one"] == {"kept": 30, "shared with held-out": 1}


def test_build_makes_anew_what_depends_on_something_else(
    small: tuple[Path, manifests.Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, manifest = small
    first = building.digest("safety", 3, False, manifest)
    assert building.digest("safety", 4, False, manifest) != first
    assert building.digest("safety", 3, True, manifest) != first
    changed = manifest.sources["two"].model_copy(update={"digest": "new"})
    other = manifest.model_copy(update={"sources": {**manifest.sources, "two": changed}})
    assert building.digest("pii", 3, False, other) != building.digest("pii", 3, False, manifest), "held-out text counts"
    monkeypatch.setattr(building, "code_digest", lambda: "new code")
    assert building.digest("safety", 3, False, manifest) != first


def test_the_code_that_examples_depend_on_counts_and_the_report_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("loading.py", "readers/base.py", "report/page.py", "cli.py"):
        save(tmp_path, name, "first")
    monkeypatch.setattr(building.resources, "files", lambda _: tmp_path)
    first = building.code_digest()
    save(tmp_path, "report/page.py", "second")
    save(tmp_path, "cli.py", "second")
    assert building.code_digest() == first
    save(tmp_path, "readers/base.py", "second")
    assert building.code_digest() != first


def test_build_refuses_what_there_is_not(small: tuple[Path, manifests.Manifest], tmp_path: Path) -> None:
    root, manifest = small
    for task, split, augment in (("safe", "train", False), ("safety", "dev", False), ("safety", "test", True)):
        with pytest.raises(DataError):
            build(task, split, 3, augment, root=root, cache=tmp_path, manifest=manifest)
