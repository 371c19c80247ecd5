"""Rows of all kinds in a seeded order: batch N is the same however often a run was cut and resumed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_tuning.lm.config import KINDS, LmConfig
from penstock_tuning.lm.errors import LmConfigError
from penstock_tuning.lm.prepare import ANSWERED, READ, Prepared, Rows

IGNORED = -100
"""The label of a token that is not learned."""


class Batch(NamedTuple):
    """Tokens and what follows each, `[rows, length]`; `IGNORED` where nothing is learned."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]


class Batches:
    """The batches of a run.

    Which rows are of which kind is drawn once for the whole run, by the phases' shares. A kind is read from where the
    phase before stopped; each time it is read again, it is in another order, and text is cut into rows elsewhere.
    """

    def __init__(self, prepared: Prepared, config: LmConfig) -> None:
        """Take the arrays.

        Raises:
            LmConfigError: a kind that a phase reads has not one row.
        """
        self._text = prepared.text
        self._packed: dict[str, Rows] = {"conversations": prepared.conversations, "generated": prepared.generated}
        self._config = config
        self._orders: dict[tuple[str, int], tuple[int, NDArray[np.int64]]] = {}
        self._totals = {"text": (len(self._text) - 1) // config.length - 1}
        self._totals |= {name: len(rows.tokens) for name, rows in self._packed.items()}
        for phase in config.phases:
            if empty := [kind for kind in phase.shares if self._totals[kind] < 1]:
                raise LmConfigError(f"there is not one row of {empty[0]}, which a phase reads")
        rng = np.random.default_rng((config.seed, 0))
        drawn = []
        for phase in config.phases:
            weights = np.array([phase.shares.get(kind, 0.0) for kind in KINDS])
            count = phase.tokens // config.batch_tokens * config.rows
            drawn.append(rng.choice(len(KINDS), count, p=weights / weights.sum()))
        self._kinds = np.concatenate(drawn)
        self._places = np.zeros(len(self._kinds), np.int64)
        for kind in range(len(KINDS)):
            mine = self._kinds == kind
            self._places[mine] = np.arange(mine.sum())

    def epochs(self) -> dict[str, float]:
        """How often each kind is read in the whole run."""
        return {
            kind: round(float((self._kinds == index).sum()) / max(1, self._totals[kind]), 2)
            for index, kind in enumerate(KINDS)
        }

    def at(self, step: int) -> Batch:
        """The batch of a step."""
        answers = self._config.phases[self._config.phase_at(step)].learned == "answers"
        rows = range(step * self._config.rows, (step + 1) * self._config.rows)
        found = [self._row(KINDS[self._kinds[row]], int(self._places[row])) for row in rows]
        return labelled(
            Rows(np.stack([tokens for tokens, _ in found]), np.stack([marks for _, marks in found])), answers=answers
        )

    def _row(self, kind: str, place: int) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        epoch, index = divmod(place, self._totals[kind])
        offset, order = self._epoch(kind, epoch)
        row = int(order[index])
        if kind != "text":
            packed = self._packed[kind]
            return packed.tokens[row], packed.marks[row]
        begin = offset + row * self._config.length
        tokens = self._text[begin : begin + self._config.length + 1]
        return tokens, np.full(len(tokens), ANSWERED, np.uint8)

    def _epoch(self, kind: str, epoch: int) -> tuple[int, NDArray[np.int64]]:
        if (kind, epoch) not in self._orders:
            self._orders = {key: kept for key, kept in self._orders.items() if key[0] != kind}
            rng = np.random.default_rng((self._config.seed, 1 + [*KINDS].index(kind), epoch))  # type: ignore[arg-type]  # a kind
            self._orders[kind, epoch] = int(rng.integers(self._config.length)), rng.permutation(self._totals[kind])
        return self._orders[kind, epoch]


def labelled(rows: Rows, *, answers: bool) -> Batch:
    """Inputs and labels: every token is learned, or with `answers` only what an assistant says."""
    learned = rows.marks[:, 1:] >= (ANSWERED if answers else READ)
    tokens = rows.tokens.astype(np.int64)
    return Batch(tokens[:, :-1], np.where(learned, tokens[:, 1:], IGNORED))
