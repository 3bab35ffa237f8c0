"""How every Kafka client of microfin connects."""

from typing import Any, Final

from microfin.process.certificate_files import TlsFiles
from microfin.process.renewed_tls import renewed_context
from microfin.process.settings import CommonSettings

# Milliseconds. A client notices a half-open connection only by a request without an answer. Then it
# has to connect again within the five seconds that an answer of the API may take. An idempotent
# producer repeats a request that timed out until it succeeds.
_REQUEST_TIMEOUT: Final = 2_000


KAFKA: Final = "Kafka"
"""The name of Kafka's brokers in the sentences and metrics of TLS."""

UNREACHABLE_AFTER: Final = 10.0
"""Seconds without an answer of any broker after which a producer asks the configured servers."""


def connection_options(settings: CommonSettings, client_id: str) -> dict[str, Any]:
    """Return the arguments that all of aiokafka's clients share: servers, name and TLS."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka.split(","),
        "client_id": client_id,
        "metadata_max_age_ms": 30_000,
        "retry_backoff_ms": 50,
        "request_timeout_ms": _REQUEST_TIMEOUT,
    }
    if settings.kafka_ca_file:
        files = TlsFiles(
            KAFKA, settings.kafka_ca_file, settings.kafka_certificate_file, settings.kafka_key_file
        )
        options |= {"security_protocol": "SSL", "ssl_context": renewed_context(files)}
    return options
