"""From texts and conversations to token arrays and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.tiny_lm import MEASURED, config, prepared, talks, texts
from tokenizers import Tokenizer
from typer.testing import CliRunner

from penstock_tuning.__main__ import app
from penstock_tuning.data.build import Built
from penstock_tuning.data.example import write_examples
from penstock_tuning.encoder.errors import RunMismatchError
from penstock_tuning.lm import prepare as preparing
from penstock_tuning.lm.batches import IGNORED, Batches, labelled
from penstock_tuning.lm.corpus import is_held_out
from penstock_tuning.lm.errors import LmConfigError
from penstock_tuning.lm.prepare import Prepared, Rows, copies, make, pack


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared(config(), tmp_path_factory.mktemp("lm"))


def decoded(tokenizer: Tokenizer, ids: object) -> str:
    text: str = tokenizer.decode([int(one) for one in np.asarray(ids).ravel()], skip_special_tokens=False)
    return text


def test_text_that_shares_words_with_a_held_out_one_is_left_out(made: Prepared) -> None:
    assert made.card["text"]["texts"] == len(texts()) - 1
    assert made.card["text"]["left_out"] == 1
    whole = decoded(made.tokenizer, made.text)
    assert "nobody in the whole" not in whole
    assert "made garden" in whole
    assert whole.count("<|bos|>") == made.card["text"]["texts"]
    assert sum(made.card["text"]["by"].values()) == len(made.text)


def test_held_out_conversations_are_only_watched(made: Prepared) -> None:
    kept = [one for one in talks() if is_held_out(one.key)]
    assert 0 < len(kept) < 20
    said = decoded(made.tokenizer, made.conversations.tokens)
    watched = decoded(made.tokenizer, made.held_out_conversations.tokens)
    for one in kept:
        assert f"{one.turns[0][1]}<|end|>" not in said
        assert f"{one.turns[0][1]}<|end|>" in watched
    assert made.card["conversations"]["conversations"] == len(talks()) - len(kept)


def test_what_many_conversations_say_shows_no_copy() -> None:
    small_talk = "hello there how are you doing on this fine day"
    own = "my uncle keeps three very old green bicycles in the cellar"
    texts = [f"{small_talk} {n}" for n in range(5)] + [f"{own} {n}" for n in range(4)] + ["something else altogether"]
    assert copies(texts, [f"{small_talk} and {own}"]) == [False] * 5 + [True] * 4 + [False]
    assert copies([], ["a"]) == []


def test_packing_keeps_conversations_whole_and_marks_answers(made: Prepared) -> None:
    rows = pack(made.tokenizer, [one.turns for one in talks(9)], 64, seed=1)
    assert rows.tokens.shape == rows.marks.shape
    assert ((rows.tokens == 0) == (rows.marks == 0)).all()
    for row, marks in zip(rows.tokens, rows.marks, strict=True):
        assert decoded(made.tokenizer, row[marks > 0]).count("<|bos|>") == decoded(
            made.tokenizer, row[marks == 2]
        ).count("<|end|>")
    assert [row[row > 0].tolist() for row in rows.marks] == [row[: (row > 0).sum()].tolist() for row in rows.marks]
    many = pack(made.tokenizer, [one.turns for one in talks(200)], 128, seed=1)
    assert (many.marks > 0).mean() > 0.85
    longer = pack(made.tokenizer, [(("user", "word " * 90), ("assistant", "yes"))], 64, seed=1)
    assert longer.marks[-1].tolist() == [1] * 64  # it is cut before its answer


def test_labels_are_the_next_tokens() -> None:
    rows = Rows(np.array([[1, 5, 6, 7, 0]], np.uint16), np.array([[1, 1, 2, 2, 0]], np.uint8))
    batch = labelled(rows, answers=False)
    assert batch.ids.tolist() == [[1, 5, 6, 7]]
    assert batch.labels.tolist() == [[5, 6, 7, IGNORED]]
    assert labelled(rows, answers=True).labels.tolist() == [[IGNORED, 6, 7, IGNORED]]


def test_batches_depend_on_the_step_alone(made: Prepared) -> None:
    recipe = config()
    one, other = Batches(made, recipe), Batches(made, recipe)
    for step in reversed(range(recipe.steps)):
        other.at(step)
    for step in (0, recipe.steps - 1, 5):
        np.testing.assert_array_equal(one.at(step).ids, other.at(step).ids)
        np.testing.assert_array_equal(one.at(step).labels, other.at(step).labels)
    assert (one.at(0).ids != one.at(1).ids).any()
    differing = Batches(made, config("seed=8"))
    assert (one.at(0).ids != differing.at(0).ids).any()


def test_shares_are_those_of_the_rows_and_text_is_learned_whole(made: Prepared) -> None:
    recipe = config("phases=[{tokens: 256000, learned: answers, shares: {text: 3, generated: 1}}]")
    batches = Batches(made, recipe)
    rows = [batches.at(step) for step in range(recipe.steps)]
    labels = np.concatenate([one.labels for one in rows])
    whole = (labels != IGNORED).all(axis=1).mean()
    assert whole == pytest.approx(0.75, abs=0.03)
    epochs = batches.epochs()
    assert epochs["conversations"] == 0
    assert epochs["text"] == pytest.approx(8000 * 0.75 * 32 / len(made.text), rel=0.06)


def test_every_row_of_text_is_read_once_before_any_is_read_again(made: Prepared) -> None:
    total = (len(made.text) - 1) // 32 - 1
    recipe = config(f"phases=[{{tokens: {total // 8 * 256}, learned: all, shares: {{text: 1}}}}]")
    batches = Batches(made, recipe)
    seen = {tuple(row) for step in range(recipe.steps) for row in batches.at(step).ids.tolist()}
    assert len(seen) == total // 8 * 8


def test_a_kind_that_is_not_there_is_refused(made: Prepared) -> None:
    empty = Rows(made.generated.tokens[:0], made.generated.marks[:0])
    bare = Prepared(
        made.tokenizer, made.text, made.conversations, empty, made.held_out_text, made.held_out_conversations, {}
    )
    with pytest.raises(LmConfigError, match="one row of generated"):
        Batches(bare, config())


def test_texts_that_are_too_few_are_refused(tmp_path: Path) -> None:
    given = {"texts": texts(), "talks": talks(), "measured": MEASURED, "progress": lambda _: None}
    with pytest.raises(RunMismatchError, match="asks for 6000"):
        make(config("shape.vocabulary=6000"), tmp_path, held_out_texts=texts("apart"), **given)
    with pytest.raises(RunMismatchError, match="lower `length`"):
        make(config(), tmp_path, held_out_texts=[], **given)


def test_a_work_folder_is_of_one_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(_: str, split: str, *__: object, **___: object) -> Built:
        examples = texts("novels_en" if split == "train" else "apart")
        path = tmp_path / f"{split}.jsonl"
        return Built(path, {"digest": "d", "examples": write_examples(examples, path)})

    monkeypatch.setattr(preparing, "build", build)
    monkeypatch.setattr(preparing, "conversations", lambda _: iter(talks()))
    monkeypatch.setattr(preparing, "held_out_texts", lambda *_: MEASURED)

    def prepare(*changes: str) -> Prepared:
        return preparing.prepare(config(*changes), tmp_path / "work", tmp_path, tmp_path, lambda _: None)

    first = prepare()
    assert {"novels_en", "gsm8k"} <= set(first.card["sources"])
    assert first.card["text"]["texts"] == len(texts()) - 1
    again = prepare("machine.threads=2")
    np.testing.assert_array_equal(first.text, again.text)
    with pytest.raises(RunMismatchError, match="another --work"):
        prepare("seed=8")


def test_the_command_says_in_a_line_what_is_wrong(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["lm", "--preset", "tpu", "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "torch" in result.stderr or "cpu, gpu" in result.stderr
    result = CliRunner().invoke(app, ["lm-evaluate", "--data", str(tmp_path), "--work", str(tmp_path / "work")])
    assert result.exit_code == 1
    assert "penstock tune data verify" in result.stderr
