"""The commands topic: the operator makes, grows and adopts it, and never shrinks it."""

from datetime import datetime
from typing import Any, Final

import msgspec

from microfin_operator.custom_resource import Cluster, Strimzi
from microfin_operator.drift import applied_hash, apply_if_drifted, with_hash
from microfin_operator.jobs import completed, job, step
from microfin_operator.kinds import KAFKA_TOPIC, KubernetesObject
from microfin_operator.names import (
    ALLOWED_NAMESPACES,
    FIELD_MANAGER,
    MANAGED_BY,
    TOPIC_OWNER,
    topic_job_name,
)
from microfin_operator.observation import Observation
from microfin_operator.permission import is_denied, is_own, topic_owner
from microfin_operator.plan import Apply, InSync, NeedsPerson, Progressing, State

NEEDED_CONFIG: Final = {
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "cleanup.policy": "delete",
    "message.timestamp.type": "LogAppendTime",
    "unclean.leader.election.enable": "false",
}
"""docs/reference/wire-format.md gives the reasons."""

_ALWAYS: Final = frozenset((*NEEDED_CONFIG, "min.insync.replicas", "max.message.bytes"))
"""Settings that the operator gives every topic from the beginning."""

_MANAGED: Final = "strimzi.io/managed"
_PAUSED: Final = "strimzi.io/pause-reconciliation"


class TopicState(msgspec.Struct, frozen=True):
    """The topic's state. `partitions` is its known number of partitions, 0 if it is unknown;
    `foreign` is whether this cluster may not use it: it may hold another ledger's commands."""

    state: State
    partitions: int
    desired: int
    foreign: bool = False


def decide_topic(observation: Observation, active: int, now: datetime) -> TopicState:
    """Return the topic's state, with the actions that give it the desired partitions.

    `active` is the number of partitions that accounts are spread over; the topic never has fewer.
    """
    known = _known_partitions(observation)
    desired = _desired_partitions(observation, max(known, active))
    if observation.cluster.spec.topic.strimzi is None:
        state = _by_job(observation, known, desired, now)
    else:
        state = _by_strimzi(observation, observation.cluster.spec.topic.strimzi, known, desired)
    spec = observation.cluster.spec
    adopted = desired > _in_full_shards(spec.partitions, spec.shards)
    if isinstance(state, InSync) and adopted:
        state = msgspec.structs.replace(
            state, reason="Adopted", message=_adopted(observation.cluster, desired)
        )
    return TopicState(state, known, desired, _is_foreign(observation))


def topic_config(cluster: Cluster) -> dict[str, str]:
    """Return the topic's settings: those that the ledger needs, and those that the user adds."""
    in_sync = "2" if cluster.spec.topic.replicas >= 3 else "1"
    defaults = {"min.insync.replicas": in_sync, "max.message.bytes": str(1024 * 1024)}
    return {**defaults, **cluster.spec.topic.config, **NEEDED_CONFIG}


def kafka_topic(
    cluster: Cluster, where: Strimzi, partitions: int, live: KubernetesObject | None = None
) -> KubernetesObject:
    """Return the KafkaTopic. It has no owner: the log outlives the cluster that reads it.

    If `live` has a label that names another manager, the label stays.
    """
    topic = cluster.spec.topic
    managed_by = ((live or {}).get("metadata", {}).get("labels") or {}).get(MANAGED_BY)
    label = {MANAGED_BY: FIELD_MANAGER} if managed_by in (None, FIELD_MANAGER) else {}
    return with_hash(
        {
            "apiVersion": KAFKA_TOPIC.api_version,
            "kind": KAFKA_TOPIC.name,
            "metadata": {
                "name": topic.name,
                "namespace": where.namespace,
                "labels": {"strimzi.io/cluster": where.cluster, **label},
                "annotations": {TOPIC_OWNER: f"{cluster.namespace}/{cluster.name}"},
            },
            "spec": {
                "partitions": partitions,
                "replicas": topic.replicas,
                "config": topic_config(cluster),
            },
        }
    )


def _known_partitions(observation: Observation) -> int:
    """Return the topic's number of partitions: the highest known, because it never shrinks."""
    made = 0
    if (
        observation.topic is not None
        and _is_made(observation.topic)
        and not _is_foreign(observation)
    ):
        made = _spec_partitions(observation.topic)
    return max(
        made,
        _made_by_jobs(observation),
        observation.reported_topic_partitions,
        observation.cluster.earlier_partitions("topic"),
    )


def _made_by_jobs(observation: Observation) -> int:
    start = topic_job_name(observation.cluster.name, 0).removesuffix("0")
    numbers = [
        name.removeprefix(start) for name in completed(observation) if name.startswith(start)
    ]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _desired_partitions(observation: Observation, least: int) -> int:
    """Return the highest number that is wanted or exists, as a multiple of the shards."""
    spec = observation.cluster.spec
    asked = 0
    if observation.topic is not None and not _is_foreign(observation):
        asked = _spec_partitions(observation.topic)
    most = max(spec.partitions, asked, least)
    return _in_full_shards(most, spec.shards)


def _in_full_shards(partitions: int, shards: int) -> int:
    return -(-partitions // shards) * shards


def _adopted(cluster: Cluster, desired: int) -> str:
    return (
        f"the topic has {desired} partitions, spec.partitions asks for {cluster.spec.partitions}: "
        "partitions never shrink, so the larger number was adopted. Write it down with "
        f"`kubectl scale mfc/{cluster.name} --replicas={desired}`"
    )


# Strimzi ----------------------------------------------------------------------------------------


def _by_strimzi(observation: Observation, where: Strimzi, known: int, desired: int) -> State:
    cluster, topic = observation.cluster, observation.topic
    name = f"KafkaTopic {where.namespace}/{cluster.spec.topic.name}"
    obstacle = _obstacle(observation, where, name) or _gone(observation, name)
    if obstacle is not None:
        return obstacle
    wanted = kafka_topic(cluster, where, desired, topic)
    force = topic is not None and _has_set(cluster, topic, wanted)
    actions = tuple(
        Apply(it.kind, it.item, force=force) for it in apply_if_drifted(KAFKA_TOPIC, topic, wanted)
    )
    if topic is None:
        return Progressing("Creating", f"creating {name} with {desired} partitions", actions)
    if actions:
        grown = _spec_partitions(topic) < desired
        reason, verb = ("Growing", "growing") if grown else ("Applying", "changing")
        return Progressing(reason, f"{verb} {name} to {desired} partitions", actions)
    return _topic_operators_view(topic, name, known, desired)


def _obstacle(observation: Observation, where: Strimzi, name: str) -> NeedsPerson | None:
    """Return why the operator may not change the KafkaTopic, or None if it may."""
    if observation.topic_kind == "missing":
        return NeedsPerson(
            "StrimziMissing",
            "the API server knows no KafkaTopic: install Strimzi, or use topic.bootstrap",
        )
    if observation.topic_kind == "forbidden":
        return NeedsPerson(
            "TopicForbidden",
            f"the operator may not read {name}: let it also serve namespace {where.namespace} "
            "(value `namespaces` of its chart)",
        )
    if _is_another_clusters(observation):
        return NeedsPerson(
            "TopicTaken",
            f"{name} belongs to MicrofinCluster {topic_owner(observation.topic)}: two ledgers "
            "cannot share a topic. Choose another topic.name in a new MicrofinCluster; or, where "
            "that one is gone for good and this is its ledger, remove the KafkaTopic's annotation "
            f"{TOPIC_OWNER}",
        )
    return _denial(observation, where, name) if is_denied(observation) else None


def _gone(observation: Observation, name: str) -> NeedsPerson | None:
    """Return that a KafkaTopic is gone that was there, or None.

    Strimzi would make an empty topic of a new one, in the place of commands that are not decided.
    """
    made = observation.cluster.earlier_partitions("topic")
    if observation.topic is not None or not made:
        return None
    return NeedsPerson(
        "TopicGone",
        f"{name} is gone; its topic had {made} partitions. The operator does not make it again, "
        "because the new topic would be empty. See whether Kafka still has the topic, and make "
        "the KafkaTopic as docs/runbooks/topic-gone.md says",
    )


def _denial(observation: Observation, where: Strimzi, name: str) -> NeedsPerson:
    """Return who has to allow a topic in a Kafka of another namespace, and how."""
    kafka, namespace = f"Kafka {where.namespace}/{where.cluster}", observation.cluster.namespace
    if observation.kafka_kind == "forbidden":
        return NeedsPerson(
            "TopicForbidden",
            f"the operator may not read {kafka}, which has to allow {name}: let it also serve "
            f"namespace {where.namespace} (value `namespaces` of its chart)",
        )
    if observation.kafka is None:
        return NeedsPerson(
            "KafkaMissing",
            f"there is no {kafka}, which has to allow {name}: correct topic.strimzi",
        )
    return NeedsPerson(
        "TopicNotAllowed",
        f"{kafka} does not allow MicrofinClusters of namespace {namespace} to have topics there: "
        f"its owner must run `kubectl -n {where.namespace} annotate kafka/{where.cluster} "
        f"{ALLOWED_NAMESPACES}={namespace}` (value kafka.allowNamespaces of microfin-data)",
    )


def _has_set(cluster: Cluster, topic: KubernetesObject, wanted: KubernetesObject) -> bool:
    """Whether the operator has set all fields of `wanted` in `topic` before.

    It has if the cluster owns the topic, except for settings that were added to the spec since:
    someone else may have set those.
    """
    if not is_own(cluster, topic):
        return False
    if applied_hash(topic) == applied_hash(wanted):
        return True
    ours, live = _ours(topic), topic.get("spec", {}).get("config") or {}
    return all(
        name in _ALWAYS or name in ours or live.get(name, value) == value
        for name, value in wanted["spec"]["config"].items()
    )


def _ours(topic: KubernetesObject) -> set[str]:
    """Return the settings that the operator manages according to the API server."""
    entries = topic["metadata"].get("managedFields") or []
    fields = [it.get("fieldsV1") or {} for it in entries if it.get("manager") == FIELD_MANAGER]
    configs = [it.get("f:spec", {}).get("f:config", {}) for it in fields]
    return {name.removeprefix("f:") for config in configs for name in config}


def _topic_operators_view(topic: KubernetesObject, name: str, known: int, desired: int) -> State:
    """Return the state that Strimzi's Topic Operator reports for an up-to-date KafkaTopic."""
    annotations = topic["metadata"].get("annotations") or {}
    if annotations.get(_MANAGED) == "false":
        return NeedsPerson(
            "TopicUnmanaged",
            f"{name} has the annotation {_MANAGED}: remove it, so that Strimzi grows the topic",
        )
    if annotations.get(_PAUSED) == "true":
        return NeedsPerson(
            "TopicPaused",
            f"{name} has the annotation {_PAUSED}: remove it, so that Strimzi grows the topic",
        )
    if _is_made(topic):
        return InSync("InSync", f"the topic has {known} partitions")
    ready = _condition(topic)
    if ready is None or _is_stale(topic):
        return Progressing(
            "WaitingForTopicOperator",
            f"waiting until Strimzi's Topic Operator has given {name} {desired} partitions",
        )
    return NeedsPerson(
        "TopicNotReady",
        f"{name} is not ready: {ready.get('reason', 'unknown')}: {ready.get('message', '')}. "
        "See its status; the operator goes on when it is ready",
    )


def _is_made(topic: KubernetesObject) -> bool:
    """Whether the Topic Operator has made the topic according to its current spec."""
    ready = _condition(topic)
    return ready is not None and ready["status"] == "True" and not _is_stale(topic)


def _is_stale(topic: KubernetesObject) -> bool:
    seen = topic.get("status", {}).get("observedGeneration", 0)
    return bool(seen != topic["metadata"].get("generation", 1))


def _condition(topic: KubernetesObject) -> dict[str, Any] | None:
    conditions: list[dict[str, Any]] = topic.get("status", {}).get("conditions") or []
    return next((it for it in conditions if it["type"] == "Ready"), None)


def _spec_partitions(topic: KubernetesObject) -> int:
    return int(topic.get("spec", {}).get("partitions") or 0)


def _is_another_clusters(observation: Observation) -> bool:
    """Whether the topic belongs to another cluster, and so to another ledger."""
    return bool(topic_owner(observation.topic)) and not is_own(
        observation.cluster, observation.topic
    )


def _is_foreign(observation: Observation) -> bool:
    """Whether this cluster may not use the topic."""
    return _is_another_clusters(observation) or is_denied(observation)


# Kafka without Strimzi --------------------------------------------------------------------------


def _by_job(observation: Observation, known: int, desired: int, now: datetime) -> State:
    cluster = observation.cluster
    if known >= desired:
        return InSync("InSync", f"the topic has {known} partitions")
    name = topic_job_name(cluster.name, desired)
    command = topic_command(cluster, desired, existing=known > 0)
    done = step(observation, job(cluster, name, command), now)
    if done.state == "failed":
        return NeedsPerson(
            "TopicJobFailed",
            f"Job {name} could not give the topic {desired} partitions: {done.message}. "
            "It is tried again",
            done.actions,
        )
    reason = "Growing" if known else "Creating"
    waiting = f" ({done.message})" if done.message else ""
    message = f"Job {name} gives the topic {desired} partitions{waiting}"
    state = NeedsPerson if done.message else Progressing
    return state(reason, message, done.actions)


def topic_command(cluster: Cluster, partitions: int, *, existing: bool = False) -> list[str]:
    """Return the command that makes the topic or gives it more partitions.

    With `existing` it fails where there is no topic: an empty one must not replace another.
    """
    command = ["microfin", "topic", "grow", "--partitions", str(partitions)]
    command += ["--replicas", str(cluster.spec.topic.replicas)]
    for name, value in sorted(topic_config(cluster).items()):
        command += ["--config", f"{name}={value}"]
    return [*command, "--existing"] if existing else command
