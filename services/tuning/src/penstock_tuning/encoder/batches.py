"""Rows of the token stream in a seeded order: batch N is the same however often a run was cut and resumed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock_tuning.encoder.config import EncoderConfig
from penstock_tuning.encoder.masking import Masked, mask_tokens
from penstock_tuning.encoder.tokenizer import MASK, SPECIAL


class Batches:
    """The batches of a run.

    An epoch of a phase cuts the stream into rows at an offset of its own and takes them in an order of its own.
    """

    def __init__(self, tokens: NDArray[np.uint16], starts_word: NDArray[np.bool_], config: EncoderConfig) -> None:
        """Take the stream `[tokens]` and, for each token of the vocabulary, whether it begins a word.

        Raises:
            ValueError: the stream is shorter than one batch.
        """
        self._tokens = tokens
        self._starts_word = starts_word
        self._config = config
        self._order: tuple[tuple[int, int], int, NDArray[np.int64]] | None = None
        for phase in config.phases:
            if len(tokens) // phase.length - 1 < phase.rows:
                raise ValueError(f"{len(tokens)} tokens are too few for a batch of {phase.batch_tokens}")

    def rows(self, step: int) -> NDArray[np.int64]:
        """The rows of a step before masking, `[rows, length]`."""
        index, within = self._config.phase_at(step)
        phase = self._config.phases[index]
        total = len(self._tokens) // phase.length - 1
        epoch, batch = divmod(within, total // phase.rows)
        offset, order = self._epoch(index, epoch, total, phase.length)
        chosen = order[batch * phase.rows : (batch + 1) * phase.rows]
        places = offset + chosen[:, None] * phase.length + np.arange(phase.length)
        return np.asarray(self._tokens[places], np.int64)

    def at(self, step: int) -> Masked:
        """The batch of a step."""
        rng = np.random.default_rng((self._config.seed, 1, step))
        return self._mask(self.rows(step), rng)

    def fixed(self, tokens: NDArray[np.uint16], length: int) -> Masked:
        """The same rows with the same masks every time, to measure a loss on: `validation_rows` of them at most."""
        count = min(self._config.validation_rows, len(tokens) // length)
        rows = tokens[: count * length].reshape(count, length).astype(np.int64)
        return self._mask(rows, np.random.default_rng((self._config.seed, 2)))

    def _mask(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Masked:
        return mask_tokens(
            rows, self._starts_word, self._config.masking, rng, special=len(SPECIAL), mask_id=SPECIAL.index(MASK)
        )

    def _epoch(self, phase: int, epoch: int, total: int, length: int) -> tuple[int, NDArray[np.int64]]:
        if self._order is None or self._order[0] != (phase, epoch):
            rng = np.random.default_rng((self._config.seed, 0, phase, epoch))
            self._order = (phase, epoch), int(rng.integers(length)), rng.permutation(total)
        return self._order[1:]
