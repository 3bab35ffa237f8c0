"""A user of Kafka for tests that bring their own pods, not those of the charts.

The user may do everything with the topics whose names begin with the name of its namespace.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from e2e.existing_kafka import LAB_KAFKA
from e2e.kubernetes_cluster import apply, get, kubectl

SECRET: Final = "kafka"
VOLUME: Final = {"name": "kafka", "secret": {"secretName": SECRET}}
MOUNT: Final = {"name": "kafka", "mountPath": "/run/kafka", "readOnly": True}
SETTINGS: Final = {
    "MICROFIN_KAFKA": LAB_KAFKA.bootstrap,
    "MICROFIN_KAFKA_CA_FILE": "/run/kafka/ca.crt",
    "MICROFIN_KAFKA_CERTIFICATE_FILE": "/run/kafka/user.crt",
    "MICROFIN_KAFKA_KEY_FILE": "/run/kafka/user.key",
}
"""For pods that have the volume at its place."""


def topic_of(namespace: str, name: str) -> str:
    """Return the name of a topic that the user of the namespace may use."""
    return f"{namespace}.{name}.commands"


@contextlib.contextmanager
def user_of(namespace: str) -> Iterator[None]:
    """Have a user while the block runs, and a Secret in its namespace with its certificate."""
    _make(namespace)
    try:
        yield
    finally:
        user = ("kafkauser", namespace, "--ignore-not-found")
        kubectl("-n", LAB_KAFKA.namespace, "delete", *user)


def _make(namespace: str) -> None:
    place = ("-n", LAB_KAFKA.namespace)
    apply(_user(namespace))
    ready = ("wait", "--for=condition=Ready", f"kafkauser/{namespace}", "--timeout=120s")
    kubectl(*place, *ready)
    user = get(f"secret/{namespace}", LAB_KAFKA.namespace)["data"]
    authority = get(f"secret/{LAB_KAFKA.authority}", LAB_KAFKA.namespace)["data"]
    data = {key: user[key] for key in ("user.crt", "user.key")} | {"ca.crt": authority["ca.crt"]}
    metadata = {"name": SECRET, "namespace": namespace}
    apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


def worker_template() -> dict[str, Any]:
    """Return the `podTemplate` of workers, and of the operator's Jobs, that are this user."""
    return {
        "spec": {
            "containers": [{"name": "worker", "volumeMounts": [MOUNT]}],
            "volumes": [VOLUME],
        }
    }


def _user(namespace: str) -> dict[str, Any]:
    topics = {"type": "topic", "name": namespace, "patternType": "prefix"}
    group = {"type": "group", "name": "microfin-workers", "patternType": "literal"}
    acls = [
        {"resource": topics, "operations": ["All"]},
        {"resource": group, "operations": ["Read"]},
    ]
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaUser",
        "metadata": {
            "name": namespace,
            "namespace": LAB_KAFKA.namespace,
            "labels": {"strimzi.io/cluster": LAB_KAFKA.name},
        },
        "spec": {
            "authentication": {"type": "tls"},
            "authorization": {"type": "simple", "acls": acls},
        },
    }
