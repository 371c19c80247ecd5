"""The vault's master key: making one, and keeping the local stack's in a file of its owner's."""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from penstock.cli.errors import StackError
from penstock.vault import new_key

VARIABLE = "PENSTOCK_VAULT_KEYS"


def new_vault_key() -> str:
    """A new random key as `kid:base64`; the key id holds today's date and four random characters."""
    key_id = f"k{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(2)}"
    return new_key(key_id)


def stored_vault_key(path: Path) -> str:
    """The key in the file, made on first use with mode 0600.

    Raises StackError where others may read the file: what it sealed is to be considered disclosed.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise StackError(
                f"{path} can be read by others (mode {mode:04o}); it must be 0600. Take their access away with "
                "chmod 600, or remove it to have a new key made (earlier vaults can then not be opened)"
            ) from None
        return path.read_text(encoding="ascii").strip()
    key = new_vault_key()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key + "\n")
    return key
