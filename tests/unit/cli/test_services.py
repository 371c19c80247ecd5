"""What each service is given: the stack's addresses, and the vault's key only where it belongs."""

from __future__ import annotations

import pytest

from penstock.cli.services import SERVICES, ports, service_environment, tracing_environment
from penstock.cli.state import BackingState, ViewerState

BROKER = BackingState(kind="process", address="127.0.0.1:29092", ours=True)
ZIPKIN = ViewerState(kind="process", address="http://z", ours=True, viewer="zipkin", spans="http://z/api/v2/spans")
JAEGER = ViewerState(kind="container", address="http://j", ours=True, viewer="jaeger", spans="http://j:4318")


def environment(name: str, base: dict[str, str], viewer: ViewerState | None = ZIPKIN) -> dict[str, str]:
    return service_environment(
        name, base, broker=BROKER, prefix="t.", port=21000, viewer=viewer, vault_key="kid:secret"
    )


@pytest.mark.parametrize("name", SERVICES)
def test_only_anonymize_and_postprocess_get_the_key(name: str) -> None:
    found = environment(name, {"PENSTOCK_VAULT_KEYS": "kid:secret", "PATH": "/bin"})
    holds = any("secret" in value for value in found.values())
    assert holds == (name in {"anonymize", "postprocess"})
    assert found["PATH"] == "/bin"


def test_the_stacks_addresses_win_over_the_callers() -> None:
    found = environment("safety", {"PENSTOCK_KAFKA_BOOTSTRAP_SERVERS": "other:1", "PENSTOCK_HTTP_PORT": "1"})
    assert found["PENSTOCK_KAFKA_BOOTSTRAP_SERVERS"] == "127.0.0.1:29092"
    assert (found["PENSTOCK_HTTP_PORT"], found["PENSTOCK_TOPIC_PREFIX"]) == ("21000", "t.")


def test_nothing_phones_home() -> None:
    assert environment("inference", {})["ORT_DISABLE_TELEMETRY"] == "1"


def test_spans_go_to_the_stacks_viewer() -> None:
    assert tracing_environment(ZIPKIN, {}) == {
        "OTEL_TRACES_EXPORTER": "zipkin",
        "OTEL_EXPORTER_ZIPKIN_ENDPOINT": "http://z/api/v2/spans",
    }
    assert tracing_environment(JAEGER, {})["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://j:4318"
    assert tracing_environment(None, {}) == {}


def test_an_exporter_that_the_caller_names_is_kept() -> None:
    found = environment("safety", {"OTEL_TRACES_EXPORTER": "none"})
    assert found["OTEL_TRACES_EXPORTER"] == "none"
    assert "OTEL_EXPORTER_ZIPKIN_ENDPOINT" not in found


def test_ports_differ() -> None:
    chosen = ports(SERVICES, [21000])
    assert len({*chosen.values(), 21000}) == len(SERVICES) + 1
