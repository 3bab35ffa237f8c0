"""The objects that run the workers: StatefulSet, headless Service and PodDisruptionBudget."""

from typing import Any

from microfin_operator.custom_resource import Cluster
from microfin_operator.drift import with_hash
from microfin_operator.kinds import (
    DISRUPTION_BUDGET,
    SERVICE,
    STATEFUL_SET,
    Kind,
    KubernetesObject,
)
from microfin_operator.names import WORKER, WORKER_PORT, labels, worker_name, worker_selector
from microfin_operator.pod_template import worker_template


def stateful_set(cluster: Cluster, replicas: int) -> KubernetesObject:
    """Return the workers' StatefulSet. Ordinals are partitions.

    Pods start all at once (`Parallel`), but an image is rolled out pod by pod: the controller
    replaces the next pod only when the previous one is ready. A worker is ready when it has claimed
    its partition.
    """
    return _owned(
        cluster,
        STATEFUL_SET,
        {
            "replicas": replicas,
            "serviceName": worker_name(cluster.name),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": worker_selector(cluster.name)},
            "template": worker_template(cluster),
        },
    )


def service(cluster: Cluster) -> KubernetesObject:
    """Return the headless Service that gives each worker a name, also those that are not ready."""
    return _owned(
        cluster,
        SERVICE,
        {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": worker_selector(cluster.name),
            "ports": [{"name": "health", "port": WORKER_PORT, "targetPort": "health"}],
        },
    )


def disruption_budget(cluster: Cluster) -> KubernetesObject:
    """Return the PodDisruptionBudget: one worker at a time, and a broken one never blocks."""
    return _owned(
        cluster,
        DISRUPTION_BUDGET,
        {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": worker_selector(cluster.name)},
        },
    )


def _owned(cluster: Cluster, kind: Kind, spec: dict[str, Any]) -> KubernetesObject:
    return with_hash(
        {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            "metadata": {
                "name": worker_name(cluster.name),
                "namespace": cluster.namespace,
                "labels": labels(cluster.name, WORKER),
                "ownerReferences": [cluster.owner_reference],
            },
            "spec": spec,
        }
    )
