"""`penstock.runtime.settings`: every bad variable is refused with a sentence that names it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated

import pytest
from pydantic import Field, SecretStr, ValidationError

from penstock.runtime.settings import EXIT_BAD_SETTINGS, BadSettings, ServiceSettings, load, parse


class Toy(ServiceSettings):
    """A service called `toy`."""

    toy_limit: Annotated[int, Field(ge=1)] = Field(default=5, description="Most toys.")
    toy_weights: dict[str, float] = Field(default_factory=dict, description="Weight of each toy, as JSON.")
    vault_keys: SecretStr = Field(description="Keys; make one with `penstock vault-key`.")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in [name for name in os.environ if name.upper().startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PENSTOCK_VAULT_KEYS", "k1:secret")
    yield monkeypatch


def refused() -> list[str]:
    with pytest.raises(BadSettings) as caught:
        parse(Toy)
    return caught.value.sentences


def test_defaults_and_given_values(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PENSTOCK_TOY_LIMIT", "7")
    environment.setenv("PENSTOCK_KAFKA_OPTIONS", '{"debug": "broker"}')
    environment.setenv("PENSTOCK_HTTP_PORT", "")
    settings = parse(Toy)
    assert (settings.toy_limit, settings.kafka_options, settings.http_port) == (7, {"debug": "broker"}, 0)
    assert settings.exactly_once


def test_settings_are_frozen_and_hide_secrets() -> None:
    settings = parse(Toy)
    with pytest.raises(ValidationError):
        settings.toy_limit = 9
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("PENSTOCK_TOY_LIMIT", "0", "PENSTOCK_TOY_LIMIT: input should be greater than or equal to 1 (Most toys.)"),
        ("PENSTOCK_TOY_LIMIT", "many", "PENSTOCK_TOY_LIMIT: input should be a valid integer"),
        ("PENSTOCK_HTTP_PORT", "70000", "PENSTOCK_HTTP_PORT: input should be less than or equal to 65535"),
        ("PENSTOCK_LOG_LEVEL", "loud", "PENSTOCK_LOG_LEVEL: input should be 'debug', 'info', 'warning' or 'error'"),
        ("PENSTOCK_KAFKA_BOOTSTRAP_SERVERS", "broker", "PENSTOCK_KAFKA_BOOTSTRAP_SERVERS: string should match"),
        ("PENSTOCK_KAFKA_BOOTSTRAP_SERVERS", "a:1, b:2", "PENSTOCK_KAFKA_BOOTSTRAP_SERVERS: string should match"),
        ("PENSTOCK_TOPIC_PREFIX", "no spaces ", "PENSTOCK_TOPIC_PREFIX: string should match"),
        ("PENSTOCK_EXACTLY_ONCE", "perhaps", "PENSTOCK_EXACTLY_ONCE: input should be a valid boolean"),
        ("PENSTOCK_KAFKA_OPTIONS", "tls", "PENSTOCK_KAFKA_OPTIONS: input should be JSON (More librdkafka options"),
        ("PENSTOCK_TOY_WEIGHTS", "{", "PENSTOCK_TOY_WEIGHTS: input should be JSON (Weight of each toy"),
        ("PENSTOCK_KAFKA_OPTIONS", "[1]", "PENSTOCK_KAFKA_OPTIONS: input should be a valid dictionary"),
    ],
)
def test_a_bad_value_is_named(environment: pytest.MonkeyPatch, variable: str, value: str, sentence: str) -> None:
    environment.setenv(variable, value)
    (found,) = refused()
    assert found.startswith(sentence)


def test_latency_mode_needs_the_transactions_that_remove_its_repeats(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PENSTOCK_INTERACTIVE_DELIVERY", "at_least_once")
    assert parse(Toy).interactive_delivery == "at_least_once"
    environment.setenv("PENSTOCK_EXACTLY_ONCE", "false")
    (found,) = refused()
    assert found.startswith("PENSTOCK_INTERACTIVE_DELIVERY: at_least_once needs PENSTOCK_EXACTLY_ONCE=true")


def test_a_missing_one_is_named_with_its_purpose(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("PENSTOCK_VAULT_KEYS")
    assert refused() == ["PENSTOCK_VAULT_KEYS is required (Keys; make one with `penstock vault-key`.)"]


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        (
            "PENSTOCK_TOY_LIMITS",
            "PENSTOCK_TOY_LIMITS is not a setting of this service; did you mean PENSTOCK_TOY_LIMIT?",
        ),
        ("PENSTOCK_TOY_COLOUR_OF_THE_BOX", "PENSTOCK_TOY_COLOUR_OF_THE_BOX is not a setting of this service"),
        (
            "PENSTOCK_RETRY_ATTEMPT",
            "PENSTOCK_RETRY_ATTEMPT is not a setting of this service; did you mean PENSTOCK_RETRY_ATTEMPTS?",
        ),
        (
            "PENSTOCK_VAULT_KEY",
            "PENSTOCK_VAULT_KEY is not a setting of this service; did you mean PENSTOCK_VAULT_KEYS?",
        ),
    ],
)
def test_a_typing_error_is_refused(environment: pytest.MonkeyPatch, variable: str, sentence: str) -> None:
    environment.setenv(variable, "1")
    assert refused() == [sentence]


@pytest.mark.parametrize(
    "variable",
    ["PENSTOCK_SAFETY_POLICY", "PENSTOCK_INFERENCE_ROWS", "PENSTOCK_KAFKA_PORT", "PENSTOCK_STATE_DIR", "OTHER_LIMIT"],
)
def test_what_belongs_to_others_is_left_alone(environment: pytest.MonkeyPatch, variable: str) -> None:
    environment.setenv(variable, "anything")
    assert parse(Toy).toy_limit == 5


def test_all_bad_ones_are_named_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PENSTOCK_TOY_LIMIT", "0")
    environment.setenv("PENSTOCK_TOY_LIMTI", "1")
    environment.setenv("PENSTOCK_BATCH_MAX_RECORDS", "0")
    sentences = refused()
    assert len(sentences) == 3
    for name in ("TOY_LIMIT:", "TOY_LIMTI ", "BATCH_MAX_RECORDS:"):
        assert any(f"PENSTOCK_{name}" in sentence for sentence in sentences)


def test_load_prints_the_sentences_and_exits(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("PENSTOCK_TOY_LIMIT", "0")
    with pytest.raises(SystemExit) as caught:
        load(Toy)
    assert caught.value.code == EXIT_BAD_SETTINGS
    assert capsys.readouterr().err.startswith("error: PENSTOCK_TOY_LIMIT: ")


def test_a_bad_value_is_never_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PENSTOCK_KAFKA_OPTIONS", '{"sasl.password": "hunter2"')
    environment.setenv("PENSTOCK_TOY_LIMIT", "hunter2")
    code = "from penstock.runtime.settings import ServiceSettings, load; load(ServiceSettings)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_BAD_SETTINGS
    assert "PENSTOCK_KAFKA_OPTIONS" in done.stderr
    assert "hunter2" not in done.stderr
    assert "hunter2" not in "".join(refused())
