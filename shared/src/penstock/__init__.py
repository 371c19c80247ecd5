"""Penstock: LLM requests as Kafka events, guarded from end to end.

`penstock.contracts` holds what is on the wire, `penstock.runtime` how a stage is run,
`penstock.cli` the operator's command. Services import this package and never each other.
"""

__version__ = "0.1.0"
