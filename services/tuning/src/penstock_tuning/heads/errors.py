"""Errors of the heads' recipe.

TuningError
├── HeadsConfigError    a configuration contradicts itself, or there is none of that name
├── EncoderMissingError there is no finished encoder to begin from, or its parts belong to different runs
└── HeadsRejectedError  exported heads failed a check and were not put in place

None is retriable: each needs a person to change something.
"""

from __future__ import annotations

from penstock_tuning.errors import TuningError


class HeadsConfigError(TuningError):
    """A configuration contradicts itself, or there is none of that name."""


class EncoderMissingError(TuningError):
    """No finished encoder to begin from, or a folder and a checkpoint of different runs."""


class HeadsRejectedError(TuningError):
    """Exported heads failed a check."""
