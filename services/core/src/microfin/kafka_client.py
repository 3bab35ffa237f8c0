"""How every Kafka client of microfin connects."""

import ssl
from typing import Any

from microfin.settings import CommonSettings


def connection_options(settings: CommonSettings, client_id: str) -> dict[str, Any]:
    """Return the arguments that aiokafka's clients have in common: servers, name and TLS."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka.split(","),
        "client_id": client_id,
        "metadata_max_age_ms": 30_000,
        "retry_backoff_ms": 50,
    }
    if settings.kafka_ca_file:
        context = ssl.create_default_context(cafile=settings.kafka_ca_file)
        if settings.kafka_certificate_file:
            context.load_cert_chain(settings.kafka_certificate_file, settings.kafka_key_file)
        options |= {"security_protocol": "SSL", "ssl_context": context}
    return options
