"""The local broker with the doors closed: TLS, SASL/SCRAM users, and an authorizer that allows nothing by default.

Same jars, template and life as `LocalKafka`. Certificates are the caller's; the first user, a super user, is made
when the data folder is formatted, from a salted digest of its password. Its other users and all ACLs are made by a
client afterwards. One broker, for tests and for trying settings out: hardening a cluster is left to its owner.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from penstock.local.errors import LocalStackError, StartError
from penstock.local.kafka import LocalKafka, _Parts, metadata_answers
from penstock.local.ports import free_port

MECHANISM: Final = "SCRAM-SHA-512"
_ITERATIONS = 8192
_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files. The broker's has the certificate and its key; its subject is `CN=<common_name>` and no more."""

    authority: Path
    broker: Path
    common_name: str


@dataclass(frozen=True, slots=True)
class User:
    """A SCRAM user."""

    name: str
    password: str = field(repr=False)


class SecureKafka(LocalKafka):
    """One local broker that speaks SASL over TLS alone and lets its users do what an ACL allows.

    Broker and controller know each other by certificate. Its folder is a temporary one, gone after `stop`.
    """

    def __init__(
        self, certificates: Certificates, admin: User, *, start_limit_s: float = 120.0, root: Path | None = None
    ) -> None:
        super().__init__(start_limit_s=start_limit_s, root=root)
        if '"' in admin.password or "\\" in admin.password:
            raise LocalStackError("the super user's password may have no quotation mark and no backslash")
        self._certificates = certificates
        self._admin = admin

    def client_options(self, user: User) -> dict[str, str]:
        """What a client of librdkafka needs besides the address to connect as this user."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": MECHANISM,
            "sasl.username": user.name,
            "sasl.password": user.password,
            "ssl.ca.location": str(self._certificates.authority),
        }

    def create_users(self, *users: User) -> None:
        """Make users, or give them a new password; they are let in when this returns."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, **self.client_options(self._admin)})
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS)
        wanted = [UserScramCredentialUpsertion(user.name, info, user.password.encode()) for user in users]
        for future in admin.alter_user_scram_credentials(wanted, request_timeout=_LIMIT_S).values():
            future.result()
        # the broker learns of them all together, a moment later
        last = self.client_options(users[-1])
        until = time.monotonic() + _LIMIT_S
        while not metadata_answers(self.bootstrap_servers, options=last):
            if time.monotonic() > until:
                raise StartError(f"the {self.what} does not let the new user {users[-1].name} in")

    def _format(self, parts: _Parts, prepared: Path) -> None:
        if self._port is None:
            self._port = free_port()
        parts.format(self._render(parts), "--add-scram", f"{MECHANISM}=[{_salted(self._admin)}]")

    def _render(self, parts: _Parts) -> Path:
        config = super()._render(parts)
        lines = config.read_text(encoding="utf-8").splitlines()
        replaced = _listeners(lines) | self._security()
        kept = [line for line in lines if line.partition("=")[0] not in replaced]
        config.touch(mode=0o600)
        config.chmod(0o600)
        config.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in replaced.items())]) + "\n")
        return config

    def _answers(self) -> bool:
        return metadata_answers(self.bootstrap_servers, options=self.client_options(self._admin))

    def _security(self) -> dict[str, str]:
        login = "org.apache.kafka.common.security.scram.ScramLoginModule"
        jaas = f'{login} required username="{self._admin.name}" password="{self._admin.password}";'
        return {
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:SSL",
            "inter.broker.listener.name": "SASL_SSL",
            "sasl.enabled.mechanisms": MECHANISM,
            "sasl.mechanism.inter.broker.protocol": MECHANISM,
            f"listener.name.sasl_ssl.{MECHANISM.lower()}.sasl.jaas.config": jaas,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._certificates.broker),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self._certificates.authority),
            "listener.name.controller.ssl.client.auth": "required",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": f"User:{self._admin.name};User:CN={self._certificates.common_name}",
        }


def _listeners(lines: list[str]) -> dict[str, str]:
    """The template's listeners, spoken to through SASL and TLS."""
    names = ("listeners", "advertised.listeners")
    given = dict(line.split("=", 1) for line in lines if line.partition("=")[0] in names)
    return {name: given[name].replace("PLAINTEXT://", "SASL_SSL://") for name in names}


def _salted(user: User) -> str:
    """A user as the format tool takes it, without the password itself: arguments of a process are seen by others."""
    salt = secrets.token_bytes(24)
    digest = hashlib.pbkdf2_hmac("sha512", user.password.encode(), salt, _ITERATIONS)
    encoded = base64.b64encode(salt).decode(), base64.b64encode(digest).decode()
    return f'name={user.name},salt="{encoded[0]}",saltedpassword="{encoded[1]}",iterations={_ITERATIONS}'
