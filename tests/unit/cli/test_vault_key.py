"""The vault's key: 32 random bytes under a key id, kept for its owner alone."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from penstock.cli.errors import StackError
from penstock.cli.vault_key import new_vault_key, stored_vault_key
from penstock.vault import VaultKeys


def test_a_key_is_an_id_and_32_bytes() -> None:
    key_id, _, encoded = new_vault_key().partition(":")
    assert re.fullmatch(r"k\d{8}-[0-9a-f]{4}", key_id)
    assert len(base64.b64decode(encoded, validate=True)) == 32
    VaultKeys.parse(f"{key_id}:{encoded}")


def test_no_two_keys_are_the_same() -> None:
    assert new_vault_key() != new_vault_key()


def test_the_stored_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "vault-key"
    first = stored_vault_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert stored_vault_key(path) == first


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vault-key"
    key = stored_vault_key(path)
    path.chmod(0o640)
    with pytest.raises(StackError, match="0600") as caught:
        stored_vault_key(path)
    assert key not in str(caught.value)
