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
    files = make_user(namespace, namespace)
    write_secret(namespace, SECRET, files)
    try:
        yield
    finally:
        remove_user(namespace)


def make_user(name: str, topics: str) -> dict[str, str]:
    """Make a user who may do everything with topics whose names begin so; return its Secret's data
    and the brokers' authority."""
    place = ("-n", LAB_KAFKA.namespace)
    apply(_user(name, topics))
    kubectl(*place, "wait", "--for=condition=Ready", f"kafkauser/{name}", "--timeout=120s")
    user = get(f"secret/{name}", LAB_KAFKA.namespace)["data"]
    authority = get(f"secret/{LAB_KAFKA.authority}", LAB_KAFKA.namespace)["data"]
    return {key: user[key] for key in ("user.crt", "user.key")} | {"ca.crt": authority["ca.crt"]}


def remove_user(name: str) -> None:
    """Remove a user."""
    kubectl("-n", LAB_KAFKA.namespace, "delete", "kafkauser", name, "--ignore-not-found")


def write_secret(namespace: str, name: str, data: dict[str, str]) -> None:
    """Write a Secret from data in base64."""
    metadata = {"name": name, "namespace": namespace}
    apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


def worker_template() -> dict[str, Any]:
    """Return the `podTemplate` of workers, and of the operator's Jobs, that are this user."""
    return {
        "spec": {
            "containers": [{"name": "worker", "volumeMounts": [MOUNT]}],
            "volumes": [VOLUME],
        }
    }


def _user(name: str, prefix: str) -> dict[str, Any]:
    topics = {"type": "topic", "name": prefix, "patternType": "prefix"}
    group = {"type": "group", "name": "microfin-workers", "patternType": "literal"}
    acls = [
        {"resource": topics, "operations": ["All"]},
        {"resource": group, "operations": ["Read"]},
    ]
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaUser",
        "metadata": {
            "name": name,
            "namespace": LAB_KAFKA.namespace,
            "labels": {"strimzi.io/cluster": LAB_KAFKA.name},
        },
        "spec": {
            "authentication": {"type": "tls"},
            "authorization": {"type": "simple", "acls": acls},
        },
    }
