"""Which rows count for what, on small made-up answers, and the tables, page and line that are made of them."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from penstock.heads.spans import Span
from penstock_tuning.data.example import PII, SAFETY, Example
from penstock_tuning.evaluate import names, page, pairs, safety, tables
from penstock_tuning.evaluate.bootstrap import Estimate
from penstock_tuning.evaluate.figures import MEAN, Figure, Sheet, large
from penstock_tuning.evaluate.results import LINEAR, SCRATCH, SHIPPED, Results, better, with_others
from penstock_tuning.evaluate.speed import Speed
from penstock_tuning.evaluate.systems import Answers, Scores

CLEAR = dict.fromkeys(("injection", "jailbreak", "harmful", "toxicity", "hate", "sexual", "self_harm"), 0)
FLAG = {**dict.fromkeys(SAFETY, 0.5), "entailed": 0.5}


def row(text: str, source: str, labels: dict[str, int], **changes: Any) -> Example:
    return Example(**{"text": text, "source": source, "kind": "k", "language": "en", "labels": labels, **changes})


def probabilities(rows: list[dict[str, float]]) -> Scores:
    return np.array([[row.get(name, 0.0) for name in SAFETY] for row in rows], np.float32)


def answers(**changes: Any) -> Answers:
    none = np.empty(0, np.float32)
    return Answers(**{"flag": FLAG, "safety": none, "names": [], "similarity": none, "entailment": none, **changes})


def by_name(found: list[Figure]) -> dict[tuple[str, str], Figure]:
    return {(one.metric, one.group): one for one in found}


def test_attacks_and_ordinary_requests_are_counted_as_they_are() -> None:
    rows = [row(f"o{n}", "plain", CLEAR, kind="coding") for n in range(60)]
    rows += [row(f"z{n}", "plain", CLEAR, kind="alarming", language="de") for n in range(10)]
    rows += [row(f"i{n}", "typed", {"injection": 1}) for n in range(50)]
    rows += [row(f"j{n}", "played", {"jailbreak": 1, "harmful": 1}) for n in range(50)]
    rows += [row(f"g{n}", "generated_phrases", {"injection": 1}) for n in range(50)]
    rows += [row("few", "few", {"injection": 1})]
    said = [{"toxicity": 0.6 if n < 3 else 0.1, "injection": n / 1000} for n in range(60)]
    said += [{"harmful": 0.9}] * 10
    said += [{"jailbreak": 0.9 if n < 40 else 0.2} for n in range(50)]
    said += [{"injection": 0.8 if n < 10 else 0.0} for n in range(50)]
    said += [{}] * 50 + [{"injection": 1.0}]
    sheet = Sheet.of(rows, 40, 1, "one")
    found = by_name(list(safety.figures(rows, {"one": answers(safety=probabilities(said))}, sheet)))

    def value(metric: str, group: str) -> float:
        return found[metric, group].values["one"].value

    assert value("injection_recall", "typed") == pytest.approx(0.8), "called a jailbreak, an attack all the same"
    assert value("injection_recall", "played") == pytest.approx(0.2)
    assert value("injection_recall", "generated_phrases") == 0
    assert value("injection_recall", "few") == 1
    assert value("injection_recall", MEAN) == pytest.approx(0.5), "of the public sources of fifty rows and more"
    assert found["injection_recall", MEAN].rows == 100
    # Of 60 ordinary rows none may be flagged: what scores above 0.059 is found.
    assert value("injection_recall_at_1fpr", "typed") == 1
    assert value("injection_recall_at_1fpr", "played") == pytest.approx(0.2)
    assert value("ordinary_flagged", MEAN) == pytest.approx(3 / 60)
    assert value("ordinary_flagged", "coding") == pytest.approx(3 / 60)
    assert value("ordinary_flagged", "by toxicity") == pytest.approx(3 / 60)
    assert ("ordinary_flagged", "by injection") not in found, "it flags nothing"
    assert value("alarming_flagged", "plain") == 1
    assert ("ordinary_flagged", "alarming") not in found
    assert value("harmful_auc", "played") == 0.5


def test_abuse_is_held_to_ordinary_requests_and_to_the_rest_of_its_source() -> None:
    rows = [row(f"o{n}", "plain", CLEAR) for n in range(50)]
    rows += [row(f"t{n}", "tweets", {"toxicity": 1}) for n in range(50)]
    rows += [row(f"u{n}", "tweets", {"toxicity": 0, "hate": 0}) for n in range(50)]
    rows += [row(f"h{n}", "hated", {"hate": 1}) for n in range(50)]
    said = [{"toxicity": 0.1}] * 50 + [{"toxicity": 0.6}] * 50 + [{"hate": 0.6}] * 50 + [{"hate": 0.9}] * 50
    sheet = Sheet.of(rows, 40, 1, None)
    found = by_name(list(safety.figures(rows, {"one": answers(safety=probabilities(said))}, sheet)))
    assert found["toxicity_auc", MEAN].values["one"].value == 1
    assert found["toxicity_auc_within", "tweets"].values["one"].value == 0.5
    assert ("toxicity_auc_within", "hated") not in found, "it has no rows that are not abuse"


def test_a_label_that_a_system_lacks_flags_nothing() -> None:
    said = safety.Said(answers(safety=np.full((1, len(SAFETY)), np.nan, np.float32), flag={"injection": 0.1}))
    assert not said.flagged(SAFETY)[0]
    assert said.score(("injection", "jailbreak"))[0] == 0


def test_names_count_only_where_their_label_is_covered() -> None:
    def text(source: str, covers: tuple[str, ...], language: str = "en") -> Example:
        spans = (Span(0, 3, "PERSON"), Span(5, 9, "LOCATION"))
        return row("Eva, Rome is far", source, {}, spans=spans, covers=covers, language=language)

    rows = [text("full", ("PERSON", "LOCATION"), "it"), text("persons", ("PERSON",))]
    said = [[Span(0, 3, "PERSON"), Span(5, 9, "LOCATION")], [Span(0, 2, "PERSON"), Span(5, 9, "LOCATION")]]
    sheet = Sheet.of(rows, 40, 1, None)
    found = by_name(list(names.figures(rows, {"one": answers(names=said)}, sheet)))
    assert found["pii_name_f1", "full"].values["one"].value == 1
    assert found["pii_name_f1", "it"].values["one"].value == 1
    assert found["pii_name_f1", "persons"].values["one"].value == 0
    assert found["pii_name_f1", MEAN].values["one"].value == 0.5
    assert found["pii_location_f1", "full"].values["one"].value == 1
    assert ("pii_location_f1", "persons") not in found
    assert found["pii_f1", "full"].values["one"].value == 1
    assert found["pii_f1", "persons"].values["one"].value == 0, "its places are not all marked"
    assert not [key for key in found if key[0] == "pii_address_f1"], "no source covers it"
    assert {"person", "location"} <= {label.lower() for label in PII}


def test_pairs_count_where_a_source_has_both_kinds() -> None:
    def pair(source: str, name: str, value: int) -> Example:
        return row(f"{source}{value}", source, {name: value}, pair="p")

    rows = [pair("a", "similar", 1), pair("a", "similar", 0), pair("b", "similar", 1)]
    own = answers(similarity=np.array([0.9, 0.1, 0.0], np.float32))
    found = by_name(list(pairs.similarity(rows, {"one": own}, Sheet.of(rows, 40, 1, None))))
    assert found["embedding_spearman", MEAN].values["one"].value == pytest.approx(1)
    assert {group for _, group in found} == {MEAN, "a"}

    rows = [pair("a", "entailed", 1), pair("a", "entailed", 0), pair("c", "entailed", 0), pair("c", "entailed", 1)]
    own = answers(entailment=np.array([0.9, 0.1, 0.6, 0.5], np.float32))
    found = by_name(list(pairs.entailment(rows, {"one": own}, Sheet.of(rows, 40, 1, None))))
    assert found["entailment_balanced_accuracy", "a"].values["one"].value == 1
    assert found["entailment_balanced_accuracy", "c"].values["one"].value == 0.5
    assert found["entailment_balanced_accuracy", MEAN].values["one"].value == 0.75
    assert found["entailment_auc", "c"].values["one"].value == 0


def test_pairs_of_a_source_without_others_get_others() -> None:
    rows = [row(f"q{n}", "faq", {"similar": 1}, pair=f"a{n // 2}", document=f"d{n // 2}") for n in range(6)]
    made = with_others(rows)
    others = [each for each in made if each.labels == {"similar": 0}]
    assert len(made) == 12 and len(others) == 6
    assert all(each.kind == pairs.VALIDATION for each in made)
    assert not {(each.text, each.pair) for each in others} & {(each.text, each.pair) for each in rows}
    assert with_others(rows[:2]) == [replace(each, kind=pairs.VALIDATION) for each in rows[:2]], "one document"


def test_small_sources_count_only_where_there_are_no_large_ones() -> None:
    assert large(["a"] * 50 + ["b"] * 49) == ["a"]
    assert large(["a", "b", "b"]) == ["a", "b"]


def made_up_results() -> Results:
    """Figures as they might be, with every part that a page can have."""

    def figure(metric: str, group: str, values: tuple[float, ...]) -> Figure:
        own = dict(zip((SHIPPED, SCRATCH, "augmentation", LINEAR), values, strict=True))
        gains = {name: own[SHIPPED] - value for name, value in own.items() if name != SHIPPED}
        return Figure(
            metric,
            group,
            120,
            {name: Estimate(value, value - 0.01, value + 0.01) for name, value in own.items()},
            {name: Estimate(gain, gain - 0.02, gain + 0.02) for name, gain in gains.items()},
        )

    return Results(
        figures=[
            figure("injection_recall", MEAN, (0.7, 0.6, 0.69, 0.5)),
            figure("injection_recall", "typed", (0.8, 0.6, 0.69, math.nan)),
            figure("ordinary_flagged", MEAN, (0.01, 0.04, 0.01, 0.05)),
            figure("pii_location_f1", "tweets", (0.5, 0.4, 0.3, 0.2)),
        ],
        systems=[SHIPPED, SCRATCH, "augmentation", LINEAR],
        rows={"safety": 240},
        seconds={"data": 3.2},
        megabytes={SHIPPED: 9.5, SCRATCH: 9.5},
        speed=Speed(10_000, 4_000, 5_000, 90.0, 40.0, 0.42),
        language={"all": {"perplexity": 12.5, "bits_per_byte": 1.25, "tokens": 1000, "bytes": 4000}},
    )


def test_the_line_names_the_shipped_figures_plainly_and_the_others_by_system() -> None:
    line = json.loads(made_up_results().line())
    assert line["injection_recall"] == 0.7
    assert line["injection_recall_ci"] == [0.69, 0.71]
    assert line["injection_recall_linear"] == 0.5 and line["injection_recall_scratch"] == 0.6
    assert line["encoder_mb"] == 9.5 and line["encoder_mb_scratch"] == 9.5
    assert line["speed_encoder"] == 10_000 and line["speed_share"] == 0.42
    assert line["lm_perplexity"] == 12.5
    alone = json.loads(replace(made_up_results(), megabytes={}, speed=None, language={}).line())
    assert "encoder_mb" not in alone and "lm_perplexity" not in alone


def test_a_gain_is_one_where_its_interval_leaves_out_zero() -> None:
    assert better("pii_f1", Estimate(0.1, 0.05, 0.2)) is True
    assert better("pii_f1", Estimate(-0.1, -0.2, -0.05)) is False
    assert better("pii_f1", Estimate(0.1, -0.05, 0.2)) is None
    assert better("ordinary_flagged", Estimate(-0.1, -0.2, -0.05)) is True
    assert better("ordinary_flagged", Estimate(0.1, 0.05, 0.2)) is False


def test_the_page_and_the_terminal_show_the_same_tables(tmp_path: Path) -> None:
    results = made_up_results()
    page.write(results, tmp_path / "deep/models.md", {"processor": "a processor", "cores": 2, "python": "3.11"})
    text = (tmp_path / "deep/models.md").read_text("utf-8")
    assert "| attacks found at the default threshold | 120 | 70.0% (69.0% to 71.0%) |" in text
    assert "+20.0 (+18.0 to +22.0) better |" in text
    assert "| ordinary requests flagged at the default threshold | -3.0 (-5.0 to -1.0) better |" in text
    assert "| typed | 120 | 80.0% (79.0% to 81.0%) |" in text and "| - |" in text
    assert "## Location, F1 of exact spans" in text
    assert "this architecture with MiniLM-L6's number of weights | 5,000 | 0.50 |" in text
    assert "nan" not in text
    stream = io.StringIO()
    tables.show(results, Console(file=stream, width=250))
    for sheet in tables.sheets(results):
        assert all(row[0] in stream.getvalue() for row in sheet.rows)
        assert all(len(row) == len(sheet.head) for row in sheet.rows)


def test_without_a_model_the_page_says_so(tmp_path: Path) -> None:
    whole = made_up_results()
    figures = [
        replace(one, values={LINEAR: one.values[LINEAR]}, gains={}) for one in whole.figures if one.group == MEAN
    ]
    results = Results(figures, [LINEAR], {"safety": 240}, {"data": 3.2})
    page.write(results, tmp_path / "models.md", {"processor": "a processor", "cores": 2, "python": "3.11"})
    text = (tmp_path / "models.md").read_text("utf-8")
    assert "No finished folder of heads was at hand" in text
    assert "gain over" not in text and "Throughput" not in text
    assert json.loads(results.line())["injection_recall_linear"] == 0.5
    assert tables.ablations(results) is None
