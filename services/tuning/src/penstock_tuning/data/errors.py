"""Errors of the training data.

TuningError
└── DataError
    ├── ManifestError       the manifest contradicts itself or names something that does not exist
    ├── SourceMissingError  files that the manifest names are not in the data folder
    └── RowError            a row of a source is not what its reader expects

None is retriable: each needs a person to change something.
"""

from __future__ import annotations

from penstock_tuning.errors import TuningError


class DataError(TuningError):
    """Base of the errors of the training data."""


class ManifestError(DataError):
    """The manifest contradicts itself."""


class SourceMissingError(DataError):
    """Files that the manifest names are absent."""


class RowError(DataError):
    """A row is not what its reader expects."""
