"""The names, labels and annotations by which the operator marks and finds its objects."""

from typing import Final

FIELD_MANAGER: Final = "microfin-operator"
"""The field manager of the operator's server-side applies."""

CLUSTER_LABEL: Final = "microfin.io/cluster"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
WORKER: Final = "worker"
ADMINISTRATION: Final = "administration"

MANAGED_BY: Final = "app.kubernetes.io/managed-by"

TOPIC_OWNER: Final = "microfin.io/owned-by"
"""Annotation of a KafkaTopic: namespace/name of its MicrofinCluster. An owner reference cannot
cross namespaces, and the topic outlives the cluster anyway."""

ALLOWED_NAMESPACES: Final = "microfin.io/allow-namespaces"
"""Annotation of a Kafka: the namespaces whose MicrofinClusters may have topics there, separated by
commas."""

DESIRED_HASH: Final = "microfin.io/desired"
"""Annotation: the hash of the last apply, by which the operator notices fields to remove."""

WORKER_PORT: Final = 8081
"""The port on which a worker reports its state."""


def worker_name(cluster: str) -> str:
    """Return the name of the workers' StatefulSet, Service and PodDisruptionBudget."""
    return f"{cluster}-worker"


def growth_job_name(cluster: str, partitions: int) -> str:
    """Return the name of the Job that spreads accounts over `partitions`."""
    return f"{cluster}-grow-{partitions}"


def topic_job_name(cluster: str, partitions: int) -> str:
    """Return the name of the Job that gives the topic `partitions`."""
    return f"{cluster}-topic-{partitions}"


def labels(cluster: str, component: str) -> dict[str, str]:
    """Return the labels of everything that belongs to a cluster."""
    return {
        "app.kubernetes.io/name": "microfin",
        "app.kubernetes.io/instance": cluster,
        COMPONENT_LABEL: component,
        MANAGED_BY: FIELD_MANAGER,
        CLUSTER_LABEL: cluster,
    }


def worker_selector(cluster: str) -> dict[str, str]:
    """Return the labels by which a cluster's worker pods are selected. They can never change."""
    return {CLUSTER_LABEL: cluster, COMPONENT_LABEL: WORKER}


def selector_text(selector: dict[str, str]) -> str:
    """Return a label selector as the API writes it."""
    return ",".join(f"{name}={value}" for name, value in sorted(selector.items()))
