"""The operator's chart: installed with its own few permissions, upgraded, uninstalled."""

import json
import os
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from e2e import data_plane, kafka_user, kubernetes_cluster
from e2e.existing_kafka import LAB_KAFKA, kafka_resource
from e2e.figures import figure
from e2e.kubernetes_cluster import ROOT, apply, get, kubectl, until

pytestmark = pytest.mark.timeout(300)

CHART = ROOT / "charts/microfin-operator"
IMAGE = os.environ.get("MICROFIN_E2E_OPERATOR_IMAGE", "ghcr.io/microfin/operator:e2e")
RELEASE = "e2e-microfin-operator"
DEFINITION = "crd/microfinclusters.microfin.io"


def helm(*arguments: str) -> str:
    done = subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(namespace: str, served: str, *more: str) -> None:
    """Install or upgrade the chart; it serves one namespace and Kafka's."""
    repository, _, tag = IMAGE.rpartition(":")
    helm(
        *("upgrade", "--install", RELEASE, str(CHART), "--namespace", namespace),
        *("--set", f"image.repository={repository},image.tag={tag}"),
        *("--set", f"namespaces={{{served},kafka}}", "--wait", "--timeout", "90s", *more),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def namespaces() -> AsyncIterator[tuple[str, str]]:
    """The operator's namespace and the bank's."""
    kubectl("delete", DEFINITION, "--ignore-not-found")  # a chart cannot take over another's
    async with (
        kubernetes_cluster.own_namespace() as operators,
        kubernetes_cluster.own_namespace() as banks,
    ):
        await data_plane.start(banks)
        await data_plane.make_ledger(banks, "bank")
        install(operators, banks)
        try:
            with kafka_user.user_of(banks):
                yield operators, banks
        finally:
            helm("uninstall", RELEASE, "--namespace", operators, "--ignore-not-found")
            kubectl("delete", DEFINITION, "--ignore-not-found")


async def test_with_its_permissions_a_bank_becomes_ready_and_grows(
    namespaces: tuple[str, str],
) -> None:
    _, banks = namespaces
    apply(kafka_resource(LAB_KAFKA, banks))
    apply(bank(banks, kafka_user.topic_of(banks, "chart")))
    kubectl("-n", banks, "wait", "--for=condition=Ready", "mfc/bank", "--timeout=120s")
    kubectl("-n", banks, "scale", "mfc/bank", "--replicas=4")

    def grown() -> bool:
        partitions = get("mfc/bank", banks)["status"]["partitions"]
        return bool(partitions == {"topic": 4, "active": 4, "desired": 4})

    took = await until("four partitions", grown)
    figure(f"grown from 3 to 4 in {took:.1f} s")


def bank(namespace: str, topic: str) -> dict[str, Any]:
    strimzi = {"cluster": "lab", "namespace": "kafka"}
    return {
        "apiVersion": "microfin.io/v1alpha1",
        "kind": "MicrofinCluster",
        "metadata": {"name": "bank", "namespace": namespace},
        "spec": {
            "topic": {"name": topic, "strimzi": strimzi, "replicas": 1},
            "worker": {
                "image": data_plane.WORKER_IMAGE,
                "envFrom": [{"secretRef": {"name": "bank"}}],
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
                "podTemplate": kafka_user.worker_template(),
            },
        },
    }


@pytest.mark.parametrize(
    ("verb", "what", "allowed"),
    [
        ("patch", "statefulsets.apps", True),
        ("create", "jobs.batch", True),
        ("get", "kafkas.kafka.strimzi.io", True),
        ("patch", "kafkas.kafka.strimzi.io", False),
        ("get", "secrets", False),
        ("list", "secrets", False),
        ("create", "pods/exec", False),
        ("create", "pods", False),
        ("delete", "pods", False),
        ("delete", "statefulsets.apps", False),
        ("update", "microfinclusters.microfin.io", False),
        ("delete", "kafkatopics.kafka.strimzi.io", False),
    ],
)
def test_it_may_do_what_it_needs_and_no_more(
    namespaces: tuple[str, str], verb: str, what: str, allowed: bool
) -> None:
    operators, banks = namespaces
    who = f"system:serviceaccount:{operators}:{RELEASE}"
    printed = kubectl("auth", "can-i", verb, what, "--as", who, "-n", banks, check=False)
    assert printed.startswith("yes" if allowed else "no"), printed
    elsewhere = kubectl("auth", "can-i", verb, what, "--as", who, "-n", "default", check=False)
    assert elsewhere.startswith("no"), elsewhere


async def test_an_upgrade_brings_the_definition_and_nothing_restarts(
    namespaces: tuple[str, str],
) -> None:
    operators, banks = namespaces
    before = get("statefulset/bank-worker", banks)["metadata"]["generation"]
    kubectl("label", DEFINITION, "old=true")
    columns = json.dumps([{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/0"}])
    kubectl("patch", DEFINITION, "--type=json", "-p", columns)
    install(operators, banks, "--force-conflicts", "--set", "resyncSeconds=300")
    table = kubectl("-n", banks, "get", "mfc")
    assert "PARTITIONS" in table
    assert get("statefulset/bank-worker", banks)["metadata"]["generation"] == before


async def test_uninstalling_keeps_banks_and_hangs_nowhere(namespaces: tuple[str, str]) -> None:
    operators, banks = namespaces
    helm("uninstall", RELEASE, "--namespace", operators, "--wait")
    assert "microfinclusters" in kubectl("get", DEFINITION)
    assert get("statefulset/bank-worker", banks)["spec"]["replicas"] == 4
    kubectl("-n", banks, "delete", "mfc/bank", "--timeout=20s")
    await until("the workers are gone", lambda: no_workers(banks), 60)


def no_workers(namespace: str) -> bool:
    pods = get("pods", namespace)["items"]
    return not any("worker" in pod["metadata"]["name"] for pod in pods)
