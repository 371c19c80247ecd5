"""Errors of the language-model recipe.

TuningError
├── DataFolderMissingError   the training sets are not where PENSTOCK_DATA says
├── PreparedDataMissingError `prepare` has not been run for this work folder
├── CheckpointMissingError   `train` has not been run for this work folder
└── ExportRejectedError      an exported folder failed a check and was not put in place

None is retriable: each needs a person to change something.
"""

from __future__ import annotations


class TuningError(Exception):
    """Base of every error of this package."""


class DataFolderMissingError(TuningError):
    """The training sets are absent."""


class PreparedDataMissingError(TuningError):
    """The prepared token arrays are absent."""


class CheckpointMissingError(TuningError):
    """No checkpoint to export or resume."""


class ExportRejectedError(TuningError):
    """An exported folder failed one of its checks."""
