"""Errors of the language model's recipe, and the base of all errors of this package.

TuningError
├── LmConfigError           a configuration contradicts itself, or there is none of that name
├── CheckpointMissingError  nothing was trained in this work folder
└── ExportRejectedError     an exported folder failed a check and was not put in place

None is retriable: each needs a person to change something.
"""

from __future__ import annotations


class TuningError(Exception):
    """Base of every error of this package."""


class LmConfigError(TuningError):
    """A configuration contradicts itself, or there is none of that name."""


class CheckpointMissingError(TuningError):
    """No checkpoint to export or resume."""


class ExportRejectedError(TuningError):
    """An exported folder failed one of its checks."""
