"""The errors that the parts of this package share; each part's own are in its `errors.py`.

TuningError                 base of every error of this package
└── CheckpointMissingError  nothing was trained in this work folder

None is retriable: each needs a person to change something.
"""

from __future__ import annotations


class TuningError(Exception):
    """Base of every error of this package."""


class CheckpointMissingError(TuningError):
    """No checkpoint to export or resume."""
