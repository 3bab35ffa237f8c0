"""The cluster, and the components of other vendors in it."""

import json
from dataclasses import dataclass
from typing import Final, Self

from microfin_deploy.commands import DeployError, Say, exists, kubectl, listed, succeeds

# Labels of the operators' pods, by which their own Deployments select them. An upgrade cannot
# change them. The vendors' charts and plain manifests have the same ones here, but not on the
# Deployments themselves.
_STRIMZI_PODS: Final = ("strimzi.io/kind", "cluster-operator")
_CNPG_PODS: Final = ("app.kubernetes.io/name", "cloudnative-pg")

_STRIMZI: Final = tuple(
    f"{it}.kafka.strimzi.io" for it in ("kafkas", "kafkanodepools", "kafkatopics", "kafkausers")
)
_CNPG: Final = ("clusters.postgresql.cnpg.io", "poolers.postgresql.cnpg.io")
_PROMETHEUS: Final = tuple(
    f"{it}.monitoring.coreos.com" for it in ("podmonitors", "servicemonitors", "prometheusrules")
)
_DEFAULT_CLASS: Final = "ingressclass.kubernetes.io/is-default-class"
_ALLOWED = "microfin.io/allow-namespaces"
_TLS_PORT: Final = 9093
_MISSING = (
    "{what} is not in this cluster. Install it as k8s/{folder}/README.md says, or use "
    "`make kind-up` for a cluster with everything."
)


@dataclass(frozen=True)
class ExistingKafka:
    """A Kafka that Strimzi runs in another namespace than the bank's."""

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
        """Return the address of the listener for clients with certificates."""
        return f"{self.name}-kafka-bootstrap.{self.namespace}:{_TLS_PORT}"

    @property
    def authority(self) -> str:
        """Return the Secret with the brokers' CA."""
        return f"{self.name}-cluster-ca-cert"


@dataclass(frozen=True)
class Platform:
    """What is known of the cluster. Without an existing Kafka, Strimzi makes one for the bank."""

    kafka: ExistingKafka | None
    ingress_class: str
    prometheus_operator: bool = True

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
    _wait_for("CloudNativePG", "cnpg", _CNPG, _CNPG_PODS, say)
    if kafka is None:
        _wait_for("Strimzi", "strimzi", _STRIMZI, _STRIMZI_PODS, say)
    return Platform(kafka, _ingress_class(), all(exists("crd", it) for it in _PROMETHEUS))


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


def require_certificates(kafka: ExistingKafka) -> None:
    """Raise DeployError unless the Kafka knows its users by certificates, and gives them rights."""
    found = kubectl("-n", kafka.namespace, "get", f"kafka/{kafka.name}", "-o", "json")
    spec = json.loads(found)["spec"]["kafka"]
    listeners = [
        it
        for it in spec["listeners"]
        if it["port"] == _TLS_PORT
        and it["tls"]
        and it.get("authentication", {}).get("type") == "tls"
    ]
    if not listeners or spec.get("authorization", {}).get("type") != "simple":
        raise DeployError(
            f"The Kafka {kafka.namespace}/{kafka.name} has no listener on port {_TLS_PORT} with "
            "`tls: true` and `authentication: {type: tls}`, or no `authorization: {type: simple}`. "
            "Anybody could then write commands. Add them to its spec.kafka, as "
            "charts/microfin-data/templates/kafka.yaml does."
        )


def _wait_for(
    what: str, folder: str, definitions: tuple[str, ...], pods: tuple[str, str], say: Say
) -> None:
    """Wait until a vendor's definitions are served and its operator works. Raises DeployError.

    CloudNativePG's webhook must answer before somebody makes a Cluster.
    """
    if not all(exists("crd", it) for it in definitions):
        raise DeployError(_MISSING.format(what=what, folder=folder))
    kubectl("wait", "--for=condition=Established", *(f"crd/{it}" for it in definitions),
            "--timeout=60s")  # fmt: skip
    label, value = pods
    deployments = [
        (it["metadata"]["namespace"], it["metadata"]["name"])
        for it in listed("deployments", "-A")
        if it["spec"]["template"]["metadata"].get("labels", {}).get(label) == value
    ]
    if not deployments:
        raise DeployError(
            f"{what}'s definitions are in this cluster, but not its operator: there is no "
            f"Deployment whose pods have the label {label}={value}. Install it as "
            f"k8s/{folder}/README.md says."
        )
    for namespace, name in deployments:
        say(f"waiting for {what}'s operator, deployment/{name} in {namespace}")
        kubectl("-n", namespace, "wait", "--for=condition=Available", f"deployment/{name}",
                "--timeout=180s")  # fmt: skip


def _ingress_class() -> str:
    """Return the cluster's default class, or else the first one; nothing if there is none."""
    classes = sorted(listed("ingressclasses"), key=lambda it: str(it["metadata"]["name"]))
    defaults = [
        it for it in classes if it["metadata"].get("annotations", {}).get(_DEFAULT_CLASS) == "true"
    ]
    return next((str(it["metadata"]["name"]) for it in [*defaults, *classes]), "")
