"""The sealed vault: what placeholders stand for, encrypted so that it can travel inside an event.

Envelope encryption with AES-256-GCM: a random data key for each conversation seals the contents, and a
master key that only anonymize and postprocess hold wraps the data key. Associated data binds both to
tenant and conversation: a vault moved to another one does not open. A data key seals at most 2^32
messages (NIST SP 800-38D, 8.3: random 96-bit nonces), far above the length of a conversation.

It finds no personal data and writes no placeholders: that is anonymize. Needs the extra `penstock[vault]`.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from pydantic import Field, ValidationError

from penstock.contracts.base import Contract
from penstock.contracts.errors import ConfigurationError, StageError
from penstock.contracts.events import SealedVault

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VARIABLE: Final = "PENSTOCK_VAULT_KEYS"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
Random = Callable[[int], bytes]

_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
_HOW = "make one with `penstock vault-key` and give it as NAME:BASE64"


class VaultContents(Contract):
    """What a vault holds."""

    entities: dict[str, str] = Field(default_factory=dict)
    """Placeholder, such as `<EMAIL_ADDRESS_1>` -> the text it stands for."""
    user: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)


class VaultKeys:
    """The master keys by name. The first seals; all open, so that keys can be rotated without a gap."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._sealing = next(iter(keys))
        self._masters = {name: _cipher(key) for name, key in keys.items()}

    @classmethod
    def parse(cls, text: str) -> VaultKeys:
        """Parse `NAME:BASE64[,NAME:BASE64...]`, 32 bytes each; raises ConfigurationError that never quotes a key."""
        keys: dict[str, bytes] = {}
        for position, entry in enumerate(text.split(","), start=1):
            name, separator, encoded = entry.strip().partition(":")
            if not separator or not _KEY_ID.fullmatch(name):
                raise ConfigurationError(
                    f"{VARIABLE}: key {position} has no name of 1 to 32 letters, digits, _ and -; {_HOW}"
                )
            if name in keys:
                raise ConfigurationError(f"{VARIABLE}: key {position} repeats the name of another; give each its own")
            try:
                key = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                raise ConfigurationError(f"{VARIABLE}: key {position} is not base64; {_HOW}") from None
            if len(key) != KEY_BYTES:
                raise ConfigurationError(f"{VARIABLE}: key {position} has {len(key)} bytes, not {KEY_BYTES}; {_HOW}")
            keys[name] = key
        return cls(keys)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys, the sealing one first."""
        return tuple(self._masters)

    def seal(
        self,
        contents: VaultContents,
        *,
        tenant: str,
        conversation: str,
        previous: SealedVault | None = None,
        random: Random = os.urandom,
    ) -> SealedVault:
        """Encrypt `contents`, with the data key of the conversation's `previous` vault if there is one.

        The data key is always wrapped by the first master key, so sealing also rotates. Raises StageError
        (`vault_unreadable`) where `previous` cannot be opened.
        """
        data_key = random(KEY_BYTES) if previous is None else self._unwrap(previous, tenant, conversation)
        wrap_nonce, nonce = random(NONCE_BYTES), random(NONCE_BYTES)
        bound_key = _bound("key", tenant, conversation, self._sealing)
        wrapped = self._masters[self._sealing].encrypt(wrap_nonce, data_key, bound_key)
        plain = contents.model_dump_json(exclude_none=True).encode()
        ciphertext = _cipher(data_key).encrypt(nonce, plain, _bound("contents", tenant, conversation, ""))
        return SealedVault(
            key_id=self._sealing,
            wrapped_key=_encode(wrapped),
            wrap_nonce=_encode(wrap_nonce),
            nonce=_encode(nonce),
            ciphertext=_encode(ciphertext),
        )

    def open(self, sealed: SealedVault, *, tenant: str, conversation: str) -> VaultContents:
        """Decrypt; raises StageError (`vault_unreadable`) on an unknown key name, a wrong owner or tampering."""
        data_key = self._unwrap(sealed, tenant, conversation)
        plain = _decrypt(
            _cipher(data_key), sealed.nonce, sealed.ciphertext, _bound("contents", tenant, conversation, "")
        )
        try:
            return VaultContents.model_validate_json(plain)
        except ValidationError:
            raise _unreadable("its contents have another shape") from None

    def _unwrap(self, sealed: SealedVault, tenant: str, conversation: str) -> bytes:
        master = self._masters.get(sealed.key_id)
        if master is None:
            raise _unreadable(f"it was sealed with a key that {VARIABLE} does not name")
        bound = _bound("key", tenant, conversation, sealed.key_id)
        return _decrypt(master, sealed.wrap_nonce, sealed.wrapped_key, bound)


def new_key(name: str, random: Random = os.urandom) -> str:
    """A fresh master key in the form that `VaultKeys.parse` reads."""
    if not _KEY_ID.fullmatch(name):
        raise ConfigurationError("the key's name must be 1 to 32 letters, digits, _ and -")
    return f"{name}:{_encode(random(KEY_BYTES))}"


def _bound(purpose: str, tenant: str, conversation: str, key_id: str) -> bytes:
    # no identifier can hold the separator, so no two owners share these bytes
    return "\0".join(("penstock.vault/1", purpose, key_id, tenant, conversation)).encode()


def _cipher(key: bytes) -> AESGCM:
    # imported here so that the command, which only makes keys, needs no extra
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # an extra

    return AESGCM(key)


def _decrypt(cipher: AESGCM, nonce: str, ciphertext: str, bound: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415  # an extra

    try:
        return cipher.decrypt(
            base64.b64decode(nonce, validate=True), base64.b64decode(ciphertext, validate=True), bound
        )
    except InvalidTag:
        raise _unreadable("it was changed, or belongs to another tenant or conversation") from None
    except ValueError:  # not base64, or a nonce of a length that AES-GCM does not take
        raise _unreadable("a field is malformed") from None


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unreadable(reason: str) -> StageError:
    return StageError(f"the vault cannot be opened: {reason}", code="vault_unreadable", field="vault")
