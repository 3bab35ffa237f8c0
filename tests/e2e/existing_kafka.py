"""The Kafka that the tests' cluster has already, where Strimzi makes none for a bank.

The lab has a broker, a script that acts on KafkaTopics, and a stand-in for the rest of Strimzi
(`e2e.strimzi`), but no Kafka resource: the tests make it, because the operator asks it which
namespaces may have topics there.
"""

import os
from typing import Any

from microfin_deploy.platform import ExistingKafka

VARIABLE = "MICROFIN_DEPLOY_KAFKA"
LAB_KAFKA = ExistingKafka("kafka", "lab")
"""What the tests of the operator alone use."""


def existing_kafka() -> ExistingKafka | None:
    """Return the Kafka that the environment names, as `make deploy` does."""
    text = os.environ.get(VARIABLE, "")
    return ExistingKafka.parse(text) if text else None


def kafka_resource(kafka: ExistingKafka, allowed: str) -> dict[str, Any]:
    """Return the Kafka resource. It allows topics of banks in the namespace `allowed`."""
    listener = {"name": "tls", "port": 9093, "type": "internal", "tls": True}
    listener["authentication"] = {"type": "tls"}
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "Kafka",
        "metadata": {
            "name": kafka.name,
            "namespace": kafka.namespace,
            "annotations": {"microfin.io/allow-namespaces": allowed},
        },
        "spec": {"kafka": {"listeners": [listener], "authorization": {"type": "simple"}}},
    }
