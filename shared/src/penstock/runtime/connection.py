"""The settings of the connection to Kafka: addresses, TLS, SASL; and the client options they come to.

A combination that cannot work, or that would send a password in clear, is refused before a client is made.
Secrets are read from the environment or from mounted files, and shown nowhere. Whether the broker takes them
is for `penstock.runtime.access` to find out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import BaseSettings

from penstock.contracts.errors import ConfigurationError

PREFIX: Final = "PENSTOCK_"

OPTION_OF: Final = {
    "security.protocol": "kafka_security_protocol",
    "sasl.mechanism": "kafka_sasl_mechanism",
    "sasl.mechanisms": "kafka_sasl_mechanism",
    "sasl.username": "kafka_sasl_username",
    "sasl.password": "kafka_sasl_password",
    "ssl.ca.location": "kafka_ssl_ca_location",
    "ssl.certificate.location": "kafka_ssl_certificate_location",
    "ssl.key.location": "kafka_ssl_key_location",
    "ssl.key.password": "kafka_ssl_key_password",
    "queued.max.messages.kbytes": "queue_max_kbytes",
}
"""librdkafka's options that have a setting of their own."""


class KafkaSettings(BaseSettings):
    """How to reach the brokers, and as whom."""

    kafka_bootstrap_servers: Annotated[
        str, StringConstraints(min_length=3, pattern=r"^[^\s,]+:\d+(,[^\s,]+:\d+)*$")
    ] = Field(default="127.0.0.1:9092", description="Brokers, HOST:PORT[,HOST:PORT...].")
    kafka_options: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description="More librdkafka options as a JSON object; not those that have a setting.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="TLS (`SSL`) and a user (`SASL`) to the brokers, or neither."
    )
    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(
        default="SCRAM-SHA-512", description="How the user proves who it is; `PLAIN` over TLS alone."
    )
    kafka_sasl_username: str = Field(default="", description="The user on the brokers, e.g. `penstock-safety`.")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="The user's password.")
    kafka_sasl_password_file: Path | None = Field(
        default=None, description="File with the password instead, such as a mounted secret; read at start."
    )
    kafka_ssl_ca_location: Path | None = Field(
        default=None, description="PEM file with the authority of the brokers' certificates; the system's where absent."
    )
    kafka_ssl_certificate_location: Path | None = Field(
        default=None, description="PEM file with this client's certificate, where brokers ask for one."
    )
    kafka_ssl_key_location: Path | None = Field(default=None, description="PEM file with the certificate's key.")
    kafka_ssl_key_password: SecretStr | None = Field(default=None, description="The key's password, if it has one.")
    kafka_ssl_key_password_file: Path | None = Field(
        default=None, description="File with the key's password instead; read at start."
    )

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def security_options(self) -> dict[str, str]:
        """TLS and SASL as librdkafka names them; raises ConfigurationError where a secret's file has gone."""
        options: dict[str, str] = {"security.protocol": self.kafka_security_protocol}
        if self._has_tls:
            paths = {
                "ssl.ca.location": self.kafka_ssl_ca_location,
                "ssl.certificate.location": self.kafka_ssl_certificate_location,
                "ssl.key.location": self.kafka_ssl_key_location,
            }
            options |= {name: str(path) for name, path in paths.items() if path is not None}
            key_password = self._secret("kafka_ssl_key_password")
            if key_password is not None:
                options["ssl.key.password"] = key_password
        if self._has_sasl:
            options["sasl.mechanism"] = self.kafka_sasl_mechanism
            options["sasl.username"] = self.kafka_sasl_username
            options["sasl.password"] = self._secret("kafka_sasl_password") or ""
        return options

    @property
    def _has_tls(self) -> bool:
        return self.kafka_security_protocol in ("SSL", "SASL_SSL")

    @property
    def _has_sasl(self) -> bool:
        return self.kafka_security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    def _secret(self, name: str) -> str | None:
        """A secret from its variable or its file, without the line's end."""
        value: SecretStr | None = getattr(self, name)
        if value is not None:
            return value.get_secret_value()
        file: Path | None = getattr(self, f"{name}_file")
        if file is None:
            return None
        try:
            return file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(f"{_variable(f'{name}_file')}: {file} can no longer be read") from None

    def _problems(self) -> Iterator[str]:
        yield from self._options_with_a_setting()
        yield from self._unreadable()
        protocol = f"{_variable('kafka_security_protocol')}={self.kafka_security_protocol}"
        for name in ("kafka_sasl_password", "kafka_ssl_key_password"):
            if getattr(self, name) is not None and getattr(self, f"{name}_file") is not None:
                yield f"give {_variable(name)} or {_variable(f'{name}_file')}, not both"
        if self._has_sasl:
            if not self.kafka_sasl_username:
                yield f"{_variable('kafka_sasl_username')} is required with {protocol}"
            if self.kafka_sasl_password is None and self.kafka_sasl_password_file is None:
                yield (
                    f"{_variable('kafka_sasl_password')} or {_variable('kafka_sasl_password_file')} "
                    f"is required with {protocol}"
                )
            if self.kafka_sasl_mechanism == "PLAIN" and not self._has_tls:
                yield (
                    f"{_variable('kafka_sasl_mechanism')}=PLAIN with {protocol} would send the password in clear; "
                    "use SASL_SSL, or a SCRAM mechanism"
                )
        else:
            yield from self._without_effect("kafka_sasl_", protocol, "SASL_SSL")
        if self._has_tls:
            if (self.kafka_ssl_certificate_location is None) != (self.kafka_ssl_key_location is None):
                certificate, key = _variable("kafka_ssl_certificate_location"), _variable("kafka_ssl_key_location")
                yield f"{certificate} and {key} belong together; one of them is missing"
        else:
            yield from self._without_effect("kafka_ssl_", protocol, "SASL_SSL or SSL")

    def _without_effect(self, stem: str, protocol: str, instead: str) -> Iterator[str]:
        # somebody who gives a password or an authority does not mean to connect without
        for name, field in type(self).model_fields.items():
            if name.startswith(stem) and getattr(self, name) not in (None, field.default):
                yield f"{_variable(name)} has no effect with {protocol}; set {instead}, or take it away"

    def _options_with_a_setting(self) -> Iterator[str]:
        for option in self.kafka_options:
            if option in OPTION_OF:
                own = _variable(OPTION_OF[option])
                yield f"{_variable('kafka_options')}: {option} has a variable of its own, {own}"

    def _unreadable(self) -> Iterator[str]:
        for name in type(self).model_fields:
            path = getattr(self, name)
            if not name.startswith(("kafka_sasl_", "kafka_ssl_")) or not isinstance(path, Path):
                continue
            if not path.is_file():
                yield f"{_variable(name)}: there is no file {path}"
            elif not os.access(path, os.R_OK):
                yield f"{_variable(name)}: {path} may not be read by this user"
            elif name.endswith("_file") and not path.read_bytes().strip():
                yield f"{_variable(name)}: {path} is empty"


def _variable(field: str) -> str:
    return f"{PREFIX}{field.upper()}"
