"""Errors of the language model's recipe.

TuningError
├── LmConfigError        a configuration contradicts itself, or there is none of that name
└── ExportRejectedError  an exported folder failed a check and was not put in place

None is retriable: each needs a person to change something.
"""

from __future__ import annotations

from penstock_tuning.errors import TuningError


class LmConfigError(TuningError):
    """A configuration contradicts itself, or there is none of that name."""


class ExportRejectedError(TuningError):
    """An exported folder failed one of its checks."""
