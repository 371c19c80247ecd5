"""What tests of the engine's parts share."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def resident() -> Callable[[], int]:
    """Bytes of this process that are in memory now, without what earlier tests freed and the C library still holds."""

    def read() -> int:
        ctypes.CDLL(None).malloc_trim(0)
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    return read
