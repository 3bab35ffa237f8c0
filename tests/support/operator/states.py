"""States of a cluster, as the operator could find them, for tests of its decisions."""

from datetime import UTC, datetime
from typing import Any

from microfin_operator.custom_resource import Cluster, read_cluster
from microfin_operator.jobs import job
from microfin_operator.kinds import KubernetesObject
from microfin_operator.names import (
    ADMINISTRATION,
    CLUSTER_LABEL,
    WORKER,
    labels,
)
from microfin_operator.observation import Observation, WorkerReport
from microfin_operator.topic import kafka_topic
from microfin_operator.workload import disruption_budget, service, stateful_set

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
STRIMZI = {"cluster": "kafka", "namespace": "data"}


def resource(status: dict[str, Any] | None = None, **spec: Any) -> KubernetesObject:
    """Return a MicrofinCluster as the API gives it."""
    topic = {"name": "microfin.commands", "replicas": 3, **spec.pop("topic", {"strimzi": STRIMZI})}
    worker = {
        "image": "ghcr.io/microfin/worker:1",
        "envFrom": [{"secretRef": {"name": "microfin-worker"}}],
        **spec.pop("worker", {}),
    }
    return {
        "apiVersion": "microfin.io/v1alpha1",
        "kind": "MicrofinCluster",
        "metadata": {"name": "bank", "namespace": "apps", "uid": "uid-bank", "generation": 4},
        "spec": {
            "partitions": 3,
            "shards": 1,
            "paused": False,
            **spec,
            "topic": topic,
            "worker": worker,
        },
        "status": status or {},
    }


def cluster(status: dict[str, Any] | None = None, **spec: Any) -> Cluster:
    """Return a cluster as the operator reads it."""
    return read_cluster(resource(status, **spec))


def kafka(*allowed: str) -> KubernetesObject:
    """Return the Kafka, which allows some namespaces to have topics there."""
    annotations = {"microfin.io/allow-namespaces": ", ".join(allowed)} if allowed else {}
    metadata = {"name": "kafka", "namespace": "data", "annotations": annotations}
    return {"apiVersion": "kafka.strimzi.io/v1", "kind": "Kafka", "metadata": metadata}


def topic(
    of: Cluster,
    partitions: int,
    ready: str = "True",
    *,
    seen: bool = True,
    reason: str = "",
) -> KubernetesObject:
    """Return the cluster's KafkaTopic with the status that Strimzi gave it."""
    assert of.spec.topic.strimzi is not None
    item = kafka_topic(of, of.spec.topic.strimzi, partitions)
    item["metadata"]["generation"] = 2
    condition = {"type": "Ready", "status": ready}
    if reason:
        condition |= {"reason": reason, "message": "as Strimzi says"}
    item["status"] = {"observedGeneration": 2 if seen else 1, "conditions": [condition]}
    return item


def pods(of: Cluster, count: int, component: str = WORKER) -> list[KubernetesObject]:
    """Return worker pods that run and are ready."""
    return [
        {
            "metadata": {
                "name": f"bank-worker-{ordinal}",
                "namespace": of.namespace,
                "labels": {**labels(of.name, component), CLUSTER_LABEL: of.name},
            },
            "status": {
                "phase": "Running",
                "podIP": f"10.0.0.{ordinal}",
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
        for ordinal in range(count)
    ]


def reports(
    count: int, active: int | None = None, topic_partitions: int | None = None, generation: int = 1
) -> dict[int, WorkerReport]:
    """Return the reports of `count` workers at work."""
    return {
        ordinal: WorkerReport(
            partition=ordinal,
            state="working",
            generation=generation,
            partition_count=count if active is None else active,
            topic_partitions=count if topic_partitions is None else topic_partitions,
        )
        for ordinal in range(count)
    }


def workload(of: Cluster, replicas: int) -> dict[str, KubernetesObject]:
    """Return the workers' objects as the operator applied them and their controllers finished."""
    live = stateful_set(of, replicas)
    live["metadata"]["generation"] = 1
    live["status"] = {
        "observedGeneration": 1,
        "replicas": replicas,
        "readyReplicas": replicas,
        "updatedReplicas": replicas,
        "currentRevision": "a",
        "updateRevision": "a",
    }
    return {
        "stateful_set": live,
        "service": service(of),
        "disruption_budget": disruption_budget(of),
    }


def at_rest(of: Cluster, partitions: int = 3, **changes: Any) -> Observation:
    """Return a cluster of which everything is as desired, but for the changes."""
    found: dict[str, Any] = {
        **workload(of, partitions),
        "pods": pods(of, partitions),
        "reports": reports(partitions),
        **changes,
    }
    if of.spec.topic.strimzi is not None:
        found.setdefault("topic", topic(of, partitions))
    return Observation(cluster=of, **found)


def ended_job(of: Cluster, name: str, kind: str, at: datetime) -> KubernetesObject:
    """Return a Job that has completed or failed."""
    item = job(of, name, ["microfin"])
    item["metadata"]["uid"] = f"uid-{name}"
    time = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": kind, "status": "True", "lastTransitionTime": time}
    item["status"] = {"conditions": [condition]}
    return item


def job_pod(of: Cluster, name: str, message: str) -> KubernetesObject:
    """Return the pod of a Job that failed with a message."""
    ended = {"state": {"terminated": {"exitCode": 2, "message": message}}}
    return {
        "metadata": {
            "name": f"{name}-x",
            "namespace": of.namespace,
            "labels": {**labels(of.name, ADMINISTRATION), "batch.kubernetes.io/job-name": name},
        },
        "status": {"containerStatuses": [ended]},
    }


def condition(status: dict[str, Any], type_: str) -> dict[str, Any]:
    """Return one condition of a status."""
    found: dict[str, Any] = next(it for it in status["conditions"] if it["type"] == type_)
    return found
