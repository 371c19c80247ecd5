"""Rotary positions (Su et al., 2021, https://arxiv.org/abs/2104.09864): the tables that training and export share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rotary_tables(length: int, head_size: int, theta: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines of place times frequency, each `[length, head_size / 2]`; frequencies fall to 1/theta."""
    frequencies = theta ** (-np.arange(0, head_size, 2, dtype=np.float64) / head_size)
    angles = np.arange(length, dtype=np.float64)[:, None] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
