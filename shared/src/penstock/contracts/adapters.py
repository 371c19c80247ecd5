"""How the versions of an event name the adapter that its request asks for."""

from __future__ import annotations

from typing import Final

ADAPTER: Final = "adapter"
"""NAME@REVISION."""
ADAPTER_DIGEST: Final = "adapter-digest"
"""`sha256:` and 16 digits over the adapter's files."""
ADAPTER_BASE: Final = "adapter-base"
"""Likewise of the model that it belongs to, as `model` names it in a result."""
