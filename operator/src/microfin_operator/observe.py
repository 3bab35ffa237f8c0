"""Reads a cluster and everything that belongs to it; changes nothing."""

import asyncio

import msgspec

from microfin_operator.custom_resource import Cluster, read_cluster
from microfin_operator.kinds import (
    DISRUPTION_BUDGET,
    JOB,
    KAFKA,
    KAFKA_TOPIC,
    MICROFIN_CLUSTER,
    POD,
    SERVICE,
    STATEFUL_SET,
    Kind,
    KubernetesObject,
)
from microfin_operator.kubernetes_api import KindMissing, KubernetesApi, Refused
from microfin_operator.names import (
    ADMINISTRATION,
    CLUSTER_LABEL,
    COMPONENT_LABEL,
    WORKER,
    worker_name,
)
from microfin_operator.observation import Observation, TopicKind
from microfin_operator.permission import needs_permission
from microfin_operator.worker_reports import WorkerReader


async def observe(
    api: KubernetesApi, workers: WorkerReader, namespace: str, name: str
) -> Observation | None:
    """Return the current state, or None if the cluster is deleted or being deleted.

    Raises `ApiFailure`.
    """
    raw = await api.get(MICROFIN_CLUSTER, namespace, name)
    if raw is None:
        return None
    cluster = read_cluster(raw)
    if cluster.deleting:
        return None
    owned = worker_name(name)
    (topic, topic_kind), stateful_set, service, budget, pods, jobs = await asyncio.gather(
        _topic(api, cluster),
        api.get(STATEFUL_SET, namespace, owned),
        api.get(SERVICE, namespace, owned),
        api.get(DISRUPTION_BUDGET, namespace, owned),
        api.list(POD, namespace, f"{CLUSTER_LABEL}={name}"),
        api.list(JOB, namespace, f"{CLUSTER_LABEL}={name}"),
    )
    found = Observation(
        cluster=cluster,
        topic=topic,
        topic_kind=topic_kind,
        stateful_set=stateful_set,
        service=service,
        disruption_budget=budget,
        pods=[pod for pod in pods if _is_ours(pod, name)],
        jobs=[it for it in jobs if _labels(it).get(CLUSTER_LABEL) == name],
    )
    if needs_permission(cluster, topic):
        kafka, kafka_kind = await _kafka(api, cluster)
        found = msgspec.structs.replace(found, kafka=kafka, kafka_kind=kafka_kind)
    return msgspec.structs.replace(found, reports=await workers.read(found.worker_pods))


async def _topic(api: KubernetesApi, cluster: Cluster) -> tuple[KubernetesObject | None, TopicKind]:
    where = cluster.spec.topic.strimzi
    if where is None:
        return None, "served"
    return await _strimzis(api, KAFKA_TOPIC, where.namespace, cluster.spec.topic.name)


async def _kafka(api: KubernetesApi, cluster: Cluster) -> tuple[KubernetesObject | None, TopicKind]:
    where = cluster.spec.topic.strimzi
    if where is None:
        return None, "served"
    return await _strimzis(api, KAFKA, where.namespace, where.cluster)


async def _strimzis(
    api: KubernetesApi, kind: Kind, namespace: str, name: str
) -> tuple[KubernetesObject | None, TopicKind]:
    try:
        return await api.get(kind, namespace, name), "served"
    except KindMissing:
        return None, "missing"
    except Refused:
        return None, "forbidden"


def _is_ours(pod: KubernetesObject, cluster: str) -> bool:
    labels = _labels(pod)
    component = labels.get(COMPONENT_LABEL)
    return labels.get(CLUSTER_LABEL) == cluster and component in (WORKER, ADMINISTRATION)


def _labels(item: KubernetesObject) -> dict[str, str]:
    labels: dict[str, str] = item["metadata"].get("labels") or {}
    return labels
