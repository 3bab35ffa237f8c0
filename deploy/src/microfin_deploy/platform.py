"""The cluster, and the components of other vendors in it.

The lab is the Kubernetes node that the end-to-end tests use (tests/e2e/README.md). It has one
plaintext Kafka broker instead of Strimzi.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from microfin_deploy.commands import ROOT, DeployError, Say, exists, kubectl, run, succeeds

LAB_KAFKA = "lab-kafka-bootstrap.kafka:9092"
_CNPG = "clusters.postgresql.cnpg.io"
_MISSING = (
    "{what} is not in this cluster. Install it as k8s/{folder}/README.md says, or use "
    "`make kind-up` for a cluster with everything."
)


@dataclass(frozen=True)
class Platform:
    """What is known of the cluster; `lab` is the lab's script if the cluster is the lab."""

    lab: Path | None
    strimzi: bool
    ingress_class: str


def lab_script() -> Path | None:
    """Return the lab's script if KUBECONFIG names the lab's node."""
    script = (ROOT / os.environ.get("LAB", "../shared/lab/lab")).resolve()
    return script if script.is_file() and exists("node/lab") else None


def prepare_platform(say: Say) -> Platform:
    """Find out what the cluster has; install what is missing in the lab. Raises DeployError."""
    if not succeeds("kubectl", "version", "--request-timeout=10s"):
        raise DeployError(
            "No cluster answers. Set KUBECONFIG, or create a cluster with `make kind-up`."
        )
    lab = lab_script()
    _prepare_cnpg(lab, say)
    strimzi = exists("deployments", "-A", "-l", "strimzi.io/kind=cluster-operator")
    if not strimzi:
        _prepare_lab_kafka(lab, say)
    return Platform(lab, strimzi, _ingress_class())


def _prepare_cnpg(lab: Path | None, say: Say) -> None:
    if not exists("crd", _CNPG):
        if lab is None:
            raise DeployError(_MISSING.format(what="CloudNativePG", folder="cnpg"))
        say("installing CloudNativePG's operator in the end-to-end tests' node")
        run(str(lab), "install", "cnpg")
    say("waiting for CloudNativePG's operator, whose webhook must answer")
    kubectl("wait", "--for=condition=Established", f"crd/{_CNPG}", "--timeout=60s")
    selector = ("-l", "app.kubernetes.io/name=cloudnative-pg")
    kubectl(*("wait", "--for=condition=Available", "deployment", "-A", *selector, "--timeout=180s"))


def _prepare_lab_kafka(lab: Path | None, say: Say) -> None:
    if lab is None:
        raise DeployError(_MISSING.format(what="Strimzi", folder="strimzi"))
    if not exists("-n", "kafka", "statefulset/kafka"):
        say("installing Kafka in the end-to-end tests' node")
        run(str(lab), "install", "kafka")
    kubectl("-n", "kafka", "rollout", "status", "statefulset/kafka", "--timeout=180s")


def _ingress_class() -> str:
    classes = kubectl("get", "ingressclass", "-o", "name").split()
    return classes[0].partition("/")[2] if classes else ""
