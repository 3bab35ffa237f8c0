"""How every Kafka client of microfin connects."""

from typing import Any, Final

from microfin.kafka.renewed_tls import renewed_context
from microfin.process.settings import CommonSettings

# Milliseconds. A connection that has become half-open is only found out by a request that is not
# answered: a client then has to connect again within the five seconds that an answer may take.
# An idempotent producer repeats what timed out, for as long as it takes.
_REQUEST_TIMEOUT: Final = 2_000


UNREACHABLE_AFTER: Final = 10.0
"""Seconds without an answer of the brokers after which a process says that it is not ready."""


def connection_options(settings: CommonSettings, client_id: str) -> dict[str, Any]:
    """Return the arguments that aiokafka's clients have in common: servers, name and TLS."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka.split(","),
        "client_id": client_id,
        "metadata_max_age_ms": 30_000,
        "retry_backoff_ms": 50,
        "request_timeout_ms": _REQUEST_TIMEOUT,
    }
    if settings.kafka_ca_file:
        context = renewed_context(
            settings.kafka_ca_file, settings.kafka_certificate_file, settings.kafka_key_file
        )
        options |= {"security_protocol": "SSL", "ssl_context": context}
    return options
