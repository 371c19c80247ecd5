"""Whether the brokers let this process in, and what to do where they do not.

    refused at the door     certificate, user or password: `reach` raises ConfigurationError
    refused a resource      an ACL that is missing: the client's error, one of `NOT_AUTHORIZED`

Both last until somebody changes something, so neither is waited for. Which ACLs a service needs, `acl` knows.
"""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from penstock.contracts.errors import ConfigurationError
from penstock.runtime import kafka
from penstock.runtime.settings import ServiceSettings

NOT_AUTHORIZED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
"""What an ACL refuses; waiting does not mend it."""

_NOT_LET_IN: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
    }
)
_ASK_S = 0.5
_TRIES = 2
"""A broker that goes away in the middle of a handshake looks like one that refuses: a new client asks again."""


def check(settings: ServiceSettings) -> None:
    """Raises ConfigurationError where the client itself cannot work so: an unknown option, a key that does not fit."""
    _client(settings, [])


def reach(settings: ServiceSettings, timeout_s: float) -> None:
    """Get an answer from a broker.

    Raises ConfigurationError, saying what to do, where it does not let this process in, and KafkaException
    where none answers within `timeout_s`.
    """
    for attempt in range(1, _TRIES + 1):
        errors: list[KafkaError] = []
        client = _client(settings, errors)
        try:
            _ask(client, errors, timeout_s)
        except KafkaException:
            refusal = next((error for error in errors if error.code() in _NOT_LET_IN), None)
            if refusal is None:
                raise
            if attempt == _TRIES:
                raise ConfigurationError(_advice(settings, refusal)) from None
        else:
            return


def to_do(error: KafkaError, user: str) -> str:
    """What to do about a resource that the brokers refuse to a user; "" for one without a name."""
    whom = f"the user {user}" if user else "this client"
    return (
        f"the broker does not let {whom} do this ({error.str()}): compare the ACLs with `penstock acl check`, create "
        "what is missing with `penstock acl apply`, and see that each service runs as its own user"
    )


def _client(settings: ServiceSettings, errors: list[KafkaError]) -> AdminClient:
    try:
        return AdminClient({**kafka.common(settings), "log_level": 0, "error_cb": errors.append})
    except KafkaException as error:
        raise ConfigurationError(
            f"the Kafka client cannot work with these settings: {error.args[0].str()}; see PENSTOCK_KAFKA_OPTIONS "
            "and PENSTOCK_KAFKA_SSL_..."
        ) from None


def _ask(client: AdminClient, errors: list[KafkaError], timeout_s: float) -> None:
    """Wait for metadata in short turns: a refusal is told between them, long before the time is up."""
    left = timeout_s
    while True:
        try:
            client.list_topics(timeout=min(_ASK_S, left))
        except KafkaException:
            client.poll(0)
            left -= _ASK_S
            if left <= 0 or any(error.code() in _NOT_LET_IN for error in errors):
                raise
        else:
            return


def _advice(settings: ServiceSettings, error: KafkaError) -> str:
    where = settings.kafka_bootstrap_servers
    if error.code() == KafkaError._SSL:
        return (
            f"no TLS connection with the broker at {where} ({error.str()}): see that PENSTOCK_KAFKA_SSL_CA_LOCATION "
            "names the authority that signed the broker's certificate, that the certificate names this host, that "
            "the port speaks TLS, and that a client certificate is given where the broker asks for one"
        )
    return (
        f"the broker at {where} refused the user {settings.kafka_sasl_username!r} ({error.str()}): see "
        "PENSTOCK_KAFKA_SASL_USERNAME, PENSTOCK_KAFKA_SASL_PASSWORD or its _FILE, and PENSTOCK_KAFKA_SASL_MECHANISM, "
        "and that the user has been created on the broker for this mechanism"
    )
