"""A broker with TLS, SCRAM users and ACLs, and clients and commands that come to it as one user or another."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from tests.support.certificates import Authority
from tests.support.stack import SERVICES, Stack

from penstock.local.secure_kafka import MECHANISM, Certificates, SecureKafka, User
from penstock.runtime.settings import ServiceSettings

_BROKER = "penstock-broker"
ADMIN = "admin"


class Secured:
    """The broker and its users. As a context manager it starts and ends it; `folder` takes certificates and secrets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder, "authority")
        certificates = Certificates(self.authority.file, self.authority.issue(_BROKER), _BROKER)
        self._users = {ADMIN: _user(ADMIN)}
        self.kafka = SecureKafka(certificates, self._users[ADMIN])

    @property
    def passwords(self) -> list[str]:
        """What must be seen nowhere."""
        return [user.password for user in self._users.values()]

    def create(self, names: Iterable[str]) -> None:
        """Make users, each with a password of its own."""
        made = [_user(name) for name in names]
        self.kafka.create_users(*made)
        self._users |= {user.name: user for user in made}

    def environment(self, user: str, prefix: str) -> dict[str, str]:
        """What a service or a command is given to connect as this user, its password in a file."""
        file = self.folder / f"{user}.password"
        file.touch(mode=0o600)
        file.write_text(self._users[user].password + "\n")
        return {
            "PENSTOCK_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "PENSTOCK_TOPIC_PREFIX": prefix,
            "PENSTOCK_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "PENSTOCK_KAFKA_SASL_MECHANISM": MECHANISM,
            "PENSTOCK_KAFKA_SASL_USERNAME": user,
            "PENSTOCK_KAFKA_SASL_PASSWORD_FILE": str(file),
            "PENSTOCK_KAFKA_SSL_CA_LOCATION": str(self.authority.file),
        }

    def settings(self, user: str, prefix: str) -> ServiceSettings:
        """The same for a client in this process."""
        names = {
            name.removeprefix("PENSTOCK_").lower(): value for name, value in self.environment(user, prefix).items()
        }
        return ServiceSettings.model_validate(names)

    def __enter__(self) -> Secured:
        self.kafka.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kafka.stop()


class SecuredStack(Stack):
    """The five services, each as its own user."""

    def __init__(self, secured: Secured, prefix: str, folder: Path) -> None:
        super().__init__(secured.kafka.bootstrap_servers, prefix, folder)
        self._secured = secured

    def start(self) -> Stack:
        """Start all five on topics and ACLs that are there, and wait until each is ready."""
        try:
            for name in SERVICES:
                self.launch(name)
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def _environment(self, name: str) -> dict[str, str]:
        return super()._environment(name) | self._secured.environment(f"penstock-{name}", self.prefix)


def run_process(
    module: str, *arguments: str, environment: Mapping[str, str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a module that ends by itself, with nothing of the caller's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "OTEL_", "COLUMNS"))}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**kept, **environment},
    )


def _user(name: str) -> User:
    return User(name, secrets.token_urlsafe(16))
