"""Errors of the evaluation.

TuningError
└── EvaluationError        what was asked for cannot be measured
    ├── ModelFolderError   a folder is not a finished model of the kind that was asked for
    └── ToolMissingError   a library that this needs is not installed

None is retriable: each needs a person to change something.
"""

from __future__ import annotations

from penstock_tuning.errors import TuningError


class EvaluationError(TuningError):
    """What was asked for cannot be measured."""


class ModelFolderError(EvaluationError):
    """A folder is not a finished model."""


class ToolMissingError(EvaluationError):
    """A library that is an extra is not installed."""
