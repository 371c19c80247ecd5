"""Generated text with names: check digits, exact spans, and no value on two sides of the split."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from tests.support.tuning_data import entry, write_manifest

from penstock_tuning.data import build as building
from penstock_tuning.data import manifest as manifests
from penstock_tuning.data.build import build
from penstock_tuning.data.errors import SourceMissingError
from penstock_tuning.data.example import LANGUAGES, PII, Example
from penstock_tuning.data.people import checksums, generate
from penstock_tuning.data.people.values import Values, lists, pack, position_side, side

DRAW = random.Random(11)


def test_cards_pass_luhn() -> None:
    for _ in range(200):
        number = re.sub(r"\D", "", checksums.card(DRAW))
        doubled = [sum(divmod(int(digit) * 2, 10)) for digit in number[-2::-2]]
        assert (sum(doubled) + sum(map(int, number[-1::-2]))) % 10 == 0
        assert len(number) in (15, 16)


@pytest.mark.parametrize(
    ("country", "length"), [("DE", 22), ("FR", 27), ("ES", 24), ("IT", 27), ("PT", 25), ("GB", 22)]
)
def test_ibans_are_one_modulo_97(country: str, length: int) -> None:
    for _ in range(50):
        number = checksums.iban(DRAW, country).replace(" ", "")
        assert len(number) == length and number.startswith(country)
        assert int("".join(str(int(letter, 36)) for letter in number[4:] + number[:4])) % 97 == 1


def test_the_known_examples_of_each_identity_number_would_be_drawn() -> None:
    for _ in range(100):
        tax = checksums.german_tax_id(DRAW)
        product = 10
        for digit in tax[:-1]:
            product = ((int(digit) + product) % 10 or 10) * 2 % 11
        assert (11 - product) % 10 == int(tax[-1]) and len(tax) == 11
        dni = checksums.spanish_dni(DRAW)
        assert dni[-1] == "TRWAGMYFPDXBNJZSQVHLCKE"[int(dni[:-1]) % 23]
        body, key = checksums.french_nir(DRAW).split(" ")
        assert (int(body) + int(key)) % 97 == 0 and len(body) == 13
        nif = [int(digit) for digit in checksums.portuguese_nif(DRAW)]
        assert sum(digit * weight for digit, weight in zip(nif, range(9, 0, -1), strict=True)) % 11 in (0, 1)
        area, group, serial = checksums.american_ssn(DRAW).split("-")
        assert area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, manifests.Manifest]:
    root = tmp_path / "data"
    entries = {}
    for language in LANGUAGES:
        names = "\n".join(f"{language.title()}{letter * 3}son" for letter in "abcdefghijklmnopqrstuvwxyz")
        path = root / "names" / f"{language}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(names)
        entries[f"surnames_{language}"] = entry("names", f"{language}.txt", tasks=["resource"])
    countries = [country for language in LANGUAGES for country in pack(language)["countries"]]
    cities = [f"{country} {a}{b}ville,{country}" for country in countries for a in "ABCDEFGH" for b in "aeiou"]
    (root / "names" / "cities.csv").write_text("\n".join(["name,country", *cities]))
    entries["world_cities"] = entry("names", "cities.csv", tasks=["resource"])
    tagged = "Gisela B-PER\nlives O\nhere O\n"
    (root / "ner.txt").write_text(tagged)
    options = {"types": {"PER": "PERSON"}}
    entries["ner"] = entry(".", "ner.txt", tasks=["pii"], reader="tokens", options=options, covers=["PERSON"])
    return root, manifests.load(write_manifest(tmp_path, **entries))


def marked(rows: list[Example], label: str) -> set[str]:
    return {row.text[span.start : span.end] for row in rows for span in row.spans if span.label == label}


def test_every_value_and_template_is_on_one_side(
    small: tuple[Path, manifests.Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, manifest = small
    monkeypatch.setattr(generate, "COUNTS", {"train": 150, "validation": 40, "test": 80})
    rows = {split: list(generate.generate(split, 2, manifest, root)) for split in ("train", "validation", "test")}
    for split, own in rows.items():
        assert {row.language for row in own} == set(LANGUAGES)
        assert all(row.covers == PII for row in own)
        assert all(side(city) == split for city in marked(own, "LOCATION"))
        assert any(not row.spans for row in own), "texts without a name"
    for label in ("PERSON", "ADDRESS", "ORGANIZATION", "LOCATION"):
        assert marked(rows["train"], label)
        assert not marked(rows["train"], label) & marked(rows["test"], label), label
    assert not {row.template for row in rows["train"]} & {row.template for row in rows["test"]}
    assert marked(rows["train"], "DATE_OF_BIRTH")
    assert list(generate.generate("test", 2, manifest, root)) == rows["test"]


def test_spans_are_exactly_what_was_filled_in(small: tuple[Path, manifests.Manifest]) -> None:
    root, manifest = small
    values = Values(lists("de", "train", manifest, root), random.Random(1))
    row = generate.fill(["{TITLED}, geb. {DATE_OF_BIRTH}", '{"a": "{PERSON}", "n": {NUMBER}}'], values, "de", "\n")
    first, second = row.text.split("\n")
    (name, birth, person) = (row.text[span.start : span.end] for span in row.spans)
    title, _, rest = first.partition(f" {name}, geb. ")
    assert title in pack("de")["titles"] and rest == birth
    assert second.startswith(f'{{"a": "{person}", "n": ') and second.endswith("}")
    assert [span.label for span in row.spans] == ["PERSON", "DATE_OF_BIRTH", "PERSON"]


def test_every_template_of_the_package_can_be_filled(small: tuple[Path, manifests.Manifest]) -> None:
    root, manifest = small
    for language in LANGUAGES:
        values = Values(lists(language, "train", manifest, root), random.Random(1))
        own = pack(language)
        for text in own["templates"]:
            assert generate.fill([text], values, language, " ").spans, text
        for text in own["none"]:
            row = generate.fill([text], values, language, " ")
            assert not row.spans and not re.search(r"\{[A-Z]", row.text), text
        assert position_side(own["templates"], "test") and position_side(own["none"], "validation")


def test_held_out_text_has_no_name_that_training_marks(
    small: tuple[Path, manifests.Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, manifest = small
    monkeypatch.setattr(generate, "COUNTS", {"train": 20, "validation": 40, "test": 300})
    monkeypatch.setattr(building, "code_digest", lambda: "")
    assert side("Gisela") == "test", "the name that the tagged text of training has"
    test = build("pii", "test", 2, root=root, cache=tmp_path, manifest=manifest)
    assert "Gisela" in " ".join(row.text for row in generate.generate("test", 2, manifest, root))
    assert not any("gisela" in name.lower() for name in marked(list(test), "PERSON"))
    assert len(test) == 300 * len(LANGUAGES)


def test_a_list_that_is_not_there_is_named(small: tuple[Path, manifests.Manifest]) -> None:
    root, manifest = small
    lacking = manifest.model_copy(update={"sources": {}})
    with pytest.raises(SourceMissingError, match="surnames_fr"):
        lists("fr", "train", lacking, root)
