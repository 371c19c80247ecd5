"""`penstock.runtime.connection`: TLS and SASL by settings; what cannot work is refused, and no secret is shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from penstock.contracts.errors import ConfigurationError
from penstock.runtime import access, kafka
from penstock.runtime.settings import BadSettings, ServiceSettings, parse

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in [name for name in os.environ if name.upper().startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    yield monkeypatch


@pytest.fixture
def pem(tmp_path: Path) -> str:
    file = tmp_path / "file.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\n")
    return str(file)


def given(environment: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        environment.setenv(f"PENSTOCK_KAFKA_{name.upper()}", value)


def refused(environment: pytest.MonkeyPatch, **values: str) -> list[str]:
    given(environment, **values)
    with pytest.raises(BadSettings) as caught:
        parse(ServiceSettings)
    assert PASSWORD not in str(caught.value)
    return caught.value.sentences


def test_without_settings_the_connection_is_plain() -> None:
    assert ServiceSettings().security_options() == {"security.protocol": "PLAINTEXT"}


def test_every_client_gets_user_and_authority(environment: pytest.MonkeyPatch, pem: str) -> None:
    given(environment, security_protocol="SASL_SSL", sasl_username="penstock-safety", sasl_password=PASSWORD)
    given(environment, ssl_ca_location=pem)
    settings = parse(ServiceSettings)
    expected = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "penstock-safety",
        "sasl.password": PASSWORD,
        "ssl.ca.location": pem,
    }
    configs = (
        kafka.common(settings),
        kafka.consumer(settings, "g"),
        kafka.reader(settings, "g"),
        kafka.producer(settings, None),
        kafka.producer(settings, "t"),
    )
    for config in configs:
        assert {name: config[name] for name in expected} == expected


def test_a_client_certificate_and_its_key(environment: pytest.MonkeyPatch, pem: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{PASSWORD}\n")
    given(environment, security_protocol="SSL", ssl_certificate_location=pem, ssl_key_location=pem)
    given(environment, ssl_key_password_file=str(secret))
    assert parse(ServiceSettings).security_options() == {
        "security.protocol": "SSL",
        "ssl.certificate.location": pem,
        "ssl.key.location": pem,
        "ssl.key.password": PASSWORD,
    }


def test_a_password_from_a_file_loses_the_lines_end_alone(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f" {PASSWORD} \n")
    given(environment, security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password_file=str(secret))
    settings = parse(ServiceSettings)
    assert settings.security_options()["sasl.password"] == f" {PASSWORD} "
    secret.unlink()
    with pytest.raises(ConfigurationError, match=r"PENSTOCK_KAFKA_SASL_PASSWORD_FILE: .* can no longer be read"):
        settings.security_options()


def test_a_user_needs_a_name_and_a_password(environment: pytest.MonkeyPatch) -> None:
    assert refused(environment, security_protocol="SASL_SSL") == [
        "PENSTOCK_KAFKA_SASL_USERNAME is required with PENSTOCK_KAFKA_SECURITY_PROTOCOL=SASL_SSL",
        "PENSTOCK_KAFKA_SASL_PASSWORD or PENSTOCK_KAFKA_SASL_PASSWORD_FILE is required with "
        "PENSTOCK_KAFKA_SECURITY_PROTOCOL=SASL_SSL",
    ]


def test_a_password_without_sasl_is_not_ignored(environment: pytest.MonkeyPatch) -> None:
    assert refused(environment, sasl_password=PASSWORD) == [
        "PENSTOCK_KAFKA_SASL_PASSWORD has no effect with PENSTOCK_KAFKA_SECURITY_PROTOCOL=PLAINTEXT; set SASL_SSL, "
        "or take it away"
    ]


def test_an_authority_without_tls_is_not_ignored(environment: pytest.MonkeyPatch, pem: str) -> None:
    (sentence,) = refused(
        environment,
        security_protocol="SASL_PLAINTEXT",
        sasl_username="u",
        sasl_password=PASSWORD,
        ssl_ca_location=pem,
    )
    assert sentence.startswith("PENSTOCK_KAFKA_SSL_CA_LOCATION has no effect with")


def test_a_password_is_never_sent_in_clear(environment: pytest.MonkeyPatch) -> None:
    user = {"sasl_username": "u", "sasl_password": PASSWORD}
    (sentence,) = refused(environment, security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", **user)
    assert "would send the password in clear" in sentence


def test_one_source_of_a_password(environment: pytest.MonkeyPatch, pem: str) -> None:
    values = {"sasl_username": "u", "sasl_password": PASSWORD, "sasl_password_file": pem}
    assert refused(environment, security_protocol="SASL_SSL", **values) == [
        "give PENSTOCK_KAFKA_SASL_PASSWORD or PENSTOCK_KAFKA_SASL_PASSWORD_FILE, not both"
    ]


def test_a_certificate_needs_its_key(environment: pytest.MonkeyPatch, pem: str) -> None:
    (sentence,) = refused(environment, security_protocol="SSL", ssl_certificate_location=pem)
    assert sentence.endswith("belong together; one of them is missing")


def test_files_that_cannot_be_used_are_named(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    values = {"sasl_username": "u", "sasl_password_file": str(empty), "ssl_ca_location": "/nowhere/ca.pem"}
    assert sorted(refused(environment, security_protocol="SASL_SSL", **values)) == [
        f"PENSTOCK_KAFKA_SASL_PASSWORD_FILE: {empty} is empty",
        "PENSTOCK_KAFKA_SSL_CA_LOCATION: there is no file /nowhere/ca.pem",
    ]


def test_an_unknown_mechanism_is_refused(environment: pytest.MonkeyPatch) -> None:
    (sentence,) = refused(environment, sasl_mechanism="GSSAPI")
    assert sentence.startswith("PENSTOCK_KAFKA_SASL_MECHANISM: input should be 'SCRAM-SHA-512'")


def test_what_has_a_variable_is_no_option(environment: pytest.MonkeyPatch) -> None:
    assert refused(environment, options=f'{{"sasl.password": "{PASSWORD}"}}') == [
        "PENSTOCK_KAFKA_OPTIONS: sasl.password has a variable of its own, PENSTOCK_KAFKA_SASL_PASSWORD"
    ]


def test_no_secret_is_shown() -> None:
    settings = ServiceSettings(
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_username="u",
        kafka_sasl_password=PASSWORD,
        kafka_options={"sasl.oauthbearer.client.secret": PASSWORD},
    )
    assert PASSWORD not in f"{settings} {settings!r} {settings.model_dump()['kafka_sasl_password']}"
    with pytest.raises(ValidationError) as caught:
        ServiceSettings(kafka_sasl_password=PASSWORD, kafka_options={"sasl.password": PASSWORD})
    assert PASSWORD not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize("option", ["no.such.option", "ssl.cipher.suites"])
def test_a_client_that_cannot_be_made_is_a_sentence(environment: pytest.MonkeyPatch, option: str) -> None:
    given(environment, security_protocol="SSL", options=f'{{"{option}": "frobnicate"}}')
    with pytest.raises(ConfigurationError, match="the Kafka client cannot work with these settings: "):
        access.check(parse(ServiceSettings))
