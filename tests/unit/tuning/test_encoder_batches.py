"""Which tokens are masked, and that a resumed run reads what an uncut one does."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_tuning.encoder.batches import Batches
from penstock_tuning.encoder.config import EncoderConfig, Masking, load_config
from penstock_tuning.encoder.masking import Masked, mask_tokens, masked_count

VOCABULARY = 600
SPECIAL, MASK = 5, 4
STARTS = np.arange(VOCABULARY) % 3 != 0  # every third token goes on with a word
PHASES = "phases=[{tokens: 480, length: 16, batch_tokens: 64}, {tokens: 256, length: 32, batch_tokens: 64}]"


def config(*changes: str) -> EncoderConfig:
    return load_config("cpu", changes=[PHASES, "optimizer.warmup_steps=1", f"shape.vocabulary={VOCABULARY}", *changes])


def stream(count: int = 500) -> np.ndarray:
    """Every token is its place, so that a row says where it was cut."""
    return np.arange(count, dtype=np.uint16)


def text(rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(SPECIAL, VOCABULARY, (rows, length))


def masked(ids: np.ndarray, masking: Masking, seed: int = 1) -> Masked:
    return mask_tokens(ids, STARTS, masking, np.random.default_rng(seed), special=SPECIAL, mask_id=MASK)


def test_a_fixed_share_of_every_row_is_masked() -> None:
    ids = text(50, 128)
    result = masked(ids, Masking())
    assert masked_count(128, Masking()) == 38
    assert result.places.shape == result.labels.shape == (50, 38)
    assert all(len(set(row)) == 38 for row in result.places)
    rows = np.arange(50)[:, None]
    np.testing.assert_array_equal(ids[rows, result.places], result.labels)
    untouched = np.ones(ids.shape, bool)
    untouched[rows, result.places] = False
    np.testing.assert_array_equal(result.ids[untouched], ids[untouched])


def test_most_become_the_mask_token_some_another_some_stay() -> None:
    result = masked(text(400, 128), Masking(share=0.3, kept=0.1, random=0.2))
    read = np.take_along_axis(result.ids, result.places, axis=1)
    assert (read == MASK).mean() == pytest.approx(0.7, abs=0.02)
    assert (read == result.labels).mean() == pytest.approx(0.1, abs=0.02)
    assert read[read != MASK].min() >= SPECIAL


def test_all_tokens_of_a_word_are_masked_together() -> None:
    ids = text(200, 64)
    result = masked(ids, Masking(kept=0, random=0))
    hidden = result.ids == MASK
    begins = STARTS[ids]
    begins[:, 0] = True
    split = 0
    for row, first in zip(hidden, begins, strict=True):
        words = np.split(row, np.flatnonzero(first)[1:])
        split += sum(0 < word.sum() < len(word) for word in words)
    assert split <= len(ids)  # one word in a row at most, the last one drawn


def test_special_tokens_are_not_masked_while_there_are_others() -> None:
    ids = text(20, 64)
    ids[:, ::2] = 2
    assert not (masked(ids, Masking()).labels == 2).any()


def test_special_tokens_end_a_word() -> None:
    """A text that begins with a token that goes on with a word is not masked with the text before it."""
    ids = np.full((1, 6), 6)  # 6 % 3 == 0: goes on
    ids[0, 2:4] = 3  # as the table has it, 3 goes on with a word too
    result = masked(np.repeat(ids, 50, axis=0), Masking(share=0.34, kept=0, random=0))
    assert {tuple(row) for row in result.places} == {(0, 1), (4, 5)}


def test_the_same_seed_masks_the_same() -> None:
    ids = text(4, 32)
    one, again, other = masked(ids, Masking()), masked(ids, Masking()), masked(ids, Masking(), seed=2)
    np.testing.assert_array_equal(one.ids, again.ids)
    assert (one.places != other.places).any()


def test_a_resumed_run_reads_the_same_batches() -> None:
    recipe = config()
    whole = Batches(stream(), STARTS, recipe)
    batches = [whole.at(step) for step in range(recipe.steps)]
    for step in (recipe.steps - 1, 0, 8, 7):  # any order, from a new object each
        resumed = Batches(stream(), STARTS, recipe).at(step)
        np.testing.assert_array_equal(resumed.ids, batches[step].ids)
        np.testing.assert_array_equal(resumed.labels, batches[step].labels)


def test_an_epoch_reads_a_row_once_and_the_next_in_another_order() -> None:
    recipe = config("phases=[{tokens: 896, length: 16, batch_tokens: 64}]")
    batches = Batches(stream(), STARTS, recipe)
    assert recipe.steps == 14
    epochs = [np.concatenate([batches.rows(step) for step in range(n, n + 7)]) for n in (0, 7)]
    for rows in epochs:
        assert (np.diff(rows, axis=1) == 1).all()
        assert len(set(rows[:, 0])) == 28
    assert list(epochs[0][:, 0]) != list(epochs[1][:, 0])


def test_another_seed_gives_another_order() -> None:
    rows = [Batches(stream(), STARTS, config(f"seed={seed}")).rows(0) for seed in (7, 8)]
    assert (rows[0] != rows[1]).any()


def test_phases_have_rows_of_their_length() -> None:
    recipe = config()
    batches = Batches(stream(), STARTS, recipe)
    assert [batches.rows(step).shape for step in (0, 6, 7)] == [(4, 16), (4, 16), (2, 32)]


def test_too_little_text_is_said() -> None:
    with pytest.raises(ValueError, match="too few"):
        Batches(stream(60), STARTS, config())


def test_held_out_rows_are_masked_the_same_every_time() -> None:
    batches = Batches(stream(), STARTS, config("validation_rows=3"))
    one, again = batches.fixed(stream(), 32), batches.fixed(stream(), 32)
    assert one.ids.shape == (3, 32)
    np.testing.assert_array_equal(one.ids, again.ids)
    assert batches.fixed(stream(70), 32).ids.shape == (2, 32)
