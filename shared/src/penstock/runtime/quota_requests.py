"""Asking brokers for client quotas and changing them (KIP-546), which librdkafka has no call for.

Connection, SASL, framing and the field types are aiokafka's; of the two requests it has the one that describes, and
the one that alters stands here. TLS, user and password come from the services' settings; librdkafka's own options
(`PENSTOCK_KAFKA_OPTIONS`) have no effect. What the quotas mean is `penstock.runtime.quotas`. Needs `penstock[quotas]`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError

from penstock.contracts.errors import BackendUnavailable, ConfigurationError
from penstock.runtime.settings import ServiceSettings

try:
    from aiokafka.client import AIOKafkaClient
    from aiokafka.errors import KafkaError as ClientError
    from aiokafka.errors import for_code
    from aiokafka.protocol.admin import DescribeClientQuotasRequest
    from aiokafka.protocol.api import Request, RequestStruct, Response
    from aiokafka.protocol.types import Array, Boolean, Float64, Int16, Int32, Schema, String
except ModuleNotFoundError:
    raise ConfigurationError("quotas need the extra: install penstock[quotas]") from None

REQUEST_TIMEOUT_MS: Final = 20_000
_USER: Final = "user"
_ANY_NAME: Final = 2
"""Match type of DescribeClientQuotas: every user that has a quota of its own."""
_TEXT = String("utf-8")
_ENTITY = Array(("entity_type", _TEXT), ("entity_name", _TEXT))


class _AlterClientQuotasResponse(Response):
    API_KEY = 49
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("entries", Array(("error_code", Int16), ("error_message", _TEXT), ("entity", _ENTITY))),
    )


class _AlterClientQuotasV0(RequestStruct):
    API_KEY = 49
    API_VERSION = 0
    RESPONSE_TYPE = _AlterClientQuotasResponse
    SCHEMA = Schema(
        (
            "entries",
            Array(("entity", _ENTITY), ("ops", Array(("key", _TEXT), ("value", Float64), ("remove", Boolean)))),
        ),
        ("validate_only", Boolean),
    )


class _AlterClientQuotas(Request[_AlterClientQuotasV0]):
    """Each change is a user, and for each quota its value, or None to remove it."""

    API_KEY = 49

    def __init__(self, changes: Mapping[str, Mapping[str, float | None]]) -> None:
        self._changes = changes

    def build(self, request_struct_class: type[_AlterClientQuotasV0]) -> _AlterClientQuotasV0:
        entries = [
            ([(_USER, user)], [(name, value or 0.0, value is None) for name, value in quotas.items()])
            for user, quotas in self._changes.items()
        ]
        return request_struct_class(entries, False)


def describe(settings: ServiceSettings) -> dict[str, dict[str, float]]:
    """Every user's quotas, by name. Raises BackendUnavailable, and ConfigurationError where the brokers refuse."""
    everyone: Any = (_USER, _ANY_NAME, None)  # annotated as if there were always a name
    answer = asyncio.run(_ask(settings, DescribeClientQuotasRequest([everyone], strict=True)))
    _refused(settings, answer.error_code, answer.error_message)
    return {entity[0][1]: dict(quotas) for entity, quotas in answer.entries}


def alter(settings: ServiceSettings, changes: Mapping[str, Mapping[str, float | None]]) -> None:
    """Change users' quotas; None removes one. Raises as `describe`; those of other users may have changed then."""
    answer = asyncio.run(_ask(settings, _AlterClientQuotas(changes)))
    for code, message, _ in answer.entries:
        _refused(settings, code, message)


async def _ask(settings: ServiceSettings, request: Request[Any]) -> Any:
    client = AIOKafkaClient(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id="penstock-cli",
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        **_security(settings),
    )
    try:
        await client.bootstrap()
        # any broker passes a change on to the controller
        return await client.send(client.get_random_node(), request)
    except (ClientError, TimeoutError, OSError) as error:
        raise BackendUnavailable(
            f"the broker at {settings.kafka_bootstrap_servers} did not answer about quotas ({error}); try again"
        ) from None
    finally:
        await client.close()


def _security(settings: ServiceSettings) -> dict[str, Any]:
    """The settings' TLS and SASL as aiokafka takes them."""
    given = settings.security_options()
    options: dict[str, Any] = {"security_protocol": given["security.protocol"]}
    if "SSL" in options["security_protocol"]:
        options["ssl_context"] = _tls(given)
    if "sasl.mechanism" in given:
        options["sasl_mechanism"] = given["sasl.mechanism"]
        options["sasl_plain_username"] = given["sasl.username"]
        options["sasl_plain_password"] = given["sasl.password"]
    return options


def _tls(given: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=given.get("ssl.ca.location"))
        if "ssl.certificate.location" in given:
            password = given.get("ssl.key.password", "")
            context.load_cert_chain(given["ssl.certificate.location"], given["ssl.key.location"], lambda: password)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"PENSTOCK_KAFKA_SSL_...: a file cannot be used: {error}") from None
    return context


def _refused(settings: ServiceSettings, code: int, message: str | None) -> None:
    """Nothing where the brokers did as asked."""
    if code == KafkaError.NO_ERROR:
        return
    name = KafkaError(code).name()
    if code == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
        whom = f"the user {settings.kafka_sasl_username}" if settings.kafka_sasl_username else "this client"
        raise ConfigurationError(
            f"the broker does not let {whom} see or change quotas ({name}): come as a super user, or as one that may "
            "DESCRIBE_CONFIGS and ALTER_CONFIGS of the cluster"
        )
    if for_code(code).retriable:
        raise BackendUnavailable(f"the broker could not do this now ({name}); try again")
    raise ConfigurationError(f"the broker refused the quotas: {message or KafkaError(code).str()} ({name})")
