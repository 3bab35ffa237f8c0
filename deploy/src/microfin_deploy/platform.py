"""The cluster, and the components of other vendors in it."""

import json
from dataclasses import dataclass
from typing import Self

from microfin_deploy.commands import DeployError, Say, exists, kubectl, succeeds

_CNPG = "clusters.postgresql.cnpg.io"
_ALLOWED = "microfin.io/allow-namespaces"
_MISSING = (
    "{what} is not in this cluster. Install it as k8s/{folder}/README.md says, or use "
    "`make kind-up` for a cluster with everything."
)


@dataclass(frozen=True)
class ExistingKafka:
    """A Kafka that the cluster has already. It serves clients without TLS, by Strimzi's names."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAMESPACE/NAME`. Raises DeployError."""
        namespace, _, name = text.partition("/")
        if not namespace or not name or "/" in name:
            raise DeployError(f"{text!r} names no Kafka: write NAMESPACE/NAME, as in kafka/main.")
        return cls(namespace, name)

    @property
    def bootstrap(self) -> str:
        """Return the address of the listener without TLS."""
        return f"{self.name}-kafka-bootstrap.{self.namespace}:9092"


@dataclass(frozen=True)
class Platform:
    """What is known of the cluster. Without an existing Kafka, Strimzi makes one for the bank."""

    kafka: ExistingKafka | None
    ingress_class: str

    @property
    def strimzi(self) -> bool:
        """Return whether Strimzi makes the bank's Kafka."""
        return self.kafka is None


def inspect_platform(say: Say, kafka: ExistingKafka | None = None) -> Platform:
    """Find out what the cluster has. Raises DeployError if something is missing."""
    if not succeeds("kubectl", "version", "--request-timeout=10s"):
        raise DeployError(
            "No cluster answers. Set KUBECONFIG, or create a cluster with `make kind-up`."
        )
    _wait_for_cnpg(say)
    if kafka is None and not exists("deployments", "-A", "-l", "strimzi.io/kind=cluster-operator"):
        raise DeployError(_MISSING.format(what="Strimzi", folder="strimzi"))
    return Platform(kafka, _ingress_class())


def require_permission(kafka: ExistingKafka, namespace: str, topic: str) -> None:
    """Raise DeployError unless the Kafka allows a bank in `namespace` to have its topic there.

    A bank that already has its topic needs no permission any more.
    """
    if exists("-n", kafka.namespace, f"kafkatopic/{topic}"):
        return
    found = kubectl("-n", kafka.namespace, "get", f"kafka/{kafka.name}", "-o", "json")
    allowed = json.loads(found)["metadata"].get("annotations", {}).get(_ALLOWED, "")
    if namespace not in allowed.replace(",", " ").split():
        raise DeployError(
            f"The Kafka {kafka.namespace}/{kafka.name} does not allow topics of banks in "
            f"{namespace}. If it should: kubectl -n {kafka.namespace} annotate kafka/{kafka.name} "
            f"{_ALLOWED}={','.join(filter(None, [allowed, namespace]))} --overwrite"
        )


def _wait_for_cnpg(say: Say) -> None:
    if not exists("crd", _CNPG):
        raise DeployError(_MISSING.format(what="CloudNativePG", folder="cnpg"))
    say("waiting for CloudNativePG's operator, whose webhook must answer")
    kubectl("wait", "--for=condition=Established", f"crd/{_CNPG}", "--timeout=60s")
    selector = ("-l", "app.kubernetes.io/name=cloudnative-pg")
    kubectl(*("wait", "--for=condition=Available", "deployment", "-A", *selector, "--timeout=180s"))


def _ingress_class() -> str:
    classes = kubectl("get", "ingressclass", "-o", "name").split()
    return classes[0].partition("/")[2] if classes else ""
