"""The state of a cluster as one pass of the operator found it."""

import re
from typing import Any, Literal, TypeAlias

import msgspec

from microfin_operator.custom_resource import Cluster
from microfin_operator.kinds import KubernetesObject
from microfin_operator.names import ADMINISTRATION, COMPONENT_LABEL, WORKER, worker_name

TopicKind: TypeAlias = Literal["served", "missing", "forbidden"]
"""Whether Strimzi's objects can be read: Strimzi or the permission may be missing."""


class WorkerReport(msgspec.Struct, frozen=True):
    """The fields of a worker's `/status` (see `microfin_worker.status`) that the operator needs."""

    partition: int
    state: str
    reason: str = ""
    generation: int = 0
    partition_count: int = 0
    topic_partitions: int = 0
    lag_records: int = 0
    lag_seconds: float = 0.0
    unreachable: list[str] = []


class Observation(msgspec.Struct, frozen=True):
    """A cluster and everything that belongs to it.

    `kafka` is read only if it has to allow the topic.
    """

    cluster: Cluster
    topic: KubernetesObject | None = None
    topic_kind: TopicKind = "served"
    kafka: KubernetesObject | None = None
    kafka_kind: TopicKind = "served"
    stateful_set: KubernetesObject | None = None
    service: KubernetesObject | None = None
    disruption_budget: KubernetesObject | None = None
    pods: list[KubernetesObject] = []
    jobs: list[KubernetesObject] = []
    reports: dict[int, WorkerReport] = {}

    @property
    def worker_pods(self) -> dict[int, KubernetesObject]:
        """The workers' pods by their ordinals, which are their partitions."""
        ordinal = re.compile(re.escape(worker_name(self.cluster.name)) + "-([0-9]+)")
        named = ((ordinal.fullmatch(pod["metadata"]["name"]), pod) for pod in self.pods)
        return {int(match[1]): pod for match, pod in named if match and component(pod) == WORKER}

    def job_pods(self, job: str) -> list[KubernetesObject]:
        """Return the pods of a Job, oldest first."""
        pods = [
            pod
            for pod in self.pods
            if component(pod) == ADMINISTRATION
            and pod["metadata"]["labels"].get("batch.kubernetes.io/job-name") == job
        ]
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    @property
    def reported_topic_partitions(self) -> int:
        """The topic's partitions as the workers report them; 0 without a report."""
        return max((report.topic_partitions for report in self.reports.values()), default=0)


def component(pod: KubernetesObject) -> str:
    """Return the component that a pod belongs to: worker or administration."""
    return str((pod["metadata"].get("labels") or {}).get(COMPONENT_LABEL, ""))


def is_terminating(item: KubernetesObject) -> bool:
    """Whether the object is being deleted."""
    return "deletionTimestamp" in item["metadata"]


def is_ready(pod: KubernetesObject) -> bool:
    """Whether the kubelet reports a pod as ready."""
    conditions: list[dict[str, Any]] = pod.get("status", {}).get("conditions") or []
    return any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)
