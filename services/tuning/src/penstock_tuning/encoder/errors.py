"""Errors of the encoder's recipe.

TuningError
├── EncoderConfigError  a configuration contradicts itself, or there is none of that name
├── RunMismatchError    the work folder holds a run of another configuration or other data
└── EncoderRejectedError  an exported encoder failed a check and was not put in place

None is retriable: each needs a person to change something.
"""

from __future__ import annotations

from penstock_tuning.errors import TuningError


class EncoderConfigError(TuningError):
    """A configuration contradicts itself, or there is none of that name."""


class RunMismatchError(TuningError):
    """The work folder belongs to another configuration or to other data."""


class EncoderRejectedError(TuningError):
    """An exported encoder failed a check."""
