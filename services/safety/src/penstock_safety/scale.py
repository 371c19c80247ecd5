"""The scale that all models' scores share, so that a policy's thresholds mean the same for each.

0.5 is a model's threshold for flagging (one per cent false positives on ordinary requests), 0.8 the one for blocking (a
tenth of that); between them, and to 0 and 1, the score goes with the probability.
"""

from __future__ import annotations

from typing import Final

import numpy as np

FLAG_SCORE: Final = 0.5
BLOCK_SCORE: Final = 0.8
FLOOR: Final = 0.3
"""Lower scores are not reported."""


def scaled(probability: float, flag: float, block: float) -> float:
    """The score of a probability: piecewise linear through the two thresholds; of equal thresholds the higher score."""
    if probability >= block:
        rest = (probability - block) / (1.0 - block) if block < 1.0 else 1.0
        return round(BLOCK_SCORE + rest * (1.0 - BLOCK_SCORE), 4)
    return round(float(np.interp(probability, (0.0, flag, block), (0.0, FLAG_SCORE, BLOCK_SCORE))), 4)
