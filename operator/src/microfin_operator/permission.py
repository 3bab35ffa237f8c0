"""Decides whether a cluster may have its topic in a Kafka of another namespace (ADR 25)."""

import re

from microfin_operator.custom_resource import Cluster
from microfin_operator.kinds import KubernetesObject
from microfin_operator.names import ALLOWED_NAMESPACES, TOPIC_OWNER
from microfin_operator.observation import Observation


def topic_owner(topic: KubernetesObject | None) -> str:
    """Return the namespace/name of the cluster that a KafkaTopic names as its owner, or ""."""
    annotations = (topic or {}).get("metadata", {}).get("annotations") or {}
    return str(annotations.get(TOPIC_OWNER, ""))


def is_own(cluster: Cluster, topic: KubernetesObject | None) -> bool:
    """Whether a KafkaTopic names this cluster as its owner."""
    return topic_owner(topic) == f"{cluster.namespace}/{cluster.name}"


def needs_permission(cluster: Cluster, topic: KubernetesObject | None) -> bool:
    """Whether the Kafka has to allow the topic: it is in another namespace and not yet owned."""
    where = cluster.spec.topic.strimzi
    return where is not None and where.namespace != cluster.namespace and not is_own(cluster, topic)


def is_denied(observation: Observation) -> bool:
    """Whether the Kafka has to allow the topic and does not."""
    cluster = observation.cluster
    if not needs_permission(cluster, observation.topic):
        return False
    annotations = (observation.kafka or {}).get("metadata", {}).get("annotations") or {}
    allowed = re.split(r"[,\s]+", str(annotations.get(ALLOWED_NAMESPACES, "")))
    return cluster.namespace not in allowed
