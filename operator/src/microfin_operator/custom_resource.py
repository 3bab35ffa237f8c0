"""A MicrofinCluster as the operator reads it. The API server has checked and completed it by the
CustomResourceDefinition (charts/microfin-operator/files); optional fields have defaults here.
"""

from typing import Any

import msgspec

from microfin_operator.kinds import MICROFIN_CLUSTER, KubernetesObject


class _Camel(msgspec.Struct, frozen=True, rename="camel"):
    """Fields are written in camel case; unknown fields are ignored."""


class Strimzi(_Camel, frozen=True):
    """The name and namespace of a Kafka that Strimzi runs."""

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
    """The settings of the workers' pods."""

    image: str
    image_pull_policy: str = "IfNotPresent"
    env_from: list[dict[str, Any]] = []
    resources: dict[str, Any] = {}
    termination_grace_period_seconds: int = 30
    pod_template: dict[str, Any] = {}


class Administration(_Camel, frozen=True):
    """Where and with what the operator's Jobs run; what is empty is as it is for the workers."""

    resources: dict[str, Any] = {}
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    affinity: dict[str, Any] = {}
    priority_class_name: str = ""


class Spec(_Camel, frozen=True):
    """The desired state."""

    topic: Topic
    worker: WorkerSpec
    administration: Administration = Administration()
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
        """The reference by which Kubernetes deletes an object when the cluster is deleted."""
        return {
            "apiVersion": MICROFIN_CLUSTER.api_version,
            "kind": MICROFIN_CLUSTER.name,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
        }

    def earlier_partitions(self, which: str) -> int:
        """Return the last known number of `topic` or `active` partitions; 0 if there is none."""
        return int(self.status.get("partitions", {}).get(which) or 0)


def read_cluster(raw: KubernetesObject) -> Cluster:
    """Return a cluster from the API's JSON. Raises `msgspec.ValidationError` if it is invalid."""
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
