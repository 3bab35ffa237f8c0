"""A MicrofinCluster as the operator reads it. The API server has checked and completed it by the
CustomResourceDefinition (charts/microfin-operator/files); what it leaves out has its default here.
"""

from typing import Any

import msgspec

from microfin_operator.kinds import MICROFIN_CLUSTER, KubernetesObject


class _Camel(msgspec.Struct, frozen=True, rename="camel"):
    """Fields are written in camel case; those we do not know are passed over."""


class Strimzi(_Camel, frozen=True):
    """Where Strimzi runs the Kafka."""

    cluster: str
    namespace: str


class Bootstrap(_Camel, frozen=True):
    """A Kafka that Strimzi does not run."""

    servers: str


class Topic(_Camel, frozen=True):
    """The commands topic."""

    name: str = "microfin.commands"
    strimzi: Strimzi | None = None
    bootstrap: Bootstrap | None = None
    replicas: int = 3
    config: dict[str, str] = {}


class WorkerSpec(_Camel, frozen=True):
    """How the workers' pods are made."""

    image: str
    image_pull_policy: str = "IfNotPresent"
    env_from: list[dict[str, Any]] = []
    resources: dict[str, Any] = {}
    termination_grace_period_seconds: int = 30
    pod_template: dict[str, Any] = {}


class Spec(_Camel, frozen=True):
    """What somebody wants."""

    topic: Topic
    worker: WorkerSpec
    partitions: int = 3
    shards: int = 1
    paused: bool = False


class Cluster(msgspec.Struct, frozen=True):
    """A MicrofinCluster and the status that was written last."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: Spec
    status: dict[str, Any]
    deleting: bool

    @property
    def owner_reference(self) -> dict[str, Any]:
        """What makes an object go when the cluster goes."""
        return {
            "apiVersion": MICROFIN_CLUSTER.api_version,
            "kind": MICROFIN_CLUSTER.name,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
        }

    def earlier_partitions(self, which: str) -> int:
        """Return `topic` or `active` partitions as last known; 0 where never known."""
        return int(self.status.get("partitions", {}).get(which) or 0)


def read_cluster(raw: KubernetesObject) -> Cluster:
    """Return the cluster that the API gave. Raises `msgspec.ValidationError` where it is none."""
    metadata = raw["metadata"]
    return Cluster(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 1),
        spec=msgspec.convert(raw["spec"], Spec),
        status=raw.get("status") or {},
        deleting="deletionTimestamp" in metadata,
    )
