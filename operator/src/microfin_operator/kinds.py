"""The kinds of objects that the operator reads and writes, and their paths in the API."""

from typing import Any, Final, TypeAlias

import msgspec

KubernetesObject: TypeAlias = dict[str, Any]
"""An object from the API, in JSON's types."""


class Kind(msgspec.Struct, frozen=True):
    """A kind of namespaced object."""

    api_version: str
    name: str
    plural: str

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Return the path of one object, or without `name` of all objects in the namespace."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else "/api/v1"
        segments = (root, "namespaces", namespace, self.plural, name, subresource)
        return "/".join(it for it in segments if it)


MICROFIN_CLUSTER: Final = Kind("microfin.io/v1alpha1", "MicrofinCluster", "microfinclusters")
KAFKA: Final = Kind("kafka.strimzi.io/v1", "Kafka", "kafkas")
KAFKA_TOPIC: Final = Kind("kafka.strimzi.io/v1", "KafkaTopic", "kafkatopics")
STATEFUL_SET: Final = Kind("apps/v1", "StatefulSet", "statefulsets")
SERVICE: Final = Kind("v1", "Service", "services")
POD: Final = Kind("v1", "Pod", "pods")
DISRUPTION_BUDGET: Final = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
JOB: Final = Kind("batch/v1", "Job", "jobs")
EVENT: Final = Kind("v1", "Event", "events")
