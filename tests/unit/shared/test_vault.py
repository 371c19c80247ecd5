"""`penstock.vault`: opens for its owner alone, and says nothing of what it holds."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from penstock.contracts.errors import ConfigurationError, StageError
from penstock.contracts.events import SealedVault
from penstock.vault import VaultContents, VaultKeys, new_key

CONTENTS = VaultContents(
    entities={"<EMAIL_ADDRESS_1>": "zoë@example.org"}, user="u-77", metadata={"customer": "K-4711"}
)


def counting() -> Callable[[int], bytes]:
    counter = iter(range(256))
    return lambda size: bytes([next(counter)]) * size


@pytest.fixture
def keys() -> VaultKeys:
    return VaultKeys.parse(new_key("k1"))


def test_opens_what_it_sealed(keys: VaultKeys) -> None:
    sealed = keys.seal(CONTENTS, tenant="acme", conversation="c1")
    assert keys.open(sealed, tenant="acme", conversation="c1") == CONTENTS


def test_the_sealed_form_holds_nothing_in_clear(keys: VaultKeys) -> None:
    sealed = keys.seal(CONTENTS, tenant="acme", conversation="c1").model_dump_json()
    raw = sealed + base64.b64decode(SealedVault.model_validate_json(sealed).ciphertext).decode("latin-1")
    for secret in ("example.org", "EMAIL_ADDRESS", "u-77", "K-4711"):
        assert secret not in raw


@pytest.mark.parametrize(("tenant", "conversation"), [("other", "c1"), ("acme", "c2"), ("acm", "ec1")])
def test_another_owner_cannot_open_it(keys: VaultKeys, tenant: str, conversation: str) -> None:
    sealed = keys.seal(CONTENTS, tenant="acme", conversation="c1")
    with pytest.raises(StageError) as caught:
        keys.open(sealed, tenant=tenant, conversation=conversation)
    assert caught.value.code == "vault_unreadable"


@pytest.mark.parametrize("field", ["wrapped_key", "wrap_nonce", "nonce", "ciphertext"])
def test_any_changed_field_is_noticed(keys: VaultKeys, field: str) -> None:
    sealed = keys.seal(CONTENTS, tenant="acme", conversation="c1")
    data = bytearray(base64.b64decode(getattr(sealed, field)))
    data[0] ^= 1
    changed = sealed.model_copy(update={field: base64.b64encode(data).decode()})
    with pytest.raises(StageError) as caught:
        keys.open(changed, tenant="acme", conversation="c1")
    assert caught.value.code == "vault_unreadable"
    assert "example.org" not in str(caught.value)


@pytest.mark.parametrize("value", ["%%%", "", "AAAA", "ä"])
@pytest.mark.parametrize("field", ["wrapped_key", "wrap_nonce", "nonce", "ciphertext"])
def test_malformed_fields_are_a_typed_error(keys: VaultKeys, field: str, value: str) -> None:
    sealed = keys.seal(CONTENTS, tenant="acme", conversation="c1").model_copy(update={field: value})
    with pytest.raises(StageError) as caught:
        keys.open(sealed, tenant="acme", conversation="c1")
    assert caught.value.code == "vault_unreadable"


def test_parts_of_two_vaults_cannot_be_mixed(keys: VaultKeys) -> None:
    one = keys.seal(CONTENTS, tenant="acme", conversation="c1")
    two = keys.seal(CONTENTS, tenant="acme", conversation="c1")
    mixed = one.model_copy(update={"wrapped_key": two.wrapped_key, "wrap_nonce": two.wrap_nonce})
    with pytest.raises(StageError):
        keys.open(mixed, tenant="acme", conversation="c1")


def test_a_conversation_keeps_its_data_key_and_never_a_nonce(keys: VaultKeys) -> None:
    one = keys.seal(CONTENTS, tenant="acme", conversation="c1")
    two = keys.seal(CONTENTS, tenant="acme", conversation="c1", previous=one)
    mixed = two.model_copy(update={"wrapped_key": one.wrapped_key, "wrap_nonce": one.wrap_nonce})
    assert keys.open(mixed, tenant="acme", conversation="c1") == CONTENTS
    assert len({one.nonce, two.nonce, one.wrap_nonce, two.wrap_nonce}) == 4


def test_sealing_is_a_function_of_its_random_bytes(keys: VaultKeys) -> None:
    one, two = (keys.seal(CONTENTS, tenant="a", conversation="c", random=counting()) for _ in range(2))
    assert one == two


def test_rotation_opens_old_vaults_and_wraps_anew() -> None:
    old, new = new_key("k1"), new_key("k2")
    sealed = VaultKeys.parse(old).seal(CONTENTS, tenant="acme", conversation="c1")
    both = VaultKeys.parse(f"{new}, {old}")
    assert both.names == ("k2", "k1")
    assert both.open(sealed, tenant="acme", conversation="c1") == CONTENTS
    again = both.seal(CONTENTS, tenant="acme", conversation="c1", previous=sealed)
    assert again.key_id == "k2"
    assert VaultKeys.parse(new).open(again, tenant="acme", conversation="c1") == CONTENTS
    with pytest.raises(StageError, match="PENSTOCK_VAULT_KEYS"):
        VaultKeys.parse(new).open(sealed, tenant="acme", conversation="c1")


@pytest.mark.parametrize("text", ["", "k1", "k1:", ":AAAA", "k1:%%%", "k1:QUJD", "k 1:QUJD", "k1:ä", ","])
def test_bad_keys_are_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ConfigurationError, match="PENSTOCK_VAULT_KEYS") as caught:
        VaultKeys.parse(text)
    assert "QUJD" not in str(caught.value)


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="repeats"):
        VaultKeys.parse(f"{new_key('k1')},{new_key('k1')}")


def test_a_new_key_needs_a_plain_name() -> None:
    with pytest.raises(ConfigurationError):
        new_key("a:b")
