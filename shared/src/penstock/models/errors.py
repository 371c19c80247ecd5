"""What is wrong with a model, a revision or an alias. None is retriable: each message says what to do.

ModelError (a ConfigurationError)
├── NoSuchModel       no model, revision or alias of this name
├── ModelRefused      a folder or file that is not taken, or a revision that cannot do what is asked
├── ModelDamaged      a file is missing, or is not the one that was added
└── HubError          the hub cannot be reached, or does not give what was asked for
"""

from __future__ import annotations

from penstock.contracts.errors import ConfigurationError


class ModelError(ConfigurationError):
    """A model, revision or alias is not as it must be."""


class NoSuchModel(ModelError):
    """There is no model, revision or alias of this name."""


class ModelRefused(ModelError):
    """A folder or file is not taken, or a revision cannot do what is asked."""


class ModelDamaged(ModelError):
    """A file is missing, or is not the one that was added."""


class HubError(ModelError):
    """The hub cannot be reached, or does not give what was asked for."""
